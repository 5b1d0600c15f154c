"""Number of CPU cores that this process may use.

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


def _quota(group: ControlGroup) -> float:
    """Quota of a group in cores; infinity for none."""
    if group.version == 2:
        quota, period = (group.read("cpu.max") or "max 1").split()
        return math.inf if quota == "max" else int(quota) / int(period)
    v1_quota, v1_period = group.read("cpu.cfs_quota_us"), group.read("cpu.cfs_period_us")
    if v1_quota is None or v1_period is None or int(v1_quota) <= 0:
        return math.inf
    return int(v1_quota) / int(v1_period)
