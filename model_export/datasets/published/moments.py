"""Moments in Time: 339 verbs, videos of three seconds.

DATA/moments_categories.txt             label,index
DATA/trainingSet.csv, validationSet.csv label/file.mp4,label,annotators who agreed,annotators who did not
DATA/training/LABEL/file.mp4, DATA/validation/LABEL/file.mp4
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from model_export.datasets.files import (
    PathIndex,
    find_file,
    find_folder,
    make_listing,
    read_rows,
    split_names,
)
from model_export.datasets.labels import read_labels
from model_export.datasets.listing import Example, Listing
from model_export.datasets.symmetry import mirrored_unchanged
from service.errors import BlvnetError

CATEGORIES = "moments_categories.txt"
FIELDS = 4


def read_moments(data: Path, split: str) -> Listing:
    """Read Moments in Time.

    Raises:
        BlvnetError: the annotations are missing or unreadable, or no annotated video exists.
    """
    labels = read_labels(find_file(data, [CATEGORIES]))
    names = split_names(split)
    source = find_file(data, [f"{name}Set.csv" for name in names])
    folder = find_folder(data, names)
    index = {label: position for position, label in enumerate(labels)}
    existing = PathIndex()

    def annotated() -> Iterator[tuple[str, Example | None]]:
        for number, fields in read_rows(source, ",", strip=False):
            if len(fields) < FIELDS:
                raise BlvnetError(f"{source}, line {number}: not label/file,label,count,count")
            # A file name may contain commas, and spaces after them.
            name, label = ",".join(fields[:-3]).strip(), fields[-3].strip()
            if label not in index:
                raise BlvnetError(f"{source}, line {number}: {label!r} is not in {CATEGORIES}")
            path = folder / name
            yield str(path), Example(path, index[label]) if path in existing else None

    return make_listing(source, labels, mirrored_unchanged(labels), annotated())
