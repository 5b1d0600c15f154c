"""Data in folders named by their labels: anybody's own, and what `blvnet synth` writes."""

from __future__ import annotations

import json
from pathlib import Path

from model_export.datasets.disk import VIDEO_SUFFIXES
from model_export.datasets.listing import Clip, Listing, Symmetry, indices, unknown_symmetry
from model_export.synthetic.classes import MIRRORED, REVERSED
from service.errors import BlvnetError

LABELS_FILE = "labels.json"


def read_folder(data: Path, split: str) -> Listing:
    """`DATA/SPLIT/LABEL/files`, labels in the order of `DATA/labels.json`, or sorted where there is none.

    Nothing is known of the labels, so nothing is mirrored or reversed.
    """
    labels, clips = _walk(data, split)
    return Listing(labels, clips, unknown_symmetry(labels))


def read_synthetic(data: Path, split: str) -> Listing:
    """What `blvnet synth` writes: the folder layout, with the symmetries of its labels."""
    labels, clips = _walk(data, split)
    return Listing(labels, clips, Symmetry(indices(labels, MIRRORED), indices(labels, REVERSED)))


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
