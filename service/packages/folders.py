"""Folders of model packages, `ROOT/NAME/VERSION`: finding the packages and opening their files."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from io import BufferedReader
from pathlib import Path

from service.errors import PackageError

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
NAME_RULE = "letters, digits, '.', '_' and '-'"
MAX_VERSION = 2**31 - 1


@dataclass(frozen=True)
class Package:
    """A folder `ROOT/NAME/VERSION` whose contents have not been read.

    `name` is printable. It differs from the folder's name if that is not printable UTF-8; such a package is
    refused when it is loaded.
    """

    name: str
    version: int
    folder: Path


@dataclass(frozen=True)
class PackageScan:
    """Packages by name, the highest version first, and the folders that cannot be read, with the reasons."""

    packages: tuple[Package, ...]
    unreadable: Mapping[str, str]


def bundled_models() -> Path:
    """Folder of the demo model that is part of the distribution."""
    return Path(str(files("service"))) / "demo_models"


def parse_version(name: str) -> int | None:
    """Version of a folder called `name`: decimal, without leading zeros, from 1 to `MAX_VERSION`."""
    if not re.fullmatch(r"[1-9][0-9]{0,9}", name):
        return None
    version = int(name)
    return version if version <= MAX_VERSION else None


def scan_packages(root: Path) -> PackageScan:
    """Find the packages in `root`. Hidden folders and names that are not versions are ignored.

    Raises:
        PackageError: `root` is not a folder, cannot be read or contains no package.
    """
    if not root.is_dir():
        raise PackageError(f"{root}: there is no such folder of model packages")
    try:
        folders = [path for path in root.iterdir() if not path.name.startswith(".")]
    except OSError as exc:
        raise PackageError(f"{root}: it cannot be read: {exc.strerror}") from exc
    packages: list[Package] = []
    unreadable: dict[str, str] = {}
    for folder in folders:
        name = _printable(folder.name)
        try:
            versions = list(_versions(folder))
        except NotADirectoryError:
            continue
        except OSError as exc:
            unreadable[name] = f"the folder cannot be read: {exc.strerror}"
            continue
        for version, path in versions:
            try:
                if stat.S_ISDIR(path.stat().st_mode):
                    packages.append(Package(name, version, path))
            except FileNotFoundError:
                continue  # a dangling link, or a folder that has just been deleted
            except OSError as exc:
                unreadable[f"{name}/{version}"] = f"the folder cannot be read: {exc.strerror}"
    if not packages:
        reasons = "".join(f"; {name}: {reason}" for name, reason in sorted(unreadable.items()))
        raise PackageError(f"{root}: there is no model package in it (NAME/VERSION){reasons}")
    packages.sort(key=lambda package: (package.name, -package.version))
    return PackageScan(tuple(packages), unreadable)


def scan_with_taught(root: Path, taught: Path | None) -> PackageScan:
    """Return the packages of `root`, and the packages of `taught` with other names.

    Raises:
        PackageError: see `scan_packages`, for `root`.
    """
    scan = scan_packages(root)
    if taught is None:
        return scan
    try:
        beside = scan_packages(taught)
    except PackageError:
        return scan  # no model has been taught yet
    names = {package.name for package in scan.packages}
    return PackageScan(
        (*scan.packages, *(package for package in beside.packages if package.name not in names)),
        {**beside.unreadable, **scan.unreadable},
    )


def next_version(root: Path, name: str) -> int:
    """Return the highest version of `name` in `root` plus one, or 1.

    Raises:
        PackageError: the folder cannot be read, or the highest possible version exists.
    """
    folder = root / name
    try:
        version = 1 + max((version for version, _ in _versions(folder)), default=0)
    except FileNotFoundError:
        return 1
    except OSError as exc:
        raise PackageError(f"{folder}: it cannot be read: {exc.strerror}") from exc
    if version > MAX_VERSION:
        raise PackageError(f"{folder}: version {MAX_VERSION} exists, the highest possible one")
    return version


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading.

    Raises:
        OSError: it cannot be opened, or is not a regular file. Opening a FIFO would block until it has a
            writer, and reading a device such as /dev/zero never ends.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(None, "not a regular file", str(path))
    return open(descriptor, "rb")  # noqa: PTH123 - the caller closes it


def _versions(folder: Path) -> Iterator[tuple[int, Path]]:
    for path in folder.iterdir():
        if (version := parse_version(path.name)) is not None:
            yield version, path


def _printable(name: str) -> str:
    """Escape every byte of `name` that is not UTF-8 and every control character, for logs and answers."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
