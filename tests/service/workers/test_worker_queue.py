"""The queue alone: it only reserves and releases workers, so they are stood in for here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from service.workers.pool_worker import PoolWorker
from service.workers.worker_queue import WorkerQueue
from tests.support.clock import Clock

pytestmark = pytest.mark.anyio


class StandIn:
    """Goes back to the queue when it is released, as a real worker does once it is idle."""

    def __init__(self, queue: WorkerQueue) -> None:
        self._queue = queue
        self.reserved = False

    def reserve(self) -> None:
        assert not self.reserved
        self.reserved = True

    def release(self) -> None:
        assert self.reserved
        self.reserved = False
        self._queue.offer(self.as_worker())

    def as_worker(self) -> PoolWorker:
        return cast(PoolWorker, self)


@asynccontextmanager
async def callers(queue: WorkerQueue, *names: str, first: bool = False) -> AsyncIterator[list[str]]:
    """Callers that wait for a worker and release it at once; yields the names in the order of their turns."""
    turns: list[str] = []

    async def call(name: str) -> None:
        async with queue.worker(first=first):
            turns.append(name)

    tasks = []
    for name in names:
        tasks.append(asyncio.create_task(call(name)))
        await asyncio.sleep(0)
    try:
        yield turns
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_idle_worker_is_handed_out_at_once_and_released() -> None:
    queue = WorkerQueue()
    worker = StandIn(queue)
    queue.offer(worker.as_worker())
    for _ in range(2):
        async with queue.worker() as handed:
            assert handed is worker.as_worker()
            assert worker.reserved
        assert not worker.reserved
    assert (queue.waiting, queue.stalled_s) == (0, 0.0)


async def test_worker_is_released_after_an_error() -> None:
    queue = WorkerQueue()
    worker = StandIn(queue)
    queue.offer(worker.as_worker())
    with pytest.raises(ZeroDivisionError):
        async with queue.worker():
            raise ZeroDivisionError
    assert not worker.reserved


async def test_callers_take_turns_in_order_except_for_the_urgent() -> None:
    queue = WorkerQueue()
    async with callers(queue, "one", "two") as turns, callers(queue, "urgent", first=True) as urgent:
        assert queue.waiting == 3
        queue.offer(StandIn(queue).as_worker())
        await asyncio.sleep(0)
        assert (turns, urgent) == ([], ["urgent"])
        while queue.waiting:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert turns == ["one", "two"]


async def test_stall_counts_from_the_first_wait_since_a_worker_was_idle() -> None:
    clock = Clock()
    queue = WorkerQueue(clock)
    worker = StandIn(queue)
    async with callers(queue, "one"):
        clock.now_s += 3
        async with callers(queue, "two"):
            clock.now_s += 4
            assert queue.stalled_s == 7
        assert queue.stalled_s == 7  # callers that give up do not end it
    assert queue.waiting == 0
    assert queue.stalled_s == 7
    queue.offer(worker.as_worker())
    assert queue.stalled_s == 0.0
    async with queue.worker(), callers(queue, "one", "two"):
        clock.now_s += 2
        queue.offer(StandIn(queue).as_worker())
        clock.now_s += 1
        assert queue.stalled_s == 1  # one caller is left, and waits anew


async def test_caller_that_is_cancelled_just_as_it_gets_a_worker_passes_it_on() -> None:
    queue = WorkerQueue()
    worker = StandIn(queue)

    async def call() -> None:
        async with queue.worker():
            raise AssertionError

    cancelled = asyncio.create_task(call())
    await asyncio.sleep(0)
    async with callers(queue, "next") as turns:
        queue.offer(worker.as_worker())
        assert worker.reserved
        cancelled.cancel()
        await asyncio.wait([cancelled])
        await asyncio.sleep(0)
        assert turns == ["next"]
    assert cancelled.cancelled()
    assert not worker.reserved


async def test_discarded_worker_is_not_handed_out() -> None:
    queue = WorkerQueue()
    gone, kept = StandIn(queue), StandIn(queue)
    for worker in (kept, gone):
        queue.offer(worker.as_worker())
    queue.discard(gone.as_worker())
    queue.discard(gone.as_worker())  # not in the queue any more
    async with queue.worker() as handed:
        assert handed is kept.as_worker()


async def test_failure_reaches_every_caller_that_still_waits() -> None:
    queue = WorkerQueue()

    async def call() -> None:
        async with queue.worker():
            raise AssertionError

    tasks = [asyncio.create_task(call()) for _ in range(3)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    queue.fail(RuntimeError("closed"))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [RuntimeError, asyncio.CancelledError, RuntimeError]
    assert queue.waiting == 0
