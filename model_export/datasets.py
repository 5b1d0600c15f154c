"""Lists of labelled clips: one reader per data set layout, in one table.

A reader takes the data's folder and the name of a split and returns a `Listing`; adding a data set is adding
a function to `READERS`. What a label turns into when its clip is mirrored or played backwards is part of the
listing, because that is knowledge of the labels and not of the pixels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from model_export.synthetic.classes import MIRRORED, REVERSED
from service.errors import BlvnetError

LABELS_FILE = "labels.json"
VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm"})


@dataclass(frozen=True)
class Clip:
    """A video file and the index of its label."""

    path: Path
    label: int


@dataclass(frozen=True)
class Symmetry:
    """For each label index, the index that a transformed clip has, or None where it has none.

    A clip whose entry is None must not be transformed that way: its label would be wrong afterwards.
    """

    mirrored: tuple[int | None, ...]
    reversed: tuple[int | None, ...]


@dataclass(frozen=True)
class Listing:
    """One split of a data set, in an order that is the same on every machine."""

    labels: tuple[str, ...]
    clips: tuple[Clip, ...]
    symmetry: Symmetry

    def without(self, excluded: frozenset[Path]) -> Listing:
        """The listing less some files."""
        return Listing(self.labels, tuple(c for c in self.clips if c.path not in excluded), self.symmetry)


Reader = Callable[[Path, str], Listing]


def read_listing(dataset: str, data: Path, split: str) -> Listing:
    """The clips of one split.

    Raises:
        BlvnetError: no reader has that name, or the folder does not have the layout.
    """
    try:
        reader = READERS[dataset]
    except KeyError:
        raise BlvnetError(f"no data set {dataset!r}; there are {', '.join(sorted(READERS))}") from None
    return reader(data, split)


def read_folder(data: Path, split: str) -> Listing:
    """`DATA/SPLIT/LABEL/files`, labels in the order of `DATA/labels.json`, or sorted where there is none.

    Nothing is known of the labels, so nothing is mirrored or reversed.
    """
    labels, clips = _walk(data, split)
    nothing = (None,) * len(labels)
    return Listing(labels, clips, Symmetry(nothing, nothing))


def read_synthetic(data: Path, split: str) -> Listing:
    """What `blvnet synth` writes: the folder layout, with the symmetries of its labels."""
    labels, clips = _walk(data, split)
    return Listing(labels, clips, Symmetry(_indices(labels, MIRRORED), _indices(labels, REVERSED)))


READERS: Mapping[str, Reader] = {
    "folder": read_folder,
    "synthetic": read_synthetic,
}


def _walk(data: Path, split: str) -> tuple[tuple[str, ...], tuple[Clip, ...]]:
    root = data / split
    if not root.is_dir():
        raise BlvnetError(f"{data} has no folder {split!r}")
    labels = _read_labels(data, root)
    stray = {folder.name for folder in root.iterdir() if folder.is_dir()} - set(labels)
    if stray:
        raise BlvnetError(f"{root}: {LABELS_FILE} does not name {sorted(stray)[0]!r}")
    clips = tuple(
        Clip(path, index)
        for index, label in enumerate(labels)
        for path in sorted((root / label).glob("*"))
        if path.suffix.lower() in VIDEO_SUFFIXES
    )
    if not clips:
        raise BlvnetError(f"{root} holds no video files")
    return labels, clips


def _read_labels(data: Path, root: Path) -> tuple[str, ...]:
    file = data / LABELS_FILE
    if not file.exists():
        return tuple(sorted(folder.name for folder in root.iterdir() if folder.is_dir()))
    try:
        labels = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise BlvnetError(f"{file} cannot be read as JSON") from exc
    if not isinstance(labels, list) or not all(isinstance(label, str) and label for label in labels):
        raise BlvnetError(f"{file} is not a list of labels")
    if len(set(labels)) != len(labels):
        raise BlvnetError(f"{file} names a label twice")
    return tuple(labels)


def _indices(labels: tuple[str, ...], table: Mapping[str, str]) -> tuple[int | None, ...]:
    """`table` in label indices; a label whose counterpart is not among the labels has none."""
    position = {label: index for index, label in enumerate(labels)}
    return tuple(position.get(table.get(label, "")) for label in labels)
