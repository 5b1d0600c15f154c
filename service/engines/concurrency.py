"""Two ways to use the CPU cores: one run with all threads, or concurrent runs with one thread each.

A single clip has the lowest latency with all threads. With several clips, concurrent one-thread runs have the
higher throughput: no thread waits for others at the end of every operator, or for a thread whose core is used
by a decode worker. Therefore a package is loaded in both forms, and both are timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import count

from service.engines.providers import EngineConfig
from service.engines.session import Inputs, Session

MIN_ROUNDS = 3
MEASURING_S = 0.3

OpenSession = Callable[[EngineConfig], Session]


@dataclass(frozen=True)
class LatencyProfile:
    """Seconds that a clip takes in both forms.

    Attributes:
        latency_s: Latency of a run with all threads.
        concurrent_latency_s: Latency of a one-thread run while `concurrency` such runs are in progress.
        concurrency: Number of concurrent one-thread runs.
    """

    latency_s: float
    concurrent_latency_s: float
    concurrency: int

    def concurrent_is_faster(self, clips: int) -> bool:
        """Whether `clips` clips finish sooner in concurrent runs than sequentially with all threads.

        Always true for enough clips to keep every concurrent run busy, because a measurement on a busy
        machine can be far off.
        """
        return clips >= self.concurrency or (clips > 1 and self.concurrent_latency_s < clips * self.latency_s)

    @property
    def clips_per_s(self) -> float:
        """Maximum throughput."""
        return max(1 / self.latency_s, self.concurrency / self.concurrent_latency_s)


@dataclass(frozen=True)
class ConcurrentSession:
    """A session for `profile.concurrency` concurrent one-thread runs."""

    session: Session
    profile: LatencyProfile


def open_concurrent(
    whole: Session, clip: Inputs, config: EngineConfig, open_session: OpenSession
) -> ConcurrentSession:
    """Load a package's one-thread form and time both forms.

    Args:
        whole: The session whose runs use all `config.threads` threads, more than one.
        clip: One clip to measure with.
        config: The configuration of `whole`.
        open_session: Loads the package with another configuration.

    Raises:
        PackageError: the graph cannot be loaded.
        ProviderUnavailable: the engine is no longer available.
        InferenceFailed: the graph does not run.
    """
    session = open_session(replace(config, threads=1, concurrency=config.threads))
    with ExitStack() as on_failure:
        on_failure.callback(session.close)
        profile = measure(whole, session, config.threads, clip)
        on_failure.pop_all()
    return ConcurrentSession(session, profile)


def measure(whole: Session, single: Session, concurrency: int, clip: Inputs) -> LatencyProfile:
    """Time both forms alternately and keep the shortest times, since interference only makes a run longer.

    Raises:
        InferenceFailed: the graph does not run.
    """
    latency_s, concurrent_latency_s = [], []
    begin = time.perf_counter()
    with ThreadPoolExecutor(concurrency) as threads:
        for done in count():
            if done >= MIN_ROUNDS and time.perf_counter() - begin > MEASURING_S:
                break
            latency_s.append(_seconds(lambda: [whole.run(clip)]))
            concurrent_latency_s.append(_seconds(lambda: list(threads.map(single.run, [clip] * concurrency))))
    # The first runs allocate memory.
    return LatencyProfile(min(latency_s[1:]), min(concurrent_latency_s[1:]), concurrency)


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
