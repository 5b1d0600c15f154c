"""Charades: 157 everyday actions at home; a video shows several of them, so it has several labels.

    DATA/Charades_v1_classes.txt                        lines of "c000 Holding some clothes"
    DATA/Charades_v1_train.csv, Charades_v1_test.csv    columns id, actions: "c092 11.90 21.20;c147 0 12.60"
    DATA/Charades_v1_480/ID.mp4, Charades_v1/ID.mp4, or the frames Charades_v1_rgb/ID/ID-000001.jpg

Annotations may be in DATA/Charades, where their archive unpacks them. The testing videos are both `val` and
`test`. The labels of a video are those of all its actions, whenever they occur. Videos without an action are
left out: the authors' evaluation ranks them last, where they change no average precision.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from model_export.datasets.files import (
    find_file,
    find_folder,
    make_listing,
    read_lines,
    read_text,
    split_names,
    videos_by_id,
)
from model_export.datasets.labels import checked
from model_export.datasets.listing import Example, Listing
from model_export.datasets.symmetry import mirrored_unchanged
from service.errors import BlvnetError

CLASSES = "Charades_v1_classes.txt"
VIDEOS = ("Charades_v1_480", "Charades_v1", "Charades_v1_rgb", "videos")


def read_charades(data: Path, split: str) -> Listing:
    """Read Charades.

    Raises:
        BlvnetError: the annotations are missing or unreadable, or no annotated video exists.
    """
    index, labels = _read_classes(_find(data, CLASSES))
    part = "train" if "train" in split_names(split) else "test"
    source = _find(data, f"Charades_v1_{part}.csv")
    folder = find_folder(data, VIDEOS)
    videos = videos_by_id(folder)

    def annotated() -> Iterator[tuple[str, Example | None]]:
        for number, row in _read_rows(source):
            name, actions = row.get("id"), row.get("actions")
            if name is None or actions is None:
                raise BlvnetError(f"{source}, line {number}: the columns id and actions are missing")
            codes = [action.split(" ")[0] for action in actions.split(";") if action]
            unknown = next((code for code in codes if code not in index), None)
            if unknown is not None:
                raise BlvnetError(f"{source}, line {number}: {unknown!r} is not in {CLASSES}")
            if codes:
                first, *others = sorted({index[code] for code in codes})
                example = Example(videos[name], first, others=tuple(others)) if name in videos else None
                yield str(folder / name), example

    return make_listing(source, labels, mirrored_unchanged(labels), annotated(), multi_label=True)


def _read_rows(source: Path) -> Iterator[tuple[int, dict[str, str | None]]]:
    """Line number, which counts the lines of earlier rows too, and the fields of a row by column."""
    # Without `strict`, a quote that is not closed takes all later videos with it.
    table = csv.DictReader(io.StringIO(read_text(source)), strict=True)
    try:
        for row in table:
            yield table.reader.line_num, row
    except csv.Error as exc:
        raise BlvnetError(f"{source}, line {table.reader.line_num}: {exc}") from exc


def _find(data: Path, name: str) -> Path:
    """An annotation file in `data`, or in its folder `Charades`."""
    unpacked = data / "Charades"
    return find_file(unpacked if (unpacked / name).is_file() else data, [name])


def _read_classes(path: Path) -> tuple[dict[str, int], tuple[str, ...]]:
    """Code -> index, and the labels."""
    lines = [line.partition(" ") for line in read_lines(path) if line.strip()]
    labels = checked([label.strip() for _, _, label in lines])
    return {code: index for index, (code, _, _) in enumerate(lines)}, labels
