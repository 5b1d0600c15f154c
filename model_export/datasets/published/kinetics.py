"""Kinetics-400; a download lacks the videos that have been removed from YouTube.

    DATA/train.csv, DATA/val.csv, DATA/test.csv     label,youtube_id,time_start,time_end,split[,is_cc]
    DATA/train/LABEL/ID_000123_000133.mp4           as crawlers write them, or
    DATA/train/ID_000123_000133.mp4                 as the CVDF's archives unpack

Annotations may be in DATA/annotations, and their names may begin with kinetics_ or kinetics-400_. A video is
found by its name, in any folder of the split. Labels are in alphabetical order, with their spaces. A video in
DATA/replacement/replacement_for_corrupted_k400 replaces the one of the same name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from model_export.datasets.files import (
    find_file,
    look_for,
    make_listing,
    read_rows,
    split_names,
    videos_by_stem,
)
from model_export.datasets.labels import checked
from model_export.datasets.listing import Example, Listing
from model_export.datasets.symmetry import mirrored_unchanged
from service.errors import BlvnetError

PREFIXES = ("", "kinetics_", "kinetics-400_")
REPLACEMENTS = Path("replacement", "replacement_for_corrupted_k400")
TIME = re.compile(r"\d{1,9}", re.ASCII)
COLUMNS = ("label", "youtube_id", "time_start", "time_end")


@dataclass(frozen=True)
class _Annotation:
    label: str
    stems: tuple[str, str]  # possible names of the file, without suffix


def read_kinetics(data: Path, split: str) -> Listing:
    """Read Kinetics-400, or another data set with the same layout.

    Raises:
        BlvnetError: the annotations are missing or unreadable, or no annotated video exists.
    """
    source = find_file(data, _annotation_names(split))
    annotations = list(_read_annotations(source))
    if not annotations:
        raise BlvnetError(f"{source} names no videos")
    names = {annotation.label for annotation in annotations}
    # A small validation split may lack a label for which the network still has an output.
    train = look_for(data, _annotation_names("train"))
    if train is not None and train != source:
        names |= {annotation.label for annotation in _read_annotations(train)}
    labels = checked(sorted(names))
    index = {label: position for position, label in enumerate(labels)}
    folders = [data / name for name in split_names(split)]
    videos = videos_by_stem(*folders, data / REPLACEMENTS)

    def annotated() -> Iterator[tuple[str, Example | None]]:
        for annotation in annotations:
            path = next((videos[stem] for stem in annotation.stems if stem in videos), None)
            expected = str(folders[0] / annotation.stems[0])
            yield expected, None if path is None else Example(path, index[annotation.label])

    return make_listing(source, labels, mirrored_unchanged(labels), annotated())


def _annotation_names(split: str) -> list[str]:
    return [f"{prefix}{name}.csv" for prefix in PREFIXES for name in split_names(split)]


def _read_annotations(source: Path) -> Iterator[_Annotation]:
    rows = read_rows(source, ",")
    _, header = next(rows, (1, list[str]()))
    for name in COLUMNS:
        if name not in header:
            raise BlvnetError(f"{source} has no column {name!r}; it must have {', '.join(COLUMNS)}")
    columns = [header.index(name) for name in COLUMNS]
    for number, fields in rows:
        if len(fields) <= max(columns) or not all(fields[column] for column in columns):
            raise BlvnetError(f"{source}, line {number}: one of {', '.join(COLUMNS)} is missing")
        label, name, start, end = (fields[column] for column in columns)
        if not (TIME.fullmatch(start) and TIME.fullmatch(end)):
            raise BlvnetError(f"{source}, line {number}: the times are not whole seconds")
        yield _Annotation(label, (f"{name}_{int(start):06d}_{int(end):06d}", name))
