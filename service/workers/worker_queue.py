"""The queue of idle workers and waiting callers."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from service.workers.pool_worker import PoolWorker


class WorkerQueue:
    """Hands idle workers to callers, first come, first served.

    Args:
        clock: time in seconds, for `stalled_s`.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._idle: list[PoolWorker] = []
        self._waiters: deque[asyncio.Future[PoolWorker]] = deque()
        self._stalled_since_s: float | None = None

    @property
    def waiting(self) -> int:
        """Number of callers that wait."""
        return len(self._waiters)

    @property
    def stalled_s(self) -> float:
        """Time since a caller had to wait and no worker has become idle, or 0.

        Callers that give up do not reset it, so it also shows a loss of all workers if callers arrive one at
        a time.
        """
        return 0.0 if self._stalled_since_s is None else self._clock() - self._stalled_since_s

    @asynccontextmanager
    async def worker(self, *, first: bool = False) -> AsyncIterator[PoolWorker]:
        """Wait for a worker, reserve it, and release it at the end of the block, even after an error.

        `first` puts the caller at the head of the queue.
        """
        if self._idle:
            worker = self._idle.pop()
            worker.reserve()
        else:
            worker = await self._wait(first)
        try:
            yield worker
        finally:
            worker.release()

    async def _wait(self, first: bool) -> PoolWorker:
        waiter: asyncio.Future[PoolWorker] = asyncio.get_running_loop().create_future()
        if first:
            self._waiters.appendleft(waiter)
        else:
            self._waiters.append(waiter)
        if self._stalled_since_s is None:
            self._stalled_since_s = self._clock()
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            elif not waiter.cancelled() and waiter.exception() is None:
                waiter.result().release()  # the caller was cancelled just when it received the worker
            raise

    def offer(self, worker: PoolWorker) -> None:
        """Take an idle worker, or hand it to the caller that has waited longest."""
        self._stalled_since_s = None
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                worker.reserve()
                waiter.set_result(worker)
                break
        else:
            self._idle.append(worker)
        if self._waiters:
            self._stalled_since_s = self._clock()

    def discard(self, worker: PoolWorker) -> None:
        """Forget a worker that is no longer idle."""
        if worker in self._idle:
            self._idle.remove(worker)

    def fail(self, error: Exception) -> None:
        """Raise `error` in all waiting callers."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(error)
