"""Admission control: limits on the requests in progress, by number and by the time they would take.

A request is admitted before its upload is read. A request that exceeds a limit, or that could not be answered
in time at the measured rate, is rejected at once with a time to retry, instead of waiting for an answer that
would come too late.

    admitted, its upload is received ──> in progress ──> done
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from service.errors import NotAVideo, OverLimit, Overloaded, Undecodable

# The measured rate decays exponentially: a change of load shows within seconds, and a single slow video has
# little effect.
MEMORY_S = 5.0
# Weight of a rate that was measured when the model was loaded, in seconds of measurement.
EXPECTED_S = 0.5
# A predicted time is a mean, which half of the answers exceed; few exceed it by this factor.
CAUTION = 1.15
# These errors are results of decoding and take as long as a decodable video. Other errors end the work early
# and do not count towards the rate.
VERDICTS = (NotAVideo, Undecodable, OverLimit)
SHORTEST_RETRY_S = 1.0
LONGEST_RETRY_S = 60.0
# A slow upload uses no pipeline time, so more requests may be receiving than in progress. Each may hold a
# megabyte of memory.
UPLOADS_PER_PLACE = 4
# An upload that has sent nothing for this long gives its place to another one if all are taken, so that
# clients that only send the head of a request cannot lock out others.
IDLE_UPLOAD_S = 1.0
RETRY_TIMELINE_S = 10.0
# Most uploads are complete within this time after their head. Until then they count as upcoming work, so that
# requests that arrive together are not all admitted based on the earlier load.
ARRIVAL_S = 0.5


class Throughput:
    """Mean time between two completed views while there is work, exponentially decayed."""

    def __init__(self) -> None:
        self._busy_s = 0.0
        self._views = 0.0

    @property
    def interval_s(self) -> float:
        """Seconds per view; 0 while nothing is known."""
        return self._busy_s / self._views if self._views else 0.0

    def expect(self, views_per_s: float) -> None:
        """Start with a rate that was measured elsewhere; ignored once there are measurements."""
        if not self._views:
            self._busy_s, self._views = EXPECTED_S, EXPECTED_S * views_per_s

    def add(self, busy_s: float, views: int) -> None:
        """Count views that were completed after `busy_s` seconds of work."""
        kept = math.exp(-busy_s / MEMORY_S)
        self._busy_s = self._busy_s * kept + busy_s
        self._views = self._views * kept + views


@dataclass
class _ModelLoad:
    """The work in progress for one model; its `measured` requests determine the rate."""

    throughput: Throughput = field(default_factory=Throughput)
    views: int = 0
    measured: int = 0
    last_s: float = 0.0


class Admission:
    """Admits requests and counts those in progress.

    Args:
        limit: maximum number of requests in progress.
        target_s: requests are admitted while they should be answered within this time.
        burst: this many requests are admitted regardless of `target_s`.
        clock: monotonic time in seconds.

    Attributes:
        inflight: Requests in progress.
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
        self._loads: defaultdict[str, _ModelLoad] = defaultdict(_ModelLoad)
        self._receiving: dict[Ticket, None] = {}  # in the order of their admission
        self._arriving: dict[Ticket, None] = {}  # the receiving ones admitted less than ARRIVAL_S ago
        # The receiving ones that wait for data: since when, and the function that ends them; oldest first.
        self._waiting: dict[Ticket, tuple[float, Callable[[], None]]] = {}
        self.inflight = 0

    def throughput(self, model: str) -> Throughput:
        """The rate of a model."""
        return self._loads[model].throughput

    def admit(self, model: str, views: int = 1, timeout_s: float = math.inf) -> Ticket:
        """Admit a request; its upload may then be received.

        Args:
            model: the name of the model that serves it.
            views: number of views.
            timeout_s: time until its deadline.

        Raises:
            Overloaded: there are too many requests, or this one could not be answered in time.
        """
        if self.inflight >= self._limit:
            raise self._overloaded(f"The queue is full ({self.inflight} requests in progress).")
        full = len(self._receiving) >= UPLOADS_PER_PLACE * self._limit
        if full and not self._has_idle_upload():
            raise Overloaded(f"Too many uploads are in progress ({len(self._receiving)}).", SHORTEST_RETRY_S)
        load = self._loads[model]
        ticket = Ticket(self, load, views, timeout_s)
        self._check_time(ticket)
        if full:
            idle, (_, end) = next(iter(self._waiting.items()))
            idle.release()
            end()
        self._receiving[ticket] = self._arriving[ticket] = None
        return ticket

    def _has_idle_upload(self) -> bool:
        since_s, _ = next(iter(self._waiting.values()), (math.inf, None))
        return since_s + IDLE_UPLOAD_S <= self._clock()

    def _check_time(self, ticket: Ticket) -> None:
        """Reject a request that could not be answered in time after the requests ahead of it."""
        now = self._clock()
        for other in tuple(self._arriving):
            if other.admitted_s + ARRIVAL_S > now:
                break
            del self._arriving[other]
        arriving = [other for other in self._arriving if other is not ticket]
        ahead = ticket.load.views + sum(other.views for other in arriving if other.load is ticket.load)
        if not ahead:
            return  # the model is idle, so a later attempt would not be answered faster
        requests = self.inflight + len(arriving)
        expected_s = (ahead + ticket.views) * ticket.load.throughput.interval_s * CAUTION
        late = expected_s > ticket.timeout_s
        if late or (requests >= self._burst and expected_s > self._target_s):
            limit = "before its deadline" if late else f"within the latency target of {self._target_s:g} s"
            raise self._overloaded(
                f"With {requests} requests in progress this one would take {expected_s:.1f} s, "
                f"and could not be answered {limit}."
            )

    def _overloaded(self, message: str) -> Overloaded:
        """Return the error, with the time in which the slowest model should have finished its work."""
        backlogs_s = [load.views * load.throughput.interval_s for load in self._loads.values()]
        return Overloaded(message, min(max([SHORTEST_RETRY_S, *backlogs_s]), LONGEST_RETRY_S))


class TimelinePlaces:
    """Limits the timelines that are decoded at the same time. An upload in progress takes no place.

    Args:
        limit: maximum number.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0

    def check(self) -> None:
        """Raise `Overloaded` if no place is free."""
        if self._taken >= self._limit:
            raise Overloaded(
                f"The maximum number of timelines ({self._taken}) is in progress.", RETRY_TIMELINE_S
            )

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold a place during the block.

        Raises:
            Overloaded: none is free.
        """
        self.check()
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


class Ticket:
    """One admitted request. The ticket is released when the request ends, even if it is not in progress."""

    def __init__(self, admission: Admission, load: _ModelLoad, views: int, timeout_s: float) -> None:
        self._admission = admission
        self.load = load
        self.views = views
        self.timeout_s = timeout_s
        self.admitted_s = admission._clock()

    def require(self, views: int, timeout_s: float = math.inf) -> None:
        """Check again if the request turns out to have more views, or less time, than it was admitted for.

        Raises:
            Overloaded: the request could not be answered in time.
        """
        if views > self.views or timeout_s < self.timeout_s:
            self.views, self.timeout_s = views, min(timeout_s, self.timeout_s)
            self._admission._check_time(self)

    def release(self) -> None:
        """End the request if its upload was not received; does nothing otherwise."""
        self._admission._receiving.pop(self, None)
        self._admission._arriving.pop(self, None)
        self._admission._waiting.pop(self, None)

    @contextmanager
    def waiting_for_data(self, end: Callable[[], None]) -> Iterator[None]:
        """Give the place to another request if the block takes longer than `IDLE_UPLOAD_S` and none is free.

        Args:
            end: is called in that case, and has to end the upload.
        """
        waiting = self._admission._waiting
        waiting[self] = self._admission._clock(), end
        try:
            yield
        finally:
            waiting.pop(self, None)

    @contextmanager
    def in_progress(self, *, measured: bool = True) -> Iterator[None]:
        """Hold a place for the work of the request, whose upload has been received.

        Args:
            measured: whether it counts towards the rate. A timeline does not: it waits for its reader.

        Raises:
            Overloaded: requests with faster uploads have taken all places.
        """
        admission, load = self._admission, self.load
        self.release()
        if admission.inflight >= admission._limit:
            raise admission._overloaded(f"The queue is full ({admission.inflight} requests in progress).")
        admission.inflight += 1
        if not measured:
            try:
                yield
            finally:
                admission.inflight -= 1
            return
        if not load.measured:
            load.last_s = admission._clock()  # idle time does not count towards the rate
        load.measured += 1
        load.views += self.views
        done = 0
        try:
            yield
            done = self.views
        except VERDICTS:
            done = 1
            raise
        finally:
            admission.inflight -= 1
            load.measured -= 1
            load.views -= self.views
            now = admission._clock()
            load.throughput.add(now - load.last_s, done)
            load.last_s = now
