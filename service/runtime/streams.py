"""Two ways to use the cores: a run with all threads, or runs of one thread each, as many as there are cores.

A clip that is alone is answered soonest with all threads. Where several wait, one-thread runs side by side
carry more: no thread waits for another at the end of every operator, nor for one that a decode worker keeps
from its core. So a package is loaded in both forms, and what each takes is measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import count

from service.runtime.config import RuntimeConfig
from service.runtime.session import Inputs, Session

LEAST_ROUNDS = 3
MEASURING_S = 0.3

OpenSession = Callable[[RuntimeConfig], Session]


@dataclass(frozen=True)
class Pace:
    """Seconds that one clip takes.

    Attributes:
        lone_s: with all threads.
        together_s: with one thread, when `streams` of them run side by side.
        streams: one-thread runs side by side.
    """

    lone_s: float
    together_s: float
    streams: int

    def streams_pay(self, clips: int) -> bool:
        """Whether so many clips are done sooner on streams than one after the other with all threads.

        Enough of them to keep every stream busy always are. That does not hang on what was measured, which on
        a busy machine can be anything.
        """
        return clips >= self.streams or (clips > 1 and self.together_s < clips * self.lone_s)

    @property
    def clips_per_s(self) -> float:
        """The most that it carries."""
        return max(1 / self.lone_s, self.streams / self.together_s)


@dataclass(frozen=True)
class Streams:
    """One-thread runs side by side: a session that is prepared for `pace.streams` of them."""

    session: Session
    pace: Pace


def open_streams(whole: Session, clip: Inputs, config: RuntimeConfig, open_session: OpenSession) -> Streams:
    """Load a package's second form beside its first.

    Args:
        whole: the first form, whose runs have `config.threads` threads, more than one.
        clip: one clip to measure with.
        config: of the first form.
        open_session: loads the package in another form.

    Raises:
        PackageError: the graph cannot be loaded.
        ProviderUnavailable: the engine cannot be had any more.
        InferenceFailed: the graph does not run.
    """
    session = open_session(replace(config, threads=1, streams=config.threads))
    with ExitStack() as on_failure:
        on_failure.callback(session.close)
        pace = measure(whole, session, config.threads, clip)
        on_failure.pop_all()
    return Streams(session, pace)


def measure(whole: Session, streams: Session, number: int, clip: Inputs) -> Pace:
    """Time both forms, in turns. The shortest times count: what disturbs a run only makes it longer.

    Raises:
        InferenceFailed: the graph does not run.
    """
    lone_s, together_s = [], []
    begin = time.perf_counter()
    with ThreadPoolExecutor(number) as threads:
        for done in count():
            if done >= LEAST_ROUNDS and time.perf_counter() - begin > MEASURING_S:
                break
            lone_s.append(_seconds(lambda: [whole.run(clip)]))
            together_s.append(_seconds(lambda: list(threads.map(streams.run, [clip] * number))))
    return Pace(min(lone_s[1:]), min(together_s[1:]), number)  # the first runs allocate


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
