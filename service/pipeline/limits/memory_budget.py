"""A limit on the memory that concurrent requests hold in this process."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class MemoryBudget:
    """`total_bytes` shared by all requests; requests that do not fit wait in order of arrival.

    A reservation above the total is reduced to the total, so the largest requests run one at a time.

    Args:
        total_bytes: the budget.
        overtaking_bytes: reservations up to this size do not wait behind larger ones if they fit.
    """

    def __init__(self, total_bytes: int, overtaking_bytes: int = 0) -> None:
        self._total_bytes = total_bytes
        self._overtaking_bytes = overtaking_bytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self.free_bytes = total_bytes

    @asynccontextmanager
    async def reserve(self, size_bytes: int) -> AsyncIterator[Reservation]:
        """Reserve bytes for the block; `Reservation.shrink` releases some early."""
        size_bytes = min(size_bytes, self._total_bytes)
        small = size_bytes <= self._overtaking_bytes
        if size_bytes <= self.free_bytes and (small or not self._waiting):
            self.free_bytes -= size_bytes
        else:
            await self._wait(size_bytes, first=small)
        reservation = Reservation(self, size_bytes)
        try:
            yield reservation
        finally:
            self.release(reservation.size_bytes)

    def release(self, size_bytes: int) -> None:
        """Release bytes."""
        self.free_bytes += size_bytes
        while self._waiting:
            wanted_bytes, turn = self._waiting[0]
            if not turn.done():
                if wanted_bytes > self.free_bytes:
                    break
                self.free_bytes -= wanted_bytes
                turn.set_result(None)
            self._waiting.popleft()

    async def _wait(self, size_bytes: int, *, first: bool) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if first:
            self._waiting.appendleft((size_bytes, turn))
        else:
            self._waiting.append((size_bytes, turn))
        try:
            await turn
        except asyncio.CancelledError:
            # The bytes may have been granted at the same moment; otherwise the next request may fit now.
            self.release(0 if turn.cancelled() else size_bytes)
            raise


class Reservation:
    """The bytes that one request holds.

    Attributes:
        size_bytes: Their number.
    """

    def __init__(self, budget: MemoryBudget, size_bytes: int) -> None:
        self._budget = budget
        self.size_bytes = size_bytes

    def shrink(self, size_bytes: int) -> None:
        """Hold at most this much from now on."""
        less_bytes = max(0, self.size_bytes - size_bytes)
        self.size_bytes -= less_bytes
        if less_bytes:
            self._budget.release(less_bytes)
