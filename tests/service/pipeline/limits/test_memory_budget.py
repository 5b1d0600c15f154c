from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from service.pipeline.limits.memory_budget import MemoryBudget, Reservation

pytestmark = pytest.mark.anyio


class Holder:
    """Holds a reservation until the test releases it."""

    def __init__(self, room: MemoryBudget, size_bytes: int) -> None:
        self.share: Reservation | None = None
        self.let_go = asyncio.Event()
        self.task = asyncio.create_task(self._hold(room, size_bytes))

    async def _hold(self, room: MemoryBudget, size_bytes: int) -> None:
        async with room.reserve(size_bytes) as self.share:
            await self.let_go.wait()


@asynccontextmanager
async def holders(*sizes: int) -> AsyncIterator[tuple[MemoryBudget, list[Holder]]]:
    """A budget of 100 bytes and several reservations in this order; at the end everything is free."""
    room = MemoryBudget(100)
    found = [Holder(room, size) for size in sizes]
    await settle()
    yield room, found
    for holder in found:
        holder.let_go.set()
    await asyncio.wait([holder.task for holder in found])
    assert room.free_bytes == 100


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def who(found: list[Holder]) -> list[bool]:
    return [holder.share is not None for holder in found]


async def test_requests_beyond_the_capacity_wait_in_order() -> None:
    async with holders(60, 40, 50, 10) as (room, found):
        assert who(found) == [
            True,
            True,
            False,
            False,
        ]  # the last one would fit but is not first in the queue
        found[1].let_go.set()
        await settle()
        assert who(found) == [True, True, False, False]
        found[0].let_go.set()
        await settle()
        assert who(found) == [True] * 4
        assert room.free_bytes == 40


async def test_reservation_larger_than_the_capacity_runs_alone() -> None:
    async with holders(1, 1000, 1) as (_, found):
        assert who(found) == [True, False, False]
        found[0].let_go.set()
        await settle()
        assert who(found) == [True, True, False]


async def test_small_reservations_overtake_large_waiting_ones() -> None:
    budget = MemoryBudget(100, overtaking_bytes=10)
    found = [Holder(budget, size) for size in (60, 70, 10, 11)]
    await settle()
    assert who(found) == [True, False, True, False]
    found += [Holder(budget, 10) for _ in range(4)]
    await settle()
    assert who(found) == [True, False, True, False, True, True, True, False]
    found[2].let_go.set()
    await settle()
    assert who(found)[-1]  # a small waiting reservation precedes the large ones
    for holder in found:
        holder.let_go.set()
    await asyncio.wait([holder.task for holder in found])
    assert budget.free_bytes == 100


async def test_released_capacity_goes_to_the_next_waiter() -> None:
    async with holders(90, 50) as (room, found):
        assert found[0].share is not None
        found[0].share.shrink(30)
        found[0].share.shrink(40)  # no way back
        await settle()
        assert who(found) == [True, True]
        assert room.free_bytes == 20


async def test_cancelled_waiter_lets_the_next_one_through() -> None:
    async with holders(60, 70, 30) as (_, found):
        assert who(found) == [True, False, False]
        found[1].task.cancel()
        await settle()
        assert who(found) == [True, False, True]


async def test_waiter_cancelled_while_it_is_served_reserves_nothing() -> None:
    async with holders(60, 70) as (_, found):
        found[0].let_go.set()
        while not found[0].task.done():
            await asyncio.sleep(0)
            if found[0].task.done():
                found[1].task.cancel()
