"""Reads process information from /proc."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def descendants(pid: int) -> dict[int, str]:
    """Start times of a process and its descendants, by process id."""
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
    """Processes of a family that still exist."""
    return [
        pid for pid, started in family.items() if (now := stat(pid)) and now[19] == started and now[0] != "Z"
    ]


def stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat starting with the state; empty if the process does not exist."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def command(pid: int) -> str:
    """The command line of a process; empty if it does not exist."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def links_of(pid: int) -> Iterator[str]:
    """Targets of the open descriptors of a process."""
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # closed in the meantime
            yield str(descriptor.readlink())
