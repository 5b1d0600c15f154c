"""The order in which changes of different models load their graphs."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack


class Turn(ExitStack):
    """The turn of one change. It is taken for the first graph that the change loads, and lost after a time.

    Contexts that are entered end with the change.
    """

    def __init__(self, lock: asyncio.Lock, limit_s: float) -> None:
        super().__init__()
        self._lock = lock
        self._limit_s = limit_s
        self._taken = False
        self._holds = False

    async def take(self) -> None:
        """Wait for the turn, unless it was taken before."""
        if not self._taken:
            await self._lock.acquire()
            self._taken = self._holds = True
            timer = asyncio.get_running_loop().call_later(self._limit_s, self._release)
            self.callback(timer.cancel)
            self.callback(self._release)

    def _release(self) -> None:
        if self._holds:
            self._holds = False
            self._lock.release()
