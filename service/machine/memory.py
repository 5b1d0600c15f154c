"""Memory that this process and its children may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

from service.machine.control_groups import OWN, ROOT, ControlGroup, control_groups


def usable_memory_bytes(cgroup_root: Path = ROOT, own_cgroups: Path = OWN) -> int:
    """Memory of the machine, or the smallest limit of a control group."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(min([machine, *map(_limit, control_groups("memory", cgroup_root, own_cgroups))]))


def resident_bytes() -> int:
    """Memory in use by this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _limit(group: ControlGroup) -> float:
    """Limit of a group in bytes; infinity for none."""
    text = group.read("memory.max" if group.version == 2 else "memory.limit_in_bytes")
    return math.inf if text is None or text.strip() == "max" else int(text)
