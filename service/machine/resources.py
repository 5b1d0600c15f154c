"""CPU cores and memory that this process may use.

`os.cpu_count()` counts all cores of the machine. The affinity mask (`--cpuset-cpus`) and the quotas of
control groups (`--cpus`, a Kubernetes limit, systemd's `CPUQuota`) may allow fewer, and additional threads
only wait for each other. joblib's loky reads the same limits, but not those of nested groups.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

from service.machine.control_groups import OWN, ROOT, ControlGroup, control_groups


def usable_cores(cgroup_root: Path = ROOT, own_cgroups: Path = OWN) -> int:
    """Number of usable cores, at least 1. A quota of 1.5 cores counts as 2."""
    cores = len(os.sched_getaffinity(0))
    quota = min(map(_quota, control_groups("cpu", cgroup_root, own_cgroups)), default=math.inf)
    return cores if quota >= cores else max(1, math.ceil(quota))


def usable_memory_bytes(cgroup_root: Path = ROOT, own_cgroups: Path = OWN) -> int:
    """Memory of the machine, or the smallest limit of a control group."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(min([machine, *map(_memory_limit, control_groups("memory", cgroup_root, own_cgroups))]))


def resident_bytes() -> int:
    """Memory in use by this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _quota(group: ControlGroup) -> float:
    """Quota of a group in cores; infinity for none."""
    if group.version == 2:
        quota, period = (group.read("cpu.max") or "max 1").split()
        return math.inf if quota == "max" else int(quota) / int(period)
    v1_quota, v1_period = group.read("cpu.cfs_quota_us"), group.read("cpu.cfs_period_us")
    if v1_quota is None or v1_period is None or int(v1_quota) <= 0:
        return math.inf
    return int(v1_quota) / int(v1_period)


def _memory_limit(group: ControlGroup) -> float:
    """Limit of a group in bytes; infinity for none."""
    text = group.read("memory.max" if group.version == 2 else "memory.limit_in_bytes")
    return math.inf if text is None or text.strip() == "max" else int(text)
