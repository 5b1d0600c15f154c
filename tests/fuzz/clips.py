"""Mutated clips against real caged workers."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from service.clip.video import DecodeLimits
from service.decode_pool import DecodePool
from service.errors import RequestError
from service.observer import Observer, RestartReason
from tests.fuzz.mutations import mutated
from tests.hostile.corpus import base
from tests.tiny_models import TWO_STREAMS

TIMEOUT_S = 8.0
MEMORY_MB = 1024
SEEDS = (
    ("mp4", "libx264"), ("mov", "libx264"), ("mkv", "libx264"), ("ts", "libx264"), ("flv", "libx264"),
    ("mp4", "libx265"), ("webm", "libvpx"), ("webm", "libvpx-vp9"), ("mkv", "libsvtav1"), ("avi", "mpeg4"),
    ("mpeg", "mpeg1video"), ("ts", "mpeg2video"), ("mkv", "ffv1"),
)  # fmt: skip


@dataclass(frozen=True)
class Find:
    """A clip that broke something, and what."""

    number: int
    what: str
    data: bytes


@dataclass
class Fuzzing:
    """How far it came: clips tried, what they were answered, and what broke."""

    tried: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    finds: list[Find] = field(default_factory=list)


class _Recorder(Observer):
    def __init__(self) -> None:
        self.reasons: list[RestartReason] = []

    def worker_restart(self, reason: RestartReason) -> None:
        if reason is not RestartReason.RECYCLED:
            self.reasons.append(reason)


def clip_number(number: int) -> bytes:
    """The mutated clip of that number, the same every time."""
    generator = random.Random(number)
    seeds = [base(*seed) for seed in SEEDS]
    return mutated(generator, generator.choice(seeds), generator.choice(seeds))


async def fuzz(
    first: int, seconds: float, told: Callable[[Fuzzing], object] = lambda _: None, workers: int = 2
) -> Fuzzing:
    """Decode the clips from number `first` on for some time.

    A worker that dies, is killed by the clock, or raises what it should not is a find; so is a good clip that
    is not decoded after one of them.
    """
    recorder, fuzzing = _Recorder(), Fuzzing()
    pool = DecodePool(workers=workers, timeout_s=TIMEOUT_S, memory_mb=MEMORY_MB, cores=2, observer=recorder)
    await pool.start()
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            numbers = range(first + fuzzing.tried, first + fuzzing.tried + workers)
            await asyncio.gather(*(_try(pool, recorder, number, fuzzing) for number in numbers))
            if fuzzing.tried % 500 < workers:
                told(fuzzing)
                good = await pool.decode(base(), TWO_STREAMS, DecodeLimits())
                assert good.indices, "a good clip after bad ones"
    finally:
        await pool.close()
    return fuzzing


async def _try(pool: DecodePool, recorder: _Recorder, number: int, fuzzing: Fuzzing) -> None:
    data = clip_number(number)
    before = len(recorder.reasons)
    try:
        decoded = await pool.decode(data, TWO_STREAMS, DecodeLimits(), clips=2)
        answer = "decoded" if decoded.video.frames > 0 else "no frame"
    except RequestError as exc:
        answer = exc.code
    fuzzing.tried += 1
    fuzzing.answers[answer] += 1
    broken = recorder.reasons[before:]
    if broken or answer == "no frame":
        fuzzing.finds.append(Find(number, ", ".join(reason.value for reason in broken) or answer, data))
