"""How long runs of a graph take: those that have ended, and the one that is under way for longest."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LAST_RUNS = 100
# A run that takes so many times what the longest of the last ones took is not slow but stuck. A machine that
# has other things to do for a moment is neither, so a few seconds never count.
TIMES_LONGEST = 20
LEAST_BOUND_S = 5.0


class RunTimes:
    """The runs of one model; `clock` is monotonic time in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began: dict[object, float] = {}  # in the order of their beginning
        self._took_s: deque[float] = deque(maxlen=LAST_RUNS)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Hold one run; what a run took that failed says nothing of the others."""
        run = object()
        self._began[run] = self._clock()
        try:
            yield
            self._took_s.append(self._clock() - self._began[run])
        finally:
            del self._began[run]

    @property
    def oldest_s(self) -> float:
        """For how long the run that began first is under way; 0 while there is none."""
        return self._clock() - next(iter(self._began.values())) if self._began else 0.0

    def overdue_s(self, limit_s: float) -> float | None:
        """For how long a run is under way that ought to have ended; None while there is none.

        Args:
            limit_s: longest that any run may take.
        """
        return self.oldest_s if self._began and self.oldest_s > self._bound_s(limit_s) else None

    def _bound_s(self, limit_s: float) -> float:
        if not self._took_s:
            return limit_s
        return min(limit_s, max(LEAST_BOUND_S, TIMES_LONGEST * max(self._took_s)))
