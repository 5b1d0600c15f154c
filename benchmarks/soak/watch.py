"""Observes a service from outside during a soak: memory, resources and workers; kills some workers."""

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
import psutil
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.common.processes import UnrelatedLoad, process_pss_bytes, tree
from service.http.middleware.lingering_close import PAUSE_TIMEOUT_S
from service.workers.sandbox import MAX_OPEN_FILES

SAMPLE_S = 2.0
UNRELATED_S = 10.0  # long enough to average out single scheduler ticks
POLL_S = 0.02
RECOVERY_LIMIT_S = 30.0
REST_LIMIT_S = 30.0
SETTLE_S = 2.0  # time for sockets to close, and for processes to end with the service
RELEASE_LIMIT_S = 2 * PAUSE_TIMEOUT_S  # time to release uploads that clients abandoned
RESTARTS, KILLED = "blvnet_decode_worker_restarts_total", "killed"


@dataclass(frozen=True)
class Held:
    """Resources of an idle service; `descriptors` are those of its main process and its fork server."""

    descriptors: int
    processes: int
    temporary_files: int

    @classmethod
    def by(cls, root: int, temporary: Path) -> Held:
        """Count the current resources."""
        lasting = [root, *_children(root)]
        descriptors = sum(psutil.Process(pid).num_fds() for pid in lasting)
        return cls(descriptors, len(tree(root)), len(list(temporary.iterdir())))

    @classmethod
    async def again(cls, before: Held, url: str, root: int, temporary: Path) -> Held:
        """Wait until the resources equal `before`, or until the time limit; return the last count.

        Requests for metrics in the meantime trigger garbage collections, which free the reference cycles that
        the last disconnected clients left behind.
        """
        deadline = time.monotonic() + RELEASE_LIMIT_S
        while (now := cls.by(root, temporary)) != before and time.monotonic() < deadline:
            metrics(url)
            await asyncio.sleep(POLL_S)
        return now

    def to_json(self) -> dict[str, int]:
        """Values for the report."""
        return asdict(self)


@dataclass
class Watch:
    """Observations.

    Attributes:
        root: process id of the service.
        times_s: times of the memory samples.
        pss: memory of all processes, in bytes.
        own_pss: memory of the service's main process, in bytes.
        kills: number of killed workers.
        recovered_s: for each kill, the time until all workers were sandboxed and running again.
        others_cores: cores that unrelated processes kept busy, for each `UNRELATED_S`.
    """

    root: int
    times_s: list[float] = field(default_factory=list)
    pss: list[int] = field(default_factory=list)
    own_pss: list[int] = field(default_factory=list)
    kills: int = 0
    recovered_s: list[float] = field(default_factory=list)
    others_cores: list[float] = field(default_factory=list)

    async def sample_memory(self) -> None:
        """Sample memory until cancelled."""
        while True:
            sizes = await asyncio.to_thread(_sizes, self.root)
            self.times_s.append(time.monotonic())
            self.own_pss.append(sizes[0])
            self.pss.append(sum(sizes))
            await asyncio.sleep(SAMPLE_S)

    async def sample_others(self) -> None:
        """Sample the load of unrelated processes until cancelled."""
        while True:
            others = UnrelatedLoad(self.root)
            await asyncio.sleep(UNRELATED_S)
            self.others_cores.append(others.cores())

    async def kill_workers(self, size: int, every_s: float, seed: int = 1) -> None:
        """Repeatedly kill one of `size` workers, preferably while it decodes, until cancelled.

        This runs in a thread because the event loop is busy with the callers.
        """
        draw = random.Random(seed)
        while True:
            await asyncio.sleep(every_s)
            self.recovered_s.append(await asyncio.to_thread(self._kill_one, size, draw))

    def _kill_one(self, size: int, draw: random.Random) -> float:
        """Kill a worker; return the seconds until `size` workers run again, at most `RECOVERY_LIMIT_S`.

        A recycled worker is replaced before it has ended. The surplus worker must neither be counted nor
        killed, so this method first waits until exactly `size` workers exist.
        """
        if not _until(lambda: len(workers(self.root)) == size == len(_sandboxed(self.root))):
            return RECOVERY_LIMIT_S
        before = workers(self.root)
        victim = draw.choice([pid for pid in before if is_running(pid)] or before)
        began = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        self.kills += 1
        _until(lambda: len(_sandboxed(self.root) - {victim}) >= size)
        return time.monotonic() - began


def _until(condition: Callable[[], bool]) -> bool:
    """Wait for a condition; return whether it became true in time."""
    deadline = time.monotonic() + RECOVERY_LIMIT_S
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return found


def workers(root: int) -> list[int]:
    """Process ids of the living decode workers, which are children of the service's fork server."""
    return [pid for forker in _children(root) for pid in _children(forker) if _is_alive(pid)]


def _sandboxed(root: int) -> set[int]:
    """Workers that have applied their resource limits and are ready for work."""
    return {pid for pid in workers(root) if _most_open_files(pid) == MAX_OPEN_FILES}


def _most_open_files(pid: int) -> int | None:
    """The soft limit on open files. `/proc/PID/limits` is readable for all users, unlike prlimit."""
    try:
        lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return next((int(line.split()[3]) for line in lines if line.startswith("Max open files")), None)


def is_running(pid: int) -> bool:
    """Whether the process is using a core at this moment."""
    return _status(pid) == psutil.STATUS_RUNNING


async def at_rest(url: str, root: int) -> None:
    """Wait until the service is idle.

    Raises:
        TimeoutError: it did not become idle.
    """
    count = len(workers(root))
    async with asyncio.timeout(REST_LIMIT_S):
        while True:
            found = metrics(url)
            if found["blvnet_inflight_requests"] == 1 and found["blvnet_decode_workers"] == count:
                break  # the one request in flight is this scrape
            await asyncio.sleep(POLL_S)
    await asyncio.sleep(SETTLE_S)


def metrics(url: str) -> dict[str, Any]:
    """Values of metrics without labels by name, and of worker restarts by reason."""
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
    """Processes that still exist some time after their service has ended."""
    deadline = time.monotonic() + SETTLE_S
    while any(_is_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return [pid for pid in pids if _is_alive(pid)]


def _sizes(root: int) -> list[int]:
    return [process_pss_bytes(pid) for pid in tree(root)]


def _children(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.NoSuchProcess:
        return []


def _is_alive(pid: int) -> bool:
    return _status(pid) not in (psutil.STATUS_ZOMBIE, None)


def _status(pid: int) -> str | None:
    try:
        return str(psutil.Process(pid).status())
    except psutil.NoSuchProcess:
        return None
