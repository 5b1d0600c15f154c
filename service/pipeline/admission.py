"""How much is in work, and whether more may be: by number, and by the time that it would take.

The whole pipeline has one bound. A request past it, or one that would not be answered in its time, is refused
at once, with a time to come back that follows from the measured rate, instead of waiting for an answer that
comes too late.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.errors import NotAVideo, OverLimit, Overloaded, Undecodable

# A second ago counts almost fully, a quarter of a minute ago hardly: a change of load is followed in seconds,
# and one clip that takes long says little.
MEMORY_S = 5.0
# What an expectation from elsewhere weighs, in seconds of measuring.
EXPECTED_S = 0.5
# A prediction is a mean, and half of the answers take longer; this much longer is rare.
CAUTION = 1.15
# Answers about the clip: they took their time, as those to come will. Any other failure was cut short by
# something else, and says nothing of the rate.
VERDICTS = (NotAVideo, Undecodable, OverLimit)
SHORTEST_RETRY_S = 1.0
LONGEST_RETRY_S = 60.0


class Throughput:
    """Mean time between two clips that are done, while there is work; the past is forgotten by and by."""

    def __init__(self) -> None:
        self._busy_s = 0.0
        self._clips = 0.0

    @property
    def interval_s(self) -> float:
        """Seconds for each clip; 0 while nothing is known."""
        return self._busy_s / self._clips if self._clips else 0.0

    def expect(self, clips_per_s: float) -> None:
        """Begin with what is known from elsewhere."""
        if not self._clips:
            self._busy_s, self._clips = EXPECTED_S, EXPECTED_S * clips_per_s

    def add(self, busy_s: float, clips: int) -> None:
        """So many clips were done after `busy_s` seconds of work."""
        kept = math.exp(-busy_s / MEMORY_S)
        self._busy_s = self._busy_s * kept + busy_s
        self._clips = self._clips * kept + clips


class Admission:
    """Counts what is in work and refuses what cannot be done in time.

    Args:
        limit: most requests in work.
        target_s: requests are accepted while they should be answered within so many seconds.
        burst: so many requests are in work whatever the target says: they are no overload yet.
        clock: monotonic time in seconds.
    """

    def __init__(
        self,
        limit: int,
        target_s: float = math.inf,
        burst: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = limit
        self._target_s = target_s
        self._burst = burst
        self._clock = clock
        self._inflight = 0
        self._measured = 0  # of those in work, the ones whose pace tells the rate
        self._clips = 0
        self._last_s = clock()
        self._idle = asyncio.Event()
        self._idle.set()
        self.throughput = Throughput()

    @property
    def inflight(self) -> int:
        """Requests accepted and not finished."""
        return self._inflight

    @property
    def full(self) -> bool:
        """Whether the next request of one clip would be refused."""
        return self._refusal(1, None) is not None

    def check(self, clips: int = 1, deadline: float | None = None) -> None:
        """Raise `Overloaded` where `admit` would."""
        refusal = self._refusal(clips, deadline)
        if refusal is not None:
            raise Overloaded(refusal, self.retry_after_s())

    @contextmanager
    def admit(self, clips: int = 1, deadline: float | None = None) -> Iterator[None]:
        """Be one of the requests in work.

        Args:
            clips: views that it has.
            deadline: time on the clock by which it has to be answered.

        Raises:
            Overloaded: there are enough already, or it could not be answered in time.
        """
        self.check(clips, deadline)
        if self._measured == 0:
            self._last_s = self._clock()  # an idle time says nothing about the rate
        self._measured += 1
        self._clips += clips
        done = 0
        try:
            with self._in_work():
                yield
            done = clips
        except VERDICTS:
            done = 1
            raise
        finally:
            self._leave(clips, done)

    @contextmanager
    def admit_long(self, deadline: float | None = None) -> Iterator[None]:
        """Be one of the requests in work, for long and by and by, as a timeline is.

        It has a place among them, and what it takes from the others shows in their rate. Its own pace says
        nothing of theirs: it waits for its reader, and its clips are not waited for.

        Args:
            deadline: time on the clock by which it has to begin to answer.

        Raises:
            Overloaded: there are enough already, or a clip could not be answered in that time.
        """
        self.check(1, deadline)
        with self._in_work():
            yield

    def retry_after_s(self) -> float:
        """In how many seconds those in work should be through."""
        return min(max(self._clips * self.throughput.interval_s, SHORTEST_RETRY_S), LONGEST_RETRY_S)

    async def idle(self) -> None:
        """Wait until no request is in work."""
        await self._idle.wait()

    def _refusal(self, clips: int, deadline: float | None) -> str | None:
        """Why a request of so many views would be refused; None if it would not be."""
        if self._inflight >= self._limit:
            return f"{self._inflight} requests are in work, the limit."
        if not self._measured:
            return None
        expected_s = (self._clips + clips) * self.throughput.interval_s * CAUTION
        if deadline is not None and self._clock() + expected_s > deadline:
            return f"It would take {expected_s:.1f} s, with {self._inflight} requests in work: too long."
        if self._inflight >= self._burst and expected_s > self._target_s:
            return f"{self._inflight} requests are in work; another would take {expected_s:.1f} s."
        return None

    @contextmanager
    def _in_work(self) -> Iterator[None]:
        self._inflight += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._inflight -= 1
            if self._inflight == 0:
                self._idle.set()

    def _leave(self, clips: int, done: int) -> None:
        self._measured -= 1
        self._clips -= clips
        now = self._clock()
        self.throughput.add(now - self._last_s, done)
        self._last_s = now
