"""Writing a model package: a folder that is either there, whole and checked, or not there at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.errors import PackageError
from service.manifest import NAME_PATTERN


def next_version(models: Path, name: str) -> int:
    """One more than the highest version of `name` below `models`, 1 where there is none."""
    folder = models / name
    entries = folder.iterdir() if folder.is_dir() else ()
    return 1 + max((int(entry.name) for entry in entries if _is_version(entry.name)), default=0)


def check_free(models: Path, name: str, version: int) -> None:
    """Check that a package `name`/`version` can be written below `models`, before any long work.

    Raises:
        PackageError: the name cannot be one, or that version is already there: what a version serves never
            changes, so a new export is a new version.
    """
    if not NAME_PATTERN.fullmatch(name):
        raise PackageError(f"a model's name must be letters, digits, '.', '_' and '-', it is {name!r}")
    if os.path.lexists(models / name / str(version)):
        raise PackageError(
            f"{models / name} already has version {version}; leave --version out for the next one"
        )


@contextmanager
def staged(models: Path, name: str, version: int) -> Iterator[Path]:
    """A folder to write a package into, which becomes `models/name/version` when the block ends well.

    The folder lies beside its destination, under a hidden name that no server looks at, so the last step is
    one rename: a server that watches `models` sees the whole package or nothing. On any error what was
    written goes, and so do the folders that were made for it.

    Raises:
        PackageError: the folder cannot be written, or another process took that version meanwhile.
    """
    check_free(models, name, version)
    made = [folder for folder in (models / name, models) if not folder.exists()]
    stage = models / name / f".{version}.{uuid.uuid4().hex}"
    try:
        with _reported(models / name):
            stage.mkdir(parents=True)
            yield stage
            stage.rename(models / name / str(version))
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        _remove_empty(made)
        raise


@contextmanager
def _reported(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise PackageError(f"{folder}: the package cannot be written ({exc.strerror})") from exc


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdigit()
