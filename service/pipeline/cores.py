"""How many processor cores this container really has.

`os.cpu_count()` answers for the machine. A container is held to fewer by its affinity mask
(`--cpuset-cpus`) and by a quota of its control group (`--cpus`, a Kubernetes limit); threads beyond those
only wait for each other.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

CGROUP_ROOT = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


def usable_cores(cgroup_root: Path = CGROUP_ROOT, own_cgroups: Path = OWN_CGROUPS) -> int:
    """Cores that this process may use, at least 1; a quota of 1.5 cores counts as 2."""
    cores = len(os.sched_getaffinity(0))
    quota = min(_quotas(cgroup_root, own_cgroups), default=math.inf)
    return cores if quota >= cores else max(1, math.ceil(quota))


def _quotas(cgroup_root: Path, own_cgroups: Path) -> Iterator[float]:
    """Quotas in cores, of the process's groups and of all groups above them: the tightest one holds."""
    for controllers, group in _groups(_text(own_cgroups) or ""):
        if not controllers:
            folders, read = [cgroup_root], _quota_v2
        elif "cpu" in controllers:
            folders, read = [cgroup_root / ",".join(controllers), cgroup_root / "cpu"], _quota_v1
        else:
            continue
        for folder in folders:
            for level in _upwards(group):
                if (quota := read(folder / level)) is not None:
                    yield quota


def _groups(text: str) -> Iterator[tuple[list[str], PurePosixPath]]:
    """Lines `ID:CONTROLLERS:PATH` of /proc/self/cgroup; version 2 names no controllers."""
    for line in text.splitlines():
        _, controllers, group = line.split(":", 2)
        yield [name for name in controllers.split(",") if name], PurePosixPath(group)


def _upwards(group: PurePosixPath) -> Iterator[str]:
    """The group and those above it, relative to the hierarchy's root.

    Inside a container the path may name a group of the host that is not mounted here; the root, which then is
    the container's own group, is always among them.
    """
    for level in (group, *group.parents):
        yield str(level).lstrip("/")


def _quota_v2(folder: Path) -> float | None:
    text = _text(folder / "cpu.max")
    if text is None:
        return None
    quota, period = text.split()
    return None if quota == "max" else int(quota) / int(period)


def _quota_v1(folder: Path) -> float | None:
    quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
    if quota is None or period is None or int(quota) <= 0:
        return None
    return int(quota) / int(period)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return None
