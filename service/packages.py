"""Model packages in a folder: find them, choose versions, verify and load one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from service.errors import PackageError
from service.manifest import GRAPH_FILE, Manifest, read_manifest, verify_graph
from service.runtime.choice import Opened
from service.runtime.session import Session

OpenPackage = Callable[[Path, Manifest], Opened]


@dataclass(frozen=True)
class Package:
    """A folder `MODELS/NAME/VERSION`, not looked into yet."""

    name: str
    version: int
    folder: Path


@dataclass(frozen=True)
class Model:
    """A package that is loaded."""

    manifest: Manifest
    opened: Opened

    @property
    def session(self) -> Session:
        """Its graph, loaded."""
        return self.opened.session


@dataclass(frozen=True)
class VersionPolicy:
    """Which versions of a model are to serve: of `only` (all, if None) the `most` highest good ones."""

    most: int = 1
    only: frozenset[int] | None = None

    def candidates(self, packages: Iterable[Package]) -> Iterator[Package]:
        """The packages in question, the highest version first."""
        wanted = (package for package in packages if self.only is None or package.version in self.only)
        return iter(sorted(wanted, key=lambda package: -package.version))


NO_VERSION = VersionPolicy(most=0)
ALL_VERSIONS = sys.maxsize


def find_packages(root: Path) -> list[Package]:
    """Folders `root/NAME/VERSION`, by name, the highest version first.

    Raises:
        PackageError: `root` is no folder or cannot be read, or there is no package in it.
    """
    if not root.is_dir():
        raise PackageError(f"{root}: there is no such folder of model packages")
    try:
        packages = [
            Package(name.name, int(version.name), version)
            for name in root.iterdir()
            if name.is_dir() and not name.name.startswith(".")
            for version in name.iterdir()
            if version.is_dir() and _is_version(version.name)
        ]
    except OSError as exc:
        raise PackageError(f"{root}: it cannot be read: {exc.strerror}") from exc
    if not packages:
        raise PackageError(f"{root}: there is no model package in it (NAME/VERSION/{GRAPH_FILE})")
    return sorted(packages, key=lambda package: (package.name, -package.version))


def load_package(package: Package, open_package: OpenPackage) -> Model:
    """Read, verify, load and prove one package.

    Raises:
        PackageError: something is wrong with it; the message says what.
        InferenceFailed: its graph does not run.
        ProviderUnavailable: the provider cannot be had.
    """
    manifest = read_manifest(package.folder)
    if (manifest.name, manifest.version) != (package.name, package.version):
        raise PackageError(f"the manifest is that of {manifest.name}/{manifest.version}")
    verify_graph(manifest, package.folder)
    return Model(manifest, open_package(package.folder, manifest))


def described(opened: Opened) -> str:
    """What runs a model and why, in words."""
    text = f"{opened.session.runtime}, {opened.chosen}"
    if opened.measured_ms:
        measured = ", ".join(f"{name} {value:.3g} ms" for name, value in opened.measured_ms.items())
        text = f"{text} ({measured})"
    if opened.batches is not None:
        timed = zip(opened.batches.sizes, opened.batches.seconds, strict=True)
        return f"{text}; batches of {', '.join(f'{size} take {took * 1e3:.3g} ms' for size, took in timed)}"
    if opened.streams is None:
        return text
    pace = opened.streams.pace
    return (
        f"{text}; a clip alone takes {pace.lone_s * 1e3:.3g} ms, {pace.streams} side by side"
        f" {pace.together_s * 1e3:.3g} ms"
    )


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdecimal() and not name.startswith("0")
