"""Something-Something: 174 actions with everyday objects, told apart by the motion and not by the objects.

V1 ships frames, V2 videos:

    DATA/something-something-v1-labels.csv          one label per line
    DATA/something-something-v1-{train,validation}.csv      lines of "id;label"
    DATA/20bn-something-something-v1/ID/00001.jpg   12 frames per second, 100 pixels high

    DATA/something-something-v2-labels.json         {"label": "0", ...}
    DATA/something-something-v2-{train,validation}.json     [{"id", "label", "template", ...}, ...]
    DATA/20bn-something-something-v2/ID.webm

The later release of V2 has DATA/labels/{labels,train,validation}.json, and test-answers.csv, "id;label".
A mirror swaps "left" and "right" in a label.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from model_export.datasets.files import (
    find_file,
    find_folder,
    make_listing,
    read_json_list,
    read_rows,
    split_names,
    videos_by_id,
)
from model_export.datasets.labels import read_labels
from model_export.datasets.listing import Example, Listing
from model_export.datasets.symmetry import Symmetry, mirrored_by_wording
from service.errors import BlvnetError

V1 = "something-something-v1"
V2 = "something-something-v2"
BRACKETS = str.maketrans("", "", "[]")

Annotation = tuple[str, str]
"""A video's id and its label."""


def read_v1(data: Path, split: str) -> Listing:
    """Read Something-Something V1: folders of frames.

    Raises:
        BlvnetError: a file or folder is missing, or the annotations contradict each other.
    """
    labels = read_labels(find_file(data, [f"{V1}-labels.csv", "labels.csv"]))
    source = find_file(data, annotation_names(V1, split, ".csv"))
    return list_annotated(data, V1, source, labels, mirrored_by_wording(labels), read_semicolons(source))


def read_v2(data: Path, split: str) -> Listing:
    """Read Something-Something V2: videos.

    Raises:
        BlvnetError: a file or folder is missing, or the annotations contradict each other.
    """
    labels = read_labels(find_file(data, [f"{V2}-labels.json", "labels.json"]))
    symmetry = mirrored_by_wording(labels)
    if "test" in split_names(split):
        source = find_file(data, ["test-answers.csv"])
        return list_annotated(data, V2, source, labels, symmetry, read_semicolons(source))
    source = find_file(data, annotation_names(V2, split, ".json"))
    return list_annotated(data, V2, source, labels, symmetry, _read_templates(source))


def annotation_names(release: str, split: str, suffix: str) -> list[str]:
    """Possible names of the annotation file of a split."""
    names = split_names(split)
    return [f"{release}-{name}{suffix}" for name in names] + [f"{name}{suffix}" for name in names]


def read_semicolons(source: Path) -> Iterator[Annotation]:
    """Lines of `id;label`."""
    for number, fields in read_rows(source, ";"):
        if len(fields) != 2:
            raise BlvnetError(f"{source}, line {number}: not id;label (the test split may have no labels)")
        yield fields[0], fields[1]


def _read_templates(source: Path) -> Iterator[Annotation]:
    """JSON entries whose template is the label, with brackets around the objects."""
    for number, entry in enumerate(read_json_list(source, "videos")):
        if not isinstance(entry, Mapping) or not isinstance(entry.get("template"), str) or "id" not in entry:
            raise BlvnetError(f"{source}: entry {number} has no id or no template")
        yield str(entry["id"]), entry["template"].translate(BRACKETS)


def list_annotated(
    data: Path,
    release: str,
    source: Path,
    labels: tuple[str, ...],
    symmetry: Symmetry,
    annotations: Iterator[Annotation],
) -> Listing:
    """List the annotated videos, or folders of frames, in `DATA/20bn-RELEASE`.

    Raises:
        BlvnetError: the folder is missing, an annotation has another label, or no annotated video exists.
    """
    folder = find_folder(data, [f"20bn-{release}"])
    videos = videos_by_id(folder)
    index = {label: position for position, label in enumerate(labels)}

    def annotated() -> Iterator[tuple[str, Example | None]]:
        for name, label in annotations:
            if label not in index:
                raise BlvnetError(
                    f"{source}: video {name} has the label {label!r}, which is not among the labels"
                )
            yield str(folder / name), Example(videos[name], index[label]) if name in videos else None

    return make_listing(source, labels, symmetry, annotated())
