"""What /proc tells of processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def descendants(pid: int) -> dict[int, str]:
    """A process and all below it: process id to the time of its start."""
    stats = {int(path.name): stat(int(path.name)) for path in Path("/proc").iterdir() if path.name.isdigit()}
    found: dict[int, str] = {}
    waiting = [pid]
    while waiting:
        current = waiting.pop()
        if fields := stats.get(current):
            found[current] = fields[19]
            waiting += [child for child, other in stats.items() if other and int(other[1]) == current]
    return found


def alive(family: dict[int, str]) -> list[int]:
    """Those of a family that have not ended."""
    return [
        pid for pid, started in family.items() if (now := stat(pid)) and now[19] == started and now[0] != "Z"
    ]


def stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; none if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def command(pid: int) -> str:
    """Its command line; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def links_of(pid: int) -> Iterator[str]:
    """Where the descriptors of a process lead."""
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            yield str(descriptor.readlink())
