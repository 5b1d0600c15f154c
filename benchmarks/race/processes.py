"""The memory and processor time of a process and of all that it started, and what others took meanwhile."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.pipeline.cores import usable_cores

PROC = Path("/proc")
KIB = 1024
# Reading it takes some 10 ms of a core, which the load would have.
SAMPLE_S = 2.0
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
# Of /proc/stat: user, nice, system, interrupts of both kinds, and what a hypervisor gave to others.
BUSY = (1, 2, 3, 6, 7, 8)
# Of /proc/PID/stat after the name: user and system time, its own and of the children that it waited for.
SPENT = slice(11, 15)
GONE = (FileNotFoundError, ProcessLookupError)


def tree(root: int) -> list[int]:
    """The process `root` and all below it that are there now."""
    parents = dict(_parents())
    found = [root]
    for pid in found:  # grows as it is walked
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def pss_bytes(root: int) -> int:
    """Proportional set size of the process and all below it: pages that several share are counted once.

    Raises:
        PermissionError: a process belongs to somebody else.
    """
    return sum(process_pss_bytes(pid) for pid in tree(root))


def cpu_s(root: int) -> float:
    """Seconds of the processor that the process and all below it have taken so far."""
    return TICK_S * sum(sum(map(int, _stat(pid)[SPENT])) for pid in tree(root))


@contextmanager
def watched(root: int) -> Iterator[list[int]]:
    """Bytes as `pss_bytes` gives them, every two seconds while the context lasts."""
    samples: list[int] = []
    enough = threading.Event()

    def watch() -> None:
        while not enough.wait(SAMPLE_S):
            samples.append(pss_bytes(root))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield samples
    finally:
        enough.set()
        thread.join()


class Foreign:
    """What the processor does for others than the trees of `roots`, this process and its children."""

    def __init__(self, *roots: int) -> None:
        self._roots = roots
        self._began = self._times()

    def cores(self) -> float:
        """Cores that others, or a hypervisor, kept busy on average since then; near 0 on a quiet machine.

        Always 0 where this container has only a part of the machine's cores: the others may be busy.
        """
        if usable_cores() != os.cpu_count():
            return 0.0
        wall_s, machine_s, own_s = (now - then for now, then in zip(self._times(), self._began, strict=True))
        return max(0.0, machine_s - own_s) / wall_s

    def _times(self) -> tuple[float, float, float]:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        own_s = time.process_time() + children.ru_utime + children.ru_stime + sum(map(cpu_s, self._roots))
        return time.monotonic(), _machine_busy_s(), own_s


def _machine_busy_s() -> float:
    fields = (PROC / "stat").read_text().split("\n", 1)[0].split()
    return TICK_S * sum(int(fields[number]) for number in BUSY)


def _stat(pid: int) -> list[str]:
    """The fields after the name, which may hold anything, in parentheses; none if the process is gone."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except GONE:
        return []


def _parents() -> Iterator[tuple[int, int]]:
    for folder in PROC.glob("[0-9]*"):
        if fields := _stat(int(folder.name)):
            yield int(folder.name), int(fields[1])


def process_pss_bytes(pid: int) -> int:
    """Proportional set size of one process; 0 when it has gone."""
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except GONE:
        return 0
    return sum(KIB * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
