"""Discrete-event simulation of replicas behind a load balancer, and of an autoscaler.

    arrival ──> a replica's admission control ──> event loop ──> decode worker ──> inference thread ──> answer
                          └──> refused

Admission control is the service's own code, which runs on the clock of the simulation. Every stage needs a
core of the machine in addition to its slot, so replicas on one machine compete for cores.
"""

from __future__ import annotations

import math
import random
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import simpy

from benchmarks.serving_race.figures import percentile
from service.errors import Overloaded
from service.pipeline.limits.admission import Admission

MODEL = "model"
# The kernel schedules the event loop quickly, because it mostly waits; the other stages use whole time
# slices.
SOON, LATER = 0, 1
# The rule of Kubernetes' HorizontalPodAutoscaler: its period, tolerance and delay before scaling down. In one
# period it adds at most as many replicas as exist, or four.
SYNC_S = 15.0
ADDED_AT_LEAST = 4
TOLERANCE = 0.1
SCALE_DOWN_S = 300.0

Process = Generator[simpy.Event, Any, None]


@dataclass(frozen=True)
class StageCosts:
    """Seconds that a clip takes of one core in each stage; `spread` is the relative standard deviation."""

    http_s: float
    decode_s: float
    inference_s: float
    spread: float = 0.0

    @property
    def total_s(self) -> float:
        """Processor time of a clip."""
        return self.http_s + self.decode_s + self.inference_s


@dataclass(frozen=True)
class ReplicaSettings:
    """The settings of a replica that matter here, as in `service.pipeline.core_config`."""

    decode_workers: int
    inference_threads: int
    queue_limit: int = 64
    latency_target_s: float = 1.0
    burst: int = 8
    request_timeout_s: float = 30.0


@dataclass(frozen=True)
class Autoscaler:
    """Keeps the mean queue depth of the replicas near `target`; a new replica serves after `start_s`."""

    target: float
    start_s: float
    least: int = 1
    most: int = 1000


@dataclass
class LoadResult:
    """The outcome of the requests.

    Attributes:
        seconds: simulated time.
        latencies_s: time from arrival to answer of every answered request.
        refused: number of rejected requests.
        replicas: time of each change, and the number of serving replicas from then on.
    """

    seconds: float
    latencies_s: list[float] = field(default_factory=list)
    refused: int = 0
    replicas: list[tuple[float, int]] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Answers per second."""
        return len(self.latencies_s) / self.seconds

    @property
    def refused_share(self) -> float:
        """Share of the requests that were rejected."""
        return self.refused / max(1, self.refused + len(self.latencies_s))

    def latency_s(self, share: float) -> float:
        """A quantile of the latency; NaN if nothing was answered."""
        found = percentile(self.latencies_s, share)
        return math.nan if found is None else found


class _Replica:
    """The queues of one replica."""

    def __init__(self, env: simpy.Environment, settings: ReplicaSettings) -> None:
        self.admission = Admission(
            settings.queue_limit, settings.latency_target_s, settings.burst, clock=lambda: env.now
        )
        self.loop = simpy.Resource(env, 1)
        self.workers = simpy.Resource(env, settings.decode_workers)
        self.threads = simpy.Resource(env, settings.inference_threads)

    @property
    def queue_depth(self) -> int:
        """Requests that wait for a decode worker or an inference thread, as `blvnet_queue_depth`."""
        return len(self.workers.queue) + len(self.threads.queue)


class Simulation:
    """Replicas that answer requests.

    Args:
        times: cost of a clip.
        settings: settings of each replica.
        replicas: number of replicas at the start.
        cores: cores of each machine.
        shared: whether all replicas run on one machine, or each on its own.
        autoscaler: changes the number of replicas; None keeps it.
        seed: seed of the service times.
    """

    def __init__(
        self,
        times: StageCosts,
        settings: ReplicaSettings,
        *,
        replicas: int,
        cores: int,
        shared: bool = False,
        autoscaler: Autoscaler | None = None,
        seed: int = 1,
    ) -> None:
        self._times = times
        self._settings = settings
        self._cores = cores
        self._autoscaler = autoscaler
        self._draw = random.Random(seed)
        self._env = simpy.Environment()
        self._machine = simpy.PriorityResource(self._env, cores) if shared else None
        self._replicas = [self._new_replica() for _ in range(replicas)]
        self._next = 0

    def run(self, arrivals: Iterable[float], seconds: float) -> LoadResult:
        """Send requests at these times to the replicas in turn, and wait until all are answered."""
        outcome = LoadResult(seconds, replicas=[(0.0, len(self._replicas))])
        self._env.process(self._arrive(arrivals, outcome))
        if self._autoscaler is not None:
            self._env.process(self._autoscale(self._autoscaler, seconds, outcome))
        self._env.run()
        return outcome

    def _new_replica(self) -> tuple[_Replica, simpy.PriorityResource]:
        return _Replica(self._env, self._settings), self._machine or simpy.PriorityResource(
            self._env, self._cores
        )

    def _arrive(self, arrivals: Iterable[float], outcome: LoadResult) -> Process:
        for arrival in arrivals:
            yield self._env.timeout(arrival - self._env.now)
            replica, machine = self._replicas[self._next % len(self._replicas)]
            self._next += 1
            self._env.process(self._request(replica, machine, outcome))

    def _request(self, replica: _Replica, machine: simpy.PriorityResource, outcome: LoadResult) -> Process:
        began = self._env.now
        times = self._times
        try:
            ticket = replica.admission.admit(MODEL, timeout_s=self._settings.request_timeout_s)
            with ticket.in_progress():
                for place, mean_s, priority in (
                    (replica.loop, times.http_s, SOON),
                    (replica.workers, times.decode_s, LATER),
                    (replica.threads, times.inference_s, LATER),
                ):
                    with place.request() as own:
                        yield own
                        with machine.request(priority) as core:
                            yield core
                            yield self._env.timeout(self._duration_s(mean_s))
        except Overloaded:
            outcome.refused += 1
        else:
            outcome.latencies_s.append(self._env.now - began)

    def _duration_s(self, mean_s: float) -> float:
        """A log-normal time with the given mean."""
        if not self._times.spread:
            return mean_s
        sigma = math.sqrt(math.log1p(self._times.spread**2))
        return mean_s * self._draw.lognormvariate(-(sigma**2) / 2, sigma)

    def _autoscale(self, rule: Autoscaler, seconds: float, outcome: LoadResult) -> Process:
        wanted_then: list[tuple[float, int]] = []  # recommendations of the stabilisation window
        starting = 0
        while self._env.now < seconds:
            yield self._env.timeout(SYNC_S)
            present = len(self._replicas)
            depth = sum(replica.queue_depth for replica, _ in self._replicas) / present
            ratio = depth / rule.target
            wanted = present if abs(ratio - 1) <= TOLERANCE else math.ceil(present * ratio)
            wanted = min(max(wanted, rule.least), rule.most, present + max(present, ADDED_AT_LEAST))
            wanted_then = [entry for entry in wanted_then if entry[0] > self._env.now - SCALE_DOWN_S] + [
                (self._env.now, wanted)
            ]
            if wanted > present + starting:
                for _ in range(wanted - present - starting):
                    starting += 1
                    self._env.process(self._start(rule.start_s, outcome))
            elif (highest := max(count for _, count in wanted_then)) < present:
                del self._replicas[highest:]  # they finish the requests that they have
                outcome.replicas.append((self._env.now, len(self._replicas)))
            starting = max(0, starting - (len(self._replicas) - present))

    def _start(self, start_s: float, outcome: LoadResult) -> Process:
        yield self._env.timeout(start_s)
        self._replicas.append(self._new_replica())
        outcome.replicas.append((self._env.now, len(self._replicas)))


def poisson(rates: Sequence[float], step_s: float, seed: int = 1) -> Iterator[float]:
    """Arrival times of a Poisson process whose rate changes every `step_s` seconds."""
    draw = random.Random(seed)
    for number, rate in enumerate(rates):
        now, end = number * step_s, (number + 1) * step_s
        while rate > 0 and (now := now + draw.expovariate(rate)) < end:
            yield now
