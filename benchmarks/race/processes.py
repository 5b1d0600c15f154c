"""The memory of a process and of all that it started."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROC = Path("/proc")
KIB = 1024
SAMPLE_S = 0.5
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
    return sum(_pss(pid) for pid in tree(root))


@contextmanager
def watched(root: int) -> Iterator[list[int]]:
    """Bytes as `pss_bytes` gives them, every half second while the context lasts."""
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


def _parents() -> Iterator[tuple[int, int]]:
    for folder in PROC.glob("[0-9]*"):
        try:
            # The name, in parentheses, may hold anything; after it come the state and the parent.
            yield int(folder.name), int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except GONE:
            continue


def _pss(pid: int) -> int:
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except GONE:
        return 0
    return sum(KIB * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
