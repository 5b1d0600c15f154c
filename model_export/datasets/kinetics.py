"""Kinetics-400: clips of YouTube, of which some are gone by the time that anybody downloads them.

    DATA/train.csv, DATA/val.csv, DATA/test.csv     label,youtube_id,time_start,time_end,split[,is_cc]
    DATA/train/LABEL/ID_000123_000133.mp4           as crawlers write them, or
    DATA/train/ID_000123_000133.mp4                 as the CVDF's archives unpack

Annotations may be in DATA/annotations, and their names begin with kinetics_ or kinetics-400_. A clip is found
by its name, in whatever folder of the split it is. Labels are in alphabetical order, with their spaces; a
clip in DATA/replacement/replacement_for_corrupted_k400 takes the place of the one of that name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from model_export.datasets.disk import clips_by_stem, collect, find_file, look_for, read_rows, split_names
from model_export.datasets.listing import Clip, Listing, mirrored_alike
from model_export.labels import checked
from service.errors import BlvnetError

PREFIXES = ("", "kinetics_", "kinetics-400_")
REPLACEMENTS = Path("replacement", "replacement_for_corrupted_k400")
NEEDED = ("label", "youtube_id", "time_start", "time_end")


@dataclass(frozen=True)
class _Row:
    label: str
    stems: tuple[str, str]  # what the file may be called


def read_kinetics(data: Path, split: str) -> Listing:
    """Kinetics-400, or any other of its size and layout.

    Raises:
        BlvnetError: the annotations are not there or cannot be read, or no clip is there at all.
    """
    source = find_file(data, _annotations(split))
    rows = list(_rows(source))
    if not rows:
        raise BlvnetError(f"{source} names no clips")
    labels = checked(sorted(_all_labels(data, split, rows)))
    position = {label: index for index, label in enumerate(labels)}
    names = split_names(split)
    there = clips_by_stem(*(data / name for name in names), data / REPLACEMENTS)

    def wanted() -> Iterator[tuple[str, Clip | None]]:
        for row in rows:
            path = next((there[stem] for stem in row.stems if stem in there), None)
            yield (
                str(data / names[0] / row.stems[0]),
                None if path is None else Clip(path, position[row.label]),
            )

    return collect(source, labels, mirrored_alike(labels), wanted())


def _all_labels(data: Path, split: str, rows: list[_Row]) -> set[str]:
    """The labels of the training split, which has all of them, and of the split itself."""
    labels = {row.label for row in rows}
    train = None if split in split_names("train") else look_for(data, _annotations("train"))
    return labels if train is None else labels | {row.label for row in _rows(train)}


def _annotations(split: str) -> list[str]:
    return [f"{prefix}{name}.csv" for prefix in PREFIXES for name in split_names(split)]


def _rows(source: Path) -> Iterator[_Row]:
    rows = read_rows(source, ",")
    _, header = next(rows, (1, list[str]()))
    lacking = [name for name in NEEDED if name not in header]
    if lacking:
        raise BlvnetError(f"{source} has no column {lacking[0]!r}; it must have {', '.join(NEEDED)}")
    places = [header.index(name) for name in NEEDED]
    for number, fields in rows:
        if len(fields) <= max(places) or not all(fields[place] for place in places):
            raise BlvnetError(f"{source}, line {number}: {', '.join(NEEDED)} are not all there")
        label, name, start, end = (fields[place] for place in places)
        if not (start.isdecimal() and end.isdecimal()):
            raise BlvnetError(f"{source}, line {number}: the times are not whole seconds")
        yield _Row(label, (f"{name}_{int(start):06d}_{int(end):06d}", name))
