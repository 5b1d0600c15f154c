"""Long fuzzing runs that store their state in a folder and resume from it.

    FOLDER/state.json    totals so far, and the number of the next video
    FOLDER/corpus/       packets that reached new code in the readers
    FOLDER/finds/        every file that caused a failure, written immediately

Videos and packets take turns, so that they do not disturb each other's time limits. One pool is used for the
whole run, so that memory leaks show in the report of each round.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.fuzz.clips import ClipFuzzer, Find, clip_fuzzer
from tests.hostile.harness import memory_mb

CLIPS_S = 120.0
READERS_S = 60
EXECUTED = re.compile(rb"stat::number_of_executed_units:\s+(\d+)")
COVERED = re.compile(rb"cov: (\d+)")
# File name prefixes of libFuzzer: crash, timeout, out of memory.
READER_FINDS = ("crash-", "timeout-", "oom-", "leak-")


@dataclass
class State:
    """Totals of all runs in a folder; `seed` is that of the first run."""

    seed: int
    next_clip: int
    rounds: int = 0
    seconds: float = 0.0
    clips: int = 0
    packets: int = 0
    coverage: int = 0
    answers: dict[str, int] = field(default_factory=dict)
    slowest_s: float = 0.0
    finds: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, folder: Path, seed: int) -> State:
        """Read the state of the folder, or create the initial one."""
        path = folder / "state.json"
        return cls(**json.loads(path.read_text())) if path.exists() else cls(seed, seed * 10**6)

    def save(self, folder: Path) -> None:
        """Write the state atomically."""
        new = folder / "state.json.new"
        new.write_text(json.dumps(asdict(self), indent=1))
        new.replace(folder / "state.json")


@dataclass
class Memory:
    """Resident memory in MB of the pool and its workers: after the first round, maximum, latest."""

    first: float
    most: float
    last: float

    def add(self, now: float) -> None:
        """Update with the current memory."""
        self.most, self.last = max(self.most, now), now


async def run(
    folder: Path, seconds: float, seed: int, workers: int, told: Callable[[str], object], readers: bool
) -> tuple[State, int]:
    """Fuzz for some time; return the state and the number of findings of this run.

    Args:
        folder: the folder described above; created if necessary.
        seconds: duration, also of an unfinished round.
        seed: seed of a new folder.
        workers: number of workers.
        told: called with a progress line after each round and at the end.
        readers: whether to fuzz the readers too, which needs atheris.
    """
    (folder / "corpus").mkdir(parents=True, exist_ok=True)
    (folder / "finds").mkdir(exist_ok=True)
    state = State.of(folder, seed)
    known = len(state.finds)
    memory: Memory | None = None

    def keep(find: Find) -> None:
        name = f"clip-{find.number}-{find.what.replace(', ', '-').replace(' ', '-')}"
        (folder / "finds" / name).write_bytes(find.data)
        state.finds.append(name)
        told(f"find: {name}")

    async with clip_fuzzer(state.next_clip, workers, keep) as fuzzer:
        deadline = time.monotonic() + seconds
        while (left_s := deadline - time.monotonic()) > 1:
            began = time.monotonic()
            await _clips_round(fuzzer, state, min(left_s, CLIPS_S))
            now = memory_mb(os.getpid())
            memory = memory or Memory(now, now, now)
            memory.add(now)
            left_s = deadline - time.monotonic()
            if readers and left_s > 1:
                await _readers_round(folder, state, int(min(left_s, READERS_S)), told)
            state.rounds += 1
            state.seconds += time.monotonic() - began
            state.save(folder)
            told(_progress(state, memory))
    broke = len(state.finds) - known
    if memory is not None:
        told(f"{_summary(state)}; {broke} of them now")
        told(
            f"{memory.first:.0f} MB after the first round, {memory.most:.0f} at most, {memory.last:.0f} last"
        )
    return state, broke


async def _clips_round(fuzzer: ClipFuzzer, state: State, seconds: float) -> None:
    before = fuzzer.fuzzing.tried
    answers = Counter(fuzzer.fuzzing.answers)
    await fuzzer.run(seconds)
    state.clips += fuzzer.fuzzing.tried - before
    state.answers = dict(Counter(state.answers) + (fuzzer.fuzzing.answers - answers))
    state.slowest_s = max(state.slowest_s, fuzzer.fuzzing.slowest_s)
    state.next_clip = fuzzer.next


async def _readers_round(folder: Path, state: State, seconds: int, told: Callable[[str], object]) -> None:
    """Fuzz the readers in a separate process, which ends at the first finding."""
    fuzzing = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fuzz.readers", str(folder / "corpus")),
        *(f"-max_total_time={seconds}", f"-seed={(state.seed + state.rounds) % 2**31 + 1}"),
        *("-print_final_stats=1", f"-artifact_prefix={folder / 'finds'}/"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, said = await fuzzing.communicate()
    finally:
        if fuzzing.returncode is None:
            fuzzing.kill()
            await fuzzing.wait()
    state.packets += sum(int(count) for count in EXECUTED.findall(said))
    state.coverage = max([state.coverage, *map(int, COVERED.findall(said))])
    saved = {path.name for path in (folder / "finds").iterdir() if path.name.startswith(READER_FINDS)}
    new = sorted(saved - set(state.finds))
    state.finds += new
    for name in new:
        told(f"find: {name}")
    if fuzzing.returncode and not new:
        raise RuntimeError(f"the fuzzer of readers ended with {fuzzing.returncode}: {said[-2000:].decode()}")


def _progress(state: State, memory: Memory) -> str:
    return f"round {state.rounds}: {_summary(state)}; {memory.last:.0f} MB"


def _summary(state: State) -> str:
    answers = ", ".join(f"{count} {answer}" for answer, count in sorted(state.answers.items()))
    return (
        f"{state.clips} clips ({answers}; slowest {state.slowest_s:.1f} s), {state.packets} streams of "
        f"packets ({state.coverage} branches) in {state.seconds / 60:.0f} min, {len(state.finds)} finds"
    )
