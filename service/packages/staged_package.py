"""Atomic writing of a package folder."""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from service.errors import PackageError
from service.packages.folders import MAX_VERSION, NAME_PATTERN, NAME_RULE, parse_version

# Hidden names of the folders that are being written: a version and a random number.
STAGES = ".[0-9]*." + "[0-9a-f]" * 32


@contextmanager
def staged_package(models: Path, name: str, version: int) -> Iterator[Path]:
    """Yield a folder to write a package into, which becomes `models/name/version` when the block succeeds.

    The folder is next to its destination, under a hidden name that servers ignore, so the last step is one
    rename: a server that watches `models` sees the whole package or nothing. On an error, the content and the
    folders that were created for it are removed. Leftovers of killed writers of `name` are removed first.

    Raises:
        PackageError: the name or the version is not valid, the version exists (the content of a version never
            changes, so a new export is a new version), or the folder cannot be written.
    """
    if not NAME_PATTERN.fullmatch(name):
        raise PackageError(f"the name of a model must be {NAME_RULE}; it is {name!r}")
    if parse_version(str(version)) is None:
        raise PackageError(f"the version must be from 1 to {MAX_VERSION}; it is {version}")
    package = models / name / str(version)
    if os.path.lexists(package):
        raise PackageError(
            f"{models / name} already has version {version}; leave --version out for the next one"
        )
    created = [folder for folder in (models / name, models) if not folder.exists()]
    stage = models / name / f".{version}.{uuid.uuid4().hex}"
    try:
        with ExitStack() as undo:
            undo.callback(_remove, stage, created)
            stage.parent.mkdir(parents=True, exist_ok=True)
            with _writing(stage.parent):
                stage.mkdir()
                yield stage
                stage.rename(package)
            undo.pop_all()
    except OSError as exc:
        raise PackageError(f"{models / name}: the package cannot be written ({exc.strerror})") from exc


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Mark this process as a writer of `folder`; if it is the only one, remove the stages of earlier ones.

    On file systems without locks, stages are not removed.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for left in folder.glob(STAGES):
                shutil.rmtree(left, ignore_errors=True)
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def _remove(stage: Path, created: Iterable[Path]) -> None:
    shutil.rmtree(stage, ignore_errors=True)
    for folder in created:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
