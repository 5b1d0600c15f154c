from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from service.http.memory_room import MemoryRoom, Share

pytestmark = pytest.mark.anyio


class Holder:
    """Holds some of a room until it is told to let go."""

    def __init__(self, room: MemoryRoom, size_bytes: int) -> None:
        self.share: Share | None = None
        self.let_go = asyncio.Event()
        self.task = asyncio.create_task(self._hold(room, size_bytes))

    async def _hold(self, room: MemoryRoom, size_bytes: int) -> None:
        async with room.hold(size_bytes) as self.share:
            await self.let_go.wait()


@asynccontextmanager
async def holders(*sizes: int) -> AsyncIterator[tuple[MemoryRoom, list[Holder]]]:
    """A room of 100 bytes and those who want some of it, in this order; in the end all of it is free."""
    room = MemoryRoom(100)
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


async def test_there_is_room_for_some_and_the_others_wait_their_turn() -> None:
    async with holders(60, 40, 50, 10) as (room, found):
        assert who(found) == [True, True, False, False]  # the last would fit, and was not the first
        found[1].let_go.set()
        await settle()
        assert who(found) == [True, True, False, False]
        found[0].let_go.set()
        await settle()
        assert who(found) == [True] * 4
        assert room.free_bytes == 40


async def test_who_wants_more_than_there_is_has_it_alone() -> None:
    async with holders(1, 1000, 1) as (_, found):
        assert who(found) == [True, False, False]
        found[0].let_go.set()
        await settle()
        assert who(found) == [True, True, False]


async def test_what_is_not_needed_any_more_goes_to_the_next() -> None:
    async with holders(90, 50) as (room, found):
        assert found[0].share is not None
        found[0].share.shrink(30)
        found[0].share.shrink(40)  # no way back
        await settle()
        assert who(found) == [True, True]
        assert room.free_bytes == 20


async def test_who_gives_up_waiting_lets_the_next_one_through() -> None:
    async with holders(60, 70, 30) as (_, found):
        assert who(found) == [True, False, False]
        found[1].task.cancel()
        await settle()
        assert who(found) == [True, False, True]


async def test_who_gives_up_in_the_very_moment_of_its_turn_leaves_nothing_taken() -> None:
    async with holders(60, 70) as (_, found):
        found[0].let_go.set()
        while not found[0].task.done():
            await asyncio.sleep(0)
            if found[0].task.done():
                found[1].task.cancel()
