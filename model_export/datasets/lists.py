"""Lists of paths with label indices, as the authors of bLVNet-TAM keep their data.

    DATA/train.txt, DATA/val.txt        lines of "path start end label" or "path label"
    DATA/labels.txt or labels.json      the names of the labels, if there are any

Fields are apart by spaces, or by semicolons where paths have spaces. Paths are relative to DATA: with `start`
and `end`, numbers of the first and last picture, a folder of JPEG pictures; else a video or such a folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from model_export.datasets.disk import Shelves, collect, find_file, look_for, read_text, split_names
from model_export.datasets.listing import Clip, Listing, unknown_symmetry
from model_export.labels import read_labels
from service.errors import BlvnetError

LABEL_FILES = ("labels.txt", "labels.json", "labels.csv")
# What the authors' tools write beside train.txt and val.txt.
ENDINGS = (".txt", "_256.txt")


def read_list(data: Path, split: str) -> Listing:
    """The lists' clips; labels without names are called by their index.

    Raises:
        BlvnetError: the list is not there or cannot be read, or no clip is there at all.
    """
    source = find_file(data, _names(split))
    clips = list(_clips(data, source))
    labels = _labels(data, clips)
    outside = next((clip for clip in clips if clip.label >= len(labels)), None)
    if outside is not None:
        raise BlvnetError(f"{source}: {outside.path} has label {outside.label}, there are {len(labels)}")
    shelves = Shelves()
    wanted = ((str(clip.path), clip if shelves.hold(clip.path) else None) for clip in clips)
    return collect(source, labels, unknown_symmetry(labels), wanted)


def _names(split: str) -> list[str]:
    return [name + ending for name in split_names(split) for ending in ENDINGS]


def _labels(data: Path, clips: list[Clip]) -> tuple[str, ...]:
    """Of the label file; without one, as many as the lists of all splits use."""
    file = look_for(data, LABEL_FILES)
    if file is not None:
        return read_labels(file)
    lists = [look_for(data, _names(split)) for split in ("train", "val")]
    used = [clip.label for path in lists if path is not None for clip in _clips(data, path)]
    return tuple(str(index) for index in range(1 + max([*used, *(clip.label for clip in clips)], default=-1)))


def _clips(data: Path, source: Path) -> Iterator[Clip]:
    for number, line in enumerate(read_text(source).splitlines(), start=1):
        if line.strip():
            fields = [field.strip() for field in (line.split(";") if ";" in line else line.split())]
            try:
                yield _clip(data, fields)
            except ValueError as exc:
                raise BlvnetError(f"{source}, line {number}: {exc}") from exc


def _clip(data: Path, fields: list[str]) -> Clip:
    """Raises ValueError, for a line that is none."""
    path = data / fields[0]
    match [int(field) for field in fields[1:]]:
        case [label] if label >= 0:
            return Clip(path, label)
        case [start, end, label] if label >= 0 and 1 <= start <= end:
            return Clip(path, label, (start, end))
        case _:
            raise ValueError("not path start end label, nor path label, with start from 1 and label from 0")
