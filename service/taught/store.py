"""Examples of taught models in a folder: the features of each clip, without the clip.

    TEACH_DIR/examples/NAME/ID.npz     features (V, T', F), and label, group, time and base as JSON
    TEACH_DIR/models/NAME/VERSION      the taught packages

ID is the start of the SHA-256 of the clip's bytes, so the same bytes are one example. Files are written
atomically. A file that cannot be read is kept and reported.
"""

from __future__ import annotations

import fcntl
import logging
import shutil
import uuid
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from service.errors import BlvnetError
from service.packages.files import DAMAGED_ARRAYS, atomic_write
from service.packages.folders import NAME_PATTERN
from service.packages.manifest import BaseReference

SUFFIX = ".npz"
ID_DIGITS = 32
# Exceptions that numpy raises for incomplete files.
UNREADABLE: tuple[type[Exception], ...] = (OSError, *DAMAGED_ARRAYS, ValidationError)

logger = logging.getLogger(__name__)


class ExampleRecord(BaseModel):
    """The data of one clip in addition to its features; `added_at` is an RFC 3339 time."""

    model_config = ConfigDict(strict=True, frozen=True)

    label: str
    group: str | None
    added_at: str
    base: BaseReference


@dataclass(frozen=True)
class StoredExample:
    """An example and the size of its file."""

    example: ExampleRecord
    size_bytes: int


class ExampleStore:
    """The examples in a folder, which one process uses at a time. Methods that write block for milliseconds.

    Args:
        folder: the folder; created if it does not exist.

    Raises:
        BlvnetError: the folder cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "examples"
        self._models: dict[str, dict[str, StoredExample]] = {}
        self._damaged: dict[str, list[str]] = {}
        with ExitStack() as on_failure:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._lock = on_failure.enter_context((folder / ".lock").open("w"))
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for path in sorted(self._folder.iterdir()):
                    self._index(path)
            except BlockingIOError as exc:
                raise BlvnetError(
                    f"{folder} is in use by another service; set another folder (BLVNET_TEACH_DIR)"
                ) from exc
            except OSError as exc:
                raise BlvnetError(f"examples cannot be kept in {folder}: {exc.strerror}") from exc
            on_failure.pop_all()

    def close(self) -> None:
        """Let another process use the folder."""
        self._lock.close()

    @property
    def size_bytes(self) -> int:
        """Size of all examples."""
        return sum(stored.size_bytes for model in self._models.values() for stored in model.values())

    def names(self) -> set[str]:
        """The models that have examples."""
        return set(self._models)

    def examples(self, name: str) -> Mapping[str, StoredExample]:
        """Return the examples of a model by id, in the order in which they were added."""
        return self._models.get(name, {})

    def damaged(self, name: str) -> list[str]:
        """Return the names of files that cannot be read."""
        return self._damaged.get(name, [])

    def label_counts(self, name: str) -> dict[str, int]:
        """Return the number of examples of each label, ordered by label."""
        return dict(sorted(Counter(stored.example.label for stored in self.examples(name).values()).items()))

    def base(self, name: str) -> BaseReference | None:
        """Return the base of a model's examples; None if there are none."""
        return next((stored.example.base for stored in self.examples(name).values()), None)

    def folder(self, name: str) -> Path:
        """Return the folder of a model's examples."""
        return self._folder / name

    def add(self, name: str, example_id: str, example: ExampleRecord, features: NDArray[np.float32]) -> None:
        """Store an example, replacing an earlier one with the same id.

        Raises:
            OSError: it cannot be written; nothing has changed.
        """
        folder = self.folder(name)
        folder.mkdir(exist_ok=True)
        path = folder / f"{example_id}{SUFFIX}"
        try:
            with atomic_write(path) as file:
                about = np.frombuffer(example.model_dump_json().encode(), np.uint8)
                np.savez(file, features=features, about=about)
        except OSError:
            with suppress(OSError):
                folder.rmdir()  # fails unless it is empty
            raise
        stored = StoredExample(example, path.stat().st_size)
        self._models[name] = self._models.get(name, {}) | {example_id: stored}

    def remove(self, name: str, example_id: str) -> None:
        """Delete an example.

        Raises:
            OSError: it cannot be deleted.
        """
        (self.folder(name) / f"{example_id}{SUFFIX}").unlink(missing_ok=True)
        left = {key: stored for key, stored in self.examples(name).items() if key != example_id}
        if left:
            self._models[name] = left
        else:
            self._models.pop(name, None)

    def remove_all(self, name: str) -> None:
        """Delete all examples of a model.

        Raises:
            OSError: they cannot be deleted.
        """
        delete_folder(self.folder(name))
        self._models.pop(name, None)
        self._damaged.pop(name, None)

    def _index(self, folder: Path) -> None:
        """Read the data of the examples of one model, and delete partial files left by a crash."""
        if folder.name.startswith("."):
            shutil.rmtree(folder, ignore_errors=True)
        if not NAME_PATTERN.fullmatch(folder.name) or not folder.is_dir():
            return
        found: dict[str, StoredExample] = {}
        for path in folder.iterdir():
            if path.name.startswith("."):
                path.unlink(missing_ok=True)  # an unfinished write
                continue
            try:
                found[path.stem] = StoredExample(read_example(path), path.stat().st_size)
            except UNREADABLE as exc:
                logger.error("example %s of %s is damaged and left out: %s", path.name, folder.name, exc)
                self._damaged.setdefault(folder.name, []).append(path.name)
        if found:
            order = sorted(found, key=lambda key: (found[key].example.added_at, key))
            self._models[folder.name] = {key: found[key] for key in order}


def read_example(path: Path) -> ExampleRecord:
    """Read the data of an example. Raises one of `UNREADABLE` if the file is damaged."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return ExampleRecord.model_validate_json(arrays["about"].tobytes())


def read_features(path: Path) -> NDArray[np.float32]:
    """Read the features `(V, T', F)` of an example. Raises one of `UNREADABLE` if the file is damaged."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        features = arrays["features"]
    if features.ndim != 3 or features.dtype != np.float32 or not np.isfinite(features).all():
        raise ValueError(f"features {features.shape} of type {features.dtype} are not those of a clip")
    return np.asarray(features)


def delete_folder(folder: Path) -> None:
    """Delete a folder atomically from the view of readers.

    Raises:
        OSError: it cannot be renamed.
    """
    hidden = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    with suppress(FileNotFoundError):
        folder.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)
