"""Memory and CPU time of a process tree, and CPU time used by unrelated processes."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from service.machine.resources import usable_cores

# Reading the memory of all processes takes about 10 ms of a core, which the measured load would miss.
SAMPLE_INTERVAL_S = 2.0


def tree(root: int) -> list[int]:
    """Process ids of `root` and all its descendants."""
    try:
        return [root, *(child.pid for child in psutil.Process(root).children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def process_pss_bytes(pid: int) -> int:
    """Proportional set size of one process; 0 if it has ended."""
    with suppress(psutil.NoSuchProcess):
        return int(psutil.Process(pid).memory_full_info().pss)
    return 0


def pss_bytes(root: int) -> int:
    """Proportional set size of a process tree, which counts shared pages once.

    Raises:
        psutil.AccessDenied: a process belongs to another user.
    """
    return sum(process_pss_bytes(pid) for pid in tree(root))


def cpu_s(root: int) -> float:
    """CPU seconds that a process tree has used so far, including children that have ended."""
    total = 0.0
    for pid in tree(root):
        with suppress(psutil.NoSuchProcess):
            times = psutil.Process(pid).cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


@contextmanager
def sample_pss(root: int) -> Iterator[list[int]]:
    """Append `pss_bytes(root)` to the yielded list every two seconds during the block."""
    samples: list[int] = []
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(SAMPLE_INTERVAL_S):
            samples.append(pss_bytes(root))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()


class UnrelatedLoad:
    """CPU time that is used by neither the trees of `roots` nor this process and its children."""

    def __init__(self, *roots: int) -> None:
        self._roots = roots
        self._start = self._times()

    def cores(self) -> float:
        """Average number of cores kept busy by others, or by the hypervisor, since the object was created.

        0 if this container may use only some of the machine's cores, because the others cannot be attributed.
        """
        if usable_cores() != os.cpu_count():
            return 0.0
        wall_s, machine_s, own_s = (now - then for now, then in zip(self._times(), self._start, strict=True))
        return max(0.0, machine_s - own_s) / wall_s

    def _times(self) -> tuple[float, float, float]:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        own_s = time.process_time() + children.ru_utime + children.ru_stime + sum(map(cpu_s, self._roots))
        machine = psutil.cpu_times()
        idle_s = machine.idle + machine.iowait
        # `user` includes the time of guests already.
        return time.monotonic(), sum(machine) - idle_s - machine.guest - machine.guest_nice, own_s
