"""The packages in the folders of models."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from service.packages.folders import Package, scan_with_taught
from service.pipeline.models.registry import in_daemon_thread

logger = logging.getLogger(__name__)


class PackageListing:
    """The packages that the last scan has found, loaded or not.

    Args:
        root: folder of packages.
        taught: an additional folder of packages, which may be missing or empty. A model in `root` hides one
            with the same name in it.

    Attributes:
        packages: The packages by name, the highest version first.
        unreadable: The folders that cannot be read, with the reasons.
    """

    def __init__(self, root: Path, taught: Path | None = None) -> None:
        self.root = root
        self._taught = taught
        self.packages: Mapping[str, Sequence[Package]] = {}
        self.unreadable: Mapping[str, str] = {}

    async def scan(self) -> None:
        """List the folders.

        Raises:
            PackageError: there is no package at all.
        """
        scan = await in_daemon_thread(partial(scan_with_taught, self.root, self._taught))
        for name, reason in scan.unreadable.items():
            if self.unreadable.get(name) != reason:  # log once, not at every scan
                logger.error("model %s is refused: %s", name, reason)
        self.unreadable = scan.unreadable
        packages: dict[str, list[Package]] = {}
        for package in scan.packages:
            packages.setdefault(package.name, []).append(package)
        self.packages = packages

    def versions(self) -> set[tuple[str, int]]:
        """Return name and version of every package."""
        return {(name, package.version) for name, packages in self.packages.items() for package in packages}

    def is_provided(self, name: str) -> bool:
        """Return whether a model with this name is in the folder of packages, so it is not a taught one."""
        return any(package.folder.parent.parent == self.root for package in self.packages.get(name, ()))

    def taught_names(self) -> set[str]:
        """Return the names of the models that have packages in the folder of taught models."""
        return {name for name in self.packages if not self.is_provided(name)}
