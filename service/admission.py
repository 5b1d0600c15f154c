"""How many requests are in work, and how many may be.

The whole pipeline has one bound. A request past it is refused at once, with a time to come back that follows
from the measured rate, instead of waiting for an answer that comes too late.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.errors import Overloaded

# A new interval counts for a tenth: the estimate follows a change of load within some twenty requests.
NEW_SHARE = 0.1
SHORTEST_RETRY_S = 1.0
LONGEST_RETRY_S = 60.0


class Admission:
    """Counts requests in work and refuses those past `limit`.

    Args:
        limit: most requests in work.
        clock: monotonic time in seconds.
    """

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._inflight = 0
        self._interval_s: float | None = (
            None  # mean time between two requests that finish, while there is work
        )
        self._last_s = clock()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def inflight(self) -> int:
        """Requests accepted and not finished."""
        return self._inflight

    @property
    def full(self) -> bool:
        """Whether the next request would be refused."""
        return self._inflight >= self._limit

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Be one of the requests in work.

        Raises:
            Overloaded: there are `limit` already.
        """
        if self.full:
            raise Overloaded(f"{self._inflight} requests are in work, the limit.", self.retry_after_s())
        if self._inflight == 0:
            self._last_s = self._clock()  # an idle time says nothing about the rate
        self._inflight += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._leave()

    def retry_after_s(self) -> float:
        """In how many seconds those in work should be through."""
        estimate = self._inflight * (self._interval_s or 0.0)
        return min(max(estimate, SHORTEST_RETRY_S), LONGEST_RETRY_S)

    async def idle(self) -> None:
        """Wait until no request is in work."""
        await self._idle.wait()

    def _leave(self) -> None:
        self._inflight -= 1
        now = self._clock()
        interval = now - self._last_s
        self._last_s = now
        if self._interval_s is None:
            self._interval_s = interval
        else:
            self._interval_s += NEW_SHARE * (interval - self._interval_s)
        if self._inflight == 0:
            self._idle.set()
