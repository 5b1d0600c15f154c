"""A service seen from outside while it is soaked: memory, what it holds, its workers, and their killing."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.race.processes import GONE, PROC, Foreign, process_pss_bytes, tree
from service.http.lingering import LONGEST_PAUSE_S
from service.workers.sandbox import MAX_OPEN_FILES

SAMPLE_S = 2.0
FOREIGN_S = 10.0  # long enough that a scheduler's tick here and there does not count
POLL_S = 0.02
WHOLE_LIMIT_S = 30.0
REST_LIMIT_S = 30.0
SETTLE_S = 2.0  # for sockets that the service closes when its callers have, and its processes at its end
LINGERS_S = 2 * LONGEST_PAUSE_S  # for what callers who hang up leave half sent
RESTARTS, KILLED = "blvnet_decode_worker_restarts_total", "killed"


@dataclass(frozen=True)
class Held:
    """What a service holds when it has nothing to do; `descriptors`: of itself and its server of forks."""

    descriptors: int
    processes: int
    temporary_files: int

    @classmethod
    def by(cls, root: int, temporary: Path) -> Held:
        """As it is now."""
        lasting = [root, *_children(root)]
        descriptors = sum(len(list((PROC / str(pid) / "fd").iterdir())) for pid in lasting)
        return cls(descriptors, len(tree(root)), len(list(temporary.iterdir())))

    @classmethod
    async def again(cls, before: Held, url: str, root: int, temporary: Path) -> Held:
        """What it comes down to: `before`, or what is still held when that had time enough.

        It is asked for its metrics meanwhile: the last callers that hung up leave cycles of objects, with the
        memory of a clip, which Python collects when a process has made enough of others.
        """
        deadline = time.monotonic() + LINGERS_S
        while (now := cls.by(root, temporary)) != before and time.monotonic() < deadline:
            metrics(url)
            await asyncio.sleep(POLL_S)
        return now

    def to_json(self) -> dict[str, int]:
        """For the report."""
        return asdict(self)


@dataclass
class Watch:
    """What was seen.

    Attributes:
        root: the service's process.
        times_s: when memory was sampled.
        pss: of all processes, in bytes.
        own_pss: of the service's own process among them.
        kills: workers that were killed.
        recovered_s: for each, how long until all workers were there and in their cages again.
        others_cores: cores that others kept busy, in each `FOREIGN_S`.
    """

    root: int
    times_s: list[float] = field(default_factory=list)
    pss: list[int] = field(default_factory=list)
    own_pss: list[int] = field(default_factory=list)
    kills: int = 0
    recovered_s: list[float] = field(default_factory=list)
    others_cores: list[float] = field(default_factory=list)

    async def sample_memory(self) -> None:
        """Until cancelled."""
        while True:
            sizes = await asyncio.to_thread(_sizes, self.root)
            self.times_s.append(time.monotonic())
            self.own_pss.append(sizes[0])
            self.pss.append(sum(sizes))
            await asyncio.sleep(SAMPLE_S)

    async def sample_others(self) -> None:
        """Until cancelled."""
        while True:
            others = Foreign(self.root)
            await asyncio.sleep(FOREIGN_S)
            self.others_cores.append(others.cores())

    async def kill_workers(self, size: int, every_s: float, seed: int = 1) -> None:
        """Until cancelled: kill one of `size` workers, if possible in mid-clip, and wait for the next.

        In a thread: the event loop is that of the callers, who can keep it from looking for a while.
        """
        draw = random.Random(seed)
        while True:
            await asyncio.sleep(every_s)
            self.recovered_s.append(await asyncio.to_thread(self._kill_one, size, draw))

    def _kill_one(self, size: int, draw: random.Random) -> float:
        """Seconds from its end until there are `size` again, at most `WHOLE_LIMIT_S`.

        A worker that has served its time is replaced before it has quite gone. Until it has there is one too
        many, which must not be taken for what there has to be again, nor be the one that is killed.
        """
        if not _until(lambda: len(workers(self.root)) == size == len(_caged(self.root))):
            return WHOLE_LIMIT_S
        before = workers(self.root)
        victim = draw.choice([pid for pid in before if is_running(pid)] or before)
        began = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        self.kills += 1
        _until(lambda: len(_caged(self.root) - {victim}) >= size)
        return time.monotonic() - began


def _until(condition: Callable[[], bool]) -> bool:
    """Whether it came true in time."""
    deadline = time.monotonic() + WHOLE_LIMIT_S
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return found


def workers(root: int) -> list[int]:
    """The decode workers: what the service's only child has forked, and is not dead."""
    return [pid for forker in _children(root) for pid in _children(forker) if _is_there(pid)]


def _caged(root: int) -> set[int]:
    """Those workers that have given up what they do not need, and so are about to take clips."""
    return {pid for pid in workers(root) if _most_open_files(pid) == MAX_OPEN_FILES}


def _most_open_files(pid: int) -> int | None:
    """Its limit; from a page that everybody may read, as workers may be somebody else's."""
    try:
        lines = (PROC / str(pid) / "limits").read_text().splitlines()
    except GONE:
        return None
    return next((int(line.split()[3]) for line in lines if line.startswith("Max open files")), None)


def is_running(pid: int) -> bool:
    """Whether it computes at this moment."""
    return _state(pid) == "R"


async def at_rest(url: str, root: int) -> None:
    """Wait until the service does nothing.

    Raises:
        TimeoutError: it never does.
    """
    count = len(workers(root))
    async with asyncio.timeout(REST_LIMIT_S):
        while True:
            found = metrics(url)
            if found["blvnet_inflight_requests"] == 1 and found["blvnet_decode_workers"] == count:
                break  # the one is this very question
            await asyncio.sleep(POLL_S)
    await asyncio.sleep(SETTLE_S)


def metrics(url: str) -> dict[str, Any]:
    """Samples without labels by name; of restarts a dict by reason."""
    text = httpx.get(f"{url}/metrics", timeout=None, verify=False).text
    found: dict[str, Any] = {RESTARTS: {}}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == RESTARTS:
                found[RESTARTS][sample.labels["reason"]] = sample.value
            elif not sample.labels:
                found[sample.name] = sample.value
    return found


def left_of(pids: list[int]) -> list[int]:
    """Those processes that are still there, a moment after their service: the last ones go by themselves."""
    deadline = time.monotonic() + SETTLE_S
    while any(_is_there(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return [pid for pid in pids if _is_there(pid)]


def _sizes(root: int) -> list[int]:
    return [process_pss_bytes(pid) for pid in tree(root)]


def _children(pid: int) -> list[int]:
    try:
        tasks = list((PROC / str(pid) / "task").iterdir())  # a child is its thread's
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except GONE:
        return []


def _is_there(pid: int) -> bool:
    return _state(pid) not in ("Z", "")


def _state(pid: int) -> str:
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except GONE:
        return ""
