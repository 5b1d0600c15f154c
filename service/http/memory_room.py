"""A bound on the memory of requests that are taken apart in this process, all of them together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class MemoryRoom:
    """`total_bytes` for all that hold some of it; the others wait, first come, first served.

    Who wants more than there is has all of it, alone: so no more is ever taken than that, or than the largest
    request takes by itself.
    """

    def __init__(self, total_bytes: int) -> None:
        self._total = self._free = total_bytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def free_bytes(self) -> int:
        """What nobody holds."""
        return self._free

    @asynccontextmanager
    async def hold(self, size_bytes: int) -> AsyncIterator[Share]:
        """Hold so much until the block ends, or less from when that is told."""
        size_bytes = min(size_bytes, self._total)
        await self._take(size_bytes)
        share = Share(self, size_bytes)
        try:
            yield share
        finally:
            share.shrink(0)

    def give(self, size_bytes: int) -> None:
        """Give some back."""
        self._free += size_bytes
        while self._waiting and (self._waiting[0][1].done() or self._waiting[0][0] <= self._free):
            wanted_bytes, turn = self._waiting.popleft()
            if not turn.done():
                self._free -= wanted_bytes
                turn.set_result(None)

    async def _take(self, size_bytes: int) -> None:
        if not self._waiting and size_bytes <= self._free:
            self._free -= size_bytes
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size_bytes, turn))
        try:
            await turn
        except asyncio.CancelledError:
            # Its turn may have come in that very moment; else those behind it may come before it now.
            self.give(0 if turn.cancelled() else size_bytes)
            raise


class Share:
    """What one request holds."""

    def __init__(self, room: MemoryRoom, size_bytes: int) -> None:
        self._room = room
        self._size_bytes = size_bytes

    def shrink(self, size_bytes: int) -> None:
        """Hold no more than so much from now on."""
        less_bytes = max(0, self._size_bytes - size_bytes)
        self._size_bytes -= less_bytes
        self._room.give(less_bytes)
