"""Moments in Time: 339 verbs, clips of three seconds.

DATA/moments_categories.txt             label,index
DATA/trainingSet.csv, validationSet.csv label/file.mp4,label,annotators who agreed,annotators who did not
DATA/training/LABEL/file.mp4, DATA/validation/LABEL/file.mp4
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from model_export.datasets.disk import Shelves, collect, find_file, find_folder, read_rows, split_names
from model_export.datasets.listing import Clip, Listing, mirrored_alike
from model_export.labels import read_labels
from service.errors import BlvnetError

CATEGORIES = "moments_categories.txt"
FIELDS = 4


def read_moments(data: Path, split: str) -> Listing:
    """Moments in Time.

    Raises:
        BlvnetError: the annotations are not there or cannot be read, or no clip is there at all.
    """
    labels = read_labels(find_file(data, [CATEGORIES]))
    names = split_names(split)
    source = find_file(data, [f"{name}Set.csv" for name in names])
    folder = find_folder(data, names)
    position = {label: index for index, label in enumerate(labels)}
    shelves = Shelves()

    def wanted() -> Iterator[tuple[str, Clip | None]]:
        for number, fields in read_rows(source, ","):
            if len(fields) < FIELDS:
                raise BlvnetError(f"{source}, line {number}: not label/file,label,count,count")
            name, label = ",".join(fields[:-3]), fields[-3]  # a name may hold commas
            if label not in position:
                raise BlvnetError(f"{source}, line {number}: {label!r} is not in {CATEGORIES}")
            path = folder / name
            yield str(path), Clip(path, position[label]) if shelves.hold(path) else None

    return collect(source, labels, mirrored_alike(labels), wanted())
