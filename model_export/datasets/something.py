"""Something-Something: 174 actions with things, told apart by what happens and not by what is seen.

V1 ships frames, V2 videos:

    DATA/something-something-v1-labels.csv          a label a line
    DATA/something-something-v1-{train,validation}.csv      lines of "id;label"
    DATA/20bn-something-something-v1/ID/00001.jpg   frames at 12 a second, 100 pixels high

    DATA/something-something-v2-labels.json         {"label": "0", ...}
    DATA/something-something-v2-{train,validation}.json     [{"id", "label", "template", ...}, ...]
    DATA/20bn-something-something-v2/ID.webm

The later release of V2 has DATA/labels/{labels,train,validation}.json, and test-answers.csv, "id;label".
Labels with a direction are swapped in a mirror.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from model_export.datasets.disk import clips_by_id, collect, find_file, find_folder, read_rows, read_text
from model_export.datasets.disk import split_names as names_of_split
from model_export.datasets.listing import Clip, Listing, mirrored_as_worded
from model_export.labels import read_labels
from service.errors import BlvnetError

V1 = "something-something-v1"
V2 = "something-something-v2"
UNBRACKETED = str.maketrans("", "", "[]")

Named = tuple[str, str]
"""A clip's id and its label."""


def read_v1(data: Path, split: str) -> Listing:
    """Something-Something V1: folders of frames.

    Raises:
        BlvnetError: a file or folder is not there, or the annotations contradict each other.
    """
    labels = read_labels(find_file(data, [f"{V1}-labels.csv", "labels.csv"]))
    source = find_file(data, _annotations(V1, split, ".csv"))
    return _listing(data, V1, source, labels, _semicolons(source))


def read_v2(data: Path, split: str) -> Listing:
    """Something-Something V2: videos.

    Raises:
        BlvnetError: a file or folder is not there, or the annotations contradict each other.
    """
    labels = read_labels(find_file(data, [f"{V2}-labels.json", "labels.json"]))
    if "test" in names_of_split(split):
        source = find_file(data, ["test-answers.csv"])
        return _listing(data, V2, source, labels, _semicolons(source))
    source = find_file(data, _annotations(V2, split, ".json"))
    return _listing(data, V2, source, labels, _templates(source))


def _annotations(release: str, split: str, suffix: str) -> list[str]:
    names = names_of_split(split)
    return [f"{release}-{name}{suffix}" for name in names] + [f"{name}{suffix}" for name in names]


def _semicolons(source: Path) -> Iterator[Named]:
    """Lines of `id;label`."""
    for number, fields in read_rows(source, ";"):
        if len(fields) != 2:
            raise BlvnetError(f"{source}, line {number}: not id;label (the test split may have no labels)")
        yield fields[0], fields[1]


def _templates(source: Path) -> Iterator[Named]:
    """Entries whose template, without its brackets, is the label."""
    try:
        entries = json.loads(read_text(source))
    except ValueError as exc:
        raise BlvnetError(f"{source} cannot be read as JSON") from exc
    if not isinstance(entries, list):
        raise BlvnetError(f"{source} is not a list of clips")
    for number, entry in enumerate(entries):
        yield _template(source, number, entry)


def _template(source: Path, number: int, entry: Any) -> Named:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("template"), str) or "id" not in entry:
        raise BlvnetError(f"{source}: entry {number} has no id or no template")
    return str(entry["id"]), entry["template"].translate(UNBRACKETED)


def _listing(
    data: Path, release: str, source: Path, labels: tuple[str, ...], named: Iterator[Named]
) -> Listing:
    folder = find_folder(data, [f"20bn-{release}"])
    there = clips_by_id(folder)
    position = {label: index for index, label in enumerate(labels)}

    def wanted() -> Iterator[tuple[str, Clip | None]]:
        for name, label in named:
            if label not in position:
                raise BlvnetError(
                    f"{source}: clip {name} has the label {label!r}, which is not among the labels"
                )
            yield str(folder / name), Clip(there[name], position[label]) if name in there else None

    return collect(source, labels, mirrored_as_worded(labels), wanted())
