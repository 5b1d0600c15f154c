"""Data sets in folders named after their labels: your own, and what `blvnet synth` writes.

DATA/{train,val,test}/LABEL/*.mp4       videos, in any container that the service takes
DATA/LABEL/*.mp4                        the same without splits: see `model_export.datasets.auto_split`
DATA/labels.json                        optional: the labels as a list, in the order of the outputs
DATA/symmetry.json                      optional: see `model_export.datasets.symmetry`
DATA/groups.csv                         optional: see `model_export.datasets.groups`
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from model_export.datasets.auto_split import SHARES, assign_splits
from model_export.datasets.files import find_folder, is_video, split_names, visible_entries
from model_export.datasets.groups import with_groups
from model_export.datasets.listing import Example, Listing
from model_export.datasets.symmetry import Symmetry, label_indices, read_symmetry, unknown_symmetry
from model_export.synthetic.labels import MIRRORED, REVERSED
from service.errors import BlvnetError

LABELS_FILE = "labels.json"


def read_folder(data: Path, split: str) -> Listing:
    """Read a data set in folders; without a symmetry file nothing is mirrored or reversed.

    Raises:
        BlvnetError: the folders do not have the layout, or hold no videos.
    """
    labels, examples, notes = _walk(data, split)
    return Listing(labels, examples, read_symmetry(data, labels) or unknown_symmetry(labels), notes=notes)


def read_synthetic(data: Path, split: str) -> Listing:
    """Read what `blvnet synth` wrote; its labels have known symmetries even without a symmetry file.

    Raises:
        BlvnetError: as `read_folder`.
    """
    labels, examples, notes = _walk(data, split)
    known = Symmetry(label_indices(labels, MIRRORED), label_indices(labels, REVERSED))
    return Listing(labels, examples, read_symmetry(data, labels) or known, notes=notes)


def _walk(data: Path, split: str) -> tuple[tuple[str, ...], tuple[Example, ...], tuple[str, ...]]:
    """Labels, examples and notes of a split."""
    if not any((data / name).is_dir() for name in SHARES):
        return _walk_flat(data, split)
    labels, examples, notes = _walk_folder(data, find_folder(data, [split]), split)
    return labels, with_groups(data, examples), notes


def _walk_flat(data: Path, split: str) -> tuple[tuple[str, ...], tuple[Example, ...], tuple[str, ...]]:
    """A split of a folder that is not divided into splits."""
    (split,) = set(split_names(split)) & set(SHARES)
    labels, examples, notes = _walk_folder(data, data, split)
    examples = with_groups(data, examples)
    splits = assign_splits(examples)
    if not splits[split]:
        raise BlvnetError(
            f"{data} has too few videos or groups for a {split} split: use --split val, or put videos into "
            f"{split}/ yourself"
        )
    by = "label" if examples[0].group is None else "group"
    counts = ", ".join(f"{len(chosen)} {name}" for name, chosen in splits.items())
    return labels, splits[split], (*notes, f"{data} has no splits, so it is split by {by}: {counts} videos")


def _walk_folder(
    data: Path, root: Path, split: str
) -> tuple[tuple[str, ...], tuple[Example, ...], tuple[str, ...]]:
    """Labels, examples and notes of the folders of labels in `root`."""
    labels, source = _read_labels(data, root)
    unknown = sorted(set(_subfolders(root)) - set(labels))
    if unknown:
        raise BlvnetError(f"{root}: the folder {unknown[0]!r} is not a label of {source}")
    examples: list[Example] = []
    skipped: Counter[str] = Counter()
    for index, label in enumerate(labels):
        folder = root / label
        for entry in visible_entries(folder) if folder.is_dir() else ():
            if is_video(entry.name):
                examples.append(Example(folder / entry.name, index))
            else:
                skipped[Path(entry.name).suffix or entry.name] += 1
    if not examples:
        raise BlvnetError(f"{root} holds no video files")
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in skipped.most_common(5))
    notes = (
        (f"{split}: {skipped.total()} entries are not videos by their suffix ({kinds})",) if skipped else ()
    )
    return labels, tuple(examples), notes


def _read_labels(data: Path, root: Path) -> tuple[tuple[str, ...], str]:
    """The labels and their source: `labels.json`, or the folders of the training split.

    All splits have the labels of the training split, so another split may lack examples of a label.
    """
    file = data / LABELS_FILE
    if not file.exists():
        source = data / "train" if (data / "train").is_dir() else root
        return tuple(_subfolders(source)), str(source)
    try:
        labels = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as exc:
        raise BlvnetError(f"{file} cannot be read as JSON") from exc
    if not isinstance(labels, list) or not all(isinstance(label, str) and label for label in labels):
        raise BlvnetError(f"{file} is not a list of labels")
    if len(set(labels)) != len(labels):
        raise BlvnetError(f"{file} names a label twice")
    return tuple(labels), LABELS_FILE


def _subfolders(folder: Path) -> list[str]:
    return [entry.name for entry in visible_entries(folder) if entry.is_dir()]
