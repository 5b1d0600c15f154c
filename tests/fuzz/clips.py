"""Fuzzes sandboxed workers with mutated videos, some of them decoded in windows."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from service.clip.video import DecodeLimits
from service.clip.windowing import WindowRule
from service.errors import RequestError
from service.observer import Observer, RestartReason
from service.pipeline.window_stream import windows_of
from service.workers.decode_pool import DecodePool
from tests.fuzz.mutations import mutated
from tests.fuzz.seeds import seeds
from tests.hostile.item import base
from tests.support.tiny_models import TWO_STREAMS

TIMEOUT_S = 8.0
MEMORY_MB = 1024
WINDOWS_EVERY = 8  # every this many videos, since a timeline starts a dedicated worker, which is slow
RULE = WindowRule.of(0.2, 0.1)
GOOD_EVERY = 500


@dataclass(frozen=True)
class Find:
    """A video that caused a failure, and its description."""

    number: int
    what: str
    data: bytes


@dataclass
class Fuzzing:
    """Totals: tried videos, answers, the slowest in seconds, and findings."""

    tried: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    slowest: int | None = None
    finds: list[Find] = field(default_factory=list)


class _Recorder(Observer):
    def __init__(self) -> None:
        self.reasons: list[RestartReason] = []

    def worker_restart(self, reason: RestartReason) -> None:
        if reason is not RestartReason.RECYCLED:
            self.reasons.append(reason)


def clip_number(number: int) -> bytes:
    """The mutated video of a number; deterministic except for random identifiers of muxers."""
    generator = random.Random(number)
    return mutated(generator, generator.choice(seeds()), generator.choice(seeds()))


class ClipFuzzer:
    """Decodes mutated videos in order of their numbers in one pool.

    Findings are workers that die, time out or raise unexpected errors, answers
    without frames, and valid videos (tried occasionally) that are rejected.

    Args:
        pool: the pool; `workers` videos are decoded at a time.
        recorder: receives the pool's restarts.
        first: number of the first video.
        keep: called immediately with each finding.
    """

    def __init__(
        self,
        pool: DecodePool,
        workers: int,
        recorder: _Recorder,
        first: int,
        keep: Callable[[Find], object],
    ) -> None:
        self._pool = pool
        self._workers = workers
        self._recorder = recorder
        self._keep = keep
        self.next = first
        self.fuzzing = Fuzzing()

    async def run(self, seconds: float) -> None:
        """Continue for some time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            numbers = range(self.next, self.next + self._workers)
            self.next = numbers.stop
            await asyncio.gather(*(self._try(number) for number in numbers))
            if self.fuzzing.tried % GOOD_EVERY < len(numbers):
                await self._try_good()
        await self._try_good()

    async def _try_good(self) -> None:
        try:
            await self._clip(base())
        except RequestError as exc:
            self._found(
                Find(self.next - 1, f"a good clip after it is {exc.code}", clip_number(self.next - 1))
            )

    def _found(self, find: Find) -> None:
        self.fuzzing.finds.append(find)
        self._keep(find)

    async def _try(self, number: int) -> None:
        data = clip_number(number)
        before = len(self._recorder.reasons)
        began = time.monotonic()
        try:
            frames = await (self._windows(data) if number % WINDOWS_EVERY == 0 else self._clip(data))
            answer = "decoded" if frames > 0 else "no frame"
        except RequestError as exc:
            answer = exc.code
        fuzzing = self.fuzzing
        if (took_s := time.monotonic() - began) > fuzzing.slowest_s:
            fuzzing.slowest_s, fuzzing.slowest = took_s, number
        fuzzing.tried += 1
        fuzzing.answers[answer] += 1
        broken = self._recorder.reasons[before:]
        if broken or answer == "no frame":
            self._found(Find(number, ", ".join(reason.value for reason in broken) or answer, data))

    async def _clip(self, data: bytes) -> int:
        return (await self._pool.decode(data, TWO_STREAMS, DecodeLimits(), clips=2)).video.frames

    async def _windows(self, data: bytes) -> int:
        async with windows_of(
            self._pool, data, TWO_STREAMS, RULE, DecodeLimits(), cpu_s=4 * TIMEOUT_S
        ) as stream:
            while await stream.take():
                pass
            assert stream.result is not None
            return stream.result.video.frames


@asynccontextmanager
async def clip_fuzzer(
    first: int, workers: int, keep: Callable[[Find], object] = lambda _: None
) -> AsyncIterator[ClipFuzzer]:
    """A fuzzer with a new pool."""
    seeds()  # takes seconds, which do not count
    recorder = _Recorder()
    pool = DecodePool(workers=workers, timeout_s=TIMEOUT_S, memory_mb=MEMORY_MB, cores=2, observer=recorder)
    await pool.start()
    try:
        yield ClipFuzzer(pool, workers, recorder, first, keep)
    finally:
        await pool.close()


async def fuzz(first: int, seconds: float, workers: int = 2) -> Fuzzing:
    """Fuzz for some time, starting with video number `first`."""
    async with clip_fuzzer(first, workers) as fuzzer:
        await fuzzer.run(seconds)
        return fuzzer.fuzzing
