"""The control groups of this process, whose limits containers set."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path, PurePosixPath
from typing import NamedTuple

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


class ControlGroup(NamedTuple):
    """Folder of a control group, which may not exist, and the version of its interface, 1 or 2."""

    version: int
    folder: Path

    def read(self, name: str) -> str | None:
        """The content of a file of the group; None if it does not exist."""
        try:
            return (self.folder / name).read_text(encoding="ascii")
        except OSError:
            return None


def control_groups(controller: str, root: Path = ROOT, own: Path = OWN) -> Iterator[ControlGroup]:
    """The groups of this process and their parents, which limit it too, for one controller."""
    try:
        lines = own.read_text(encoding="ascii").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            version, folders = 2, [root]
        elif controller in controllers.split(","):
            version, folders = 1, [root / controllers, root / controller]
        else:
            continue
        # In a container the path may be a path of the host, which is not mounted. The root, which is one of
        # the parents, is then the container's own group.
        group = PurePosixPath(path)
        for folder, level in product(folders, (group, *group.parents)):
            yield ControlGroup(version, folder / str(level).lstrip("/"))
