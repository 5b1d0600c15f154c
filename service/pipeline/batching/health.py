"""The health of one model's inference, judged by its runs.

A failed run makes the model unhealthy until a run succeeds. A run that does not end, or a long time without
runs while requests wait, makes it unhealthy while that lasts.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.engines.session import InferenceFailed

LAST_RUNS = 100
# A run that takes this many times as long as the longest recent one is stuck rather than slow. The machine
# may pause for a moment, so runs of a few seconds never count as stuck.
TIMES_LONGEST = 20
LEAST_BOUND_S = 5.0


class InferenceHealth:
    """The state of one model's inference.

    Args:
        limit_s: maximum duration of a run, and of a time without runs while requests wait.
        clock: monotonic time in seconds.
    """

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit_s = limit_s
        self._clock = clock
        self._began_s: dict[object, float] = {}  # start times of the current runs, in order
        self._took_s: deque[float] = deque(maxlen=LAST_RUNS)
        self._requests = 0
        self._failed = False
        self._last_s = clock()  # last end of a run, or arrival of the first request after an idle time

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count one request, from its submission to its result."""
        if not self._requests:
            self._last_s = self._clock()
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1

    @contextmanager
    def run(self) -> Iterator[None]:
        """Time one run. A failed run does not count towards the expected duration."""
        run = object()
        self._began_s[run] = self._clock()
        try:
            yield
        except InferenceFailed:
            self._failed = True
            raise
        else:
            self._failed = False
            self._took_s.append(self._clock() - self._began_s[run])
        finally:
            del self._began_s[run]
            self._last_s = self._clock()

    @property
    def oldest_run_s(self) -> float:
        """Age of the oldest current run; 0 if there is none."""
        return self._clock() - next(iter(self._began_s.values())) if self._began_s else 0.0

    @property
    def run_limit_s(self) -> float:
        """Age at which a run counts as stuck, judged by the recent runs."""
        if not self._took_s:
            return self._limit_s
        return min(self._limit_s, max(LEAST_BOUND_S, TIMES_LONGEST * max(self._took_s)))

    def stuck(self) -> str | None:
        """Describe what is stuck, or return None."""
        if self.oldest_run_s > self.run_limit_s:
            return f"An inference has not ended for {self.oldest_run_s:.0f} s."
        quiet_s = self._clock() - self._last_s
        if self._requests and quiet_s > self._limit_s:
            return f"No inference has ended for {quiet_s:.0f} s."
        return None

    def problem(self) -> str | None:
        """Return the reason why inference does not work, or None."""
        return self.stuck() or ("The last inference failed." if self._failed else None)

    def needs_test(self, idle_s: float) -> bool:
        """Return whether the model is idle and its last run failed or ended at least `idle_s` seconds ago."""
        quiet_s = self._clock() - self._last_s
        return not self._requests and not self._began_s and (self._failed or quiet_s >= idle_s)
