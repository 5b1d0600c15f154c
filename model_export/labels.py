"""Label files: the names of the classes, in the order of the network's outputs.

What is read, told apart by content and not by the file's name:

- text, one label a line, in quotes or not: Something-Something V1 (`something-something-v1-labels.csv`, whose
  labels hold commas), Kinetics label maps (which quote the labels with an apostrophe);
- lines of `label,index` or `index,label`, with or without a header: Moments in Time
  (`moments_categories.txt`), Kinetics CSVs (`id,name`);
- a JSON list of labels: `blvnet synth`;
- a JSON object `{"label": "0", ...}`, as Something-Something V2 ships it, or `{"0": "label", ...}`.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from service.errors import BlvnetError
from service.manifest import MAX_LABELS

INDEX = re.compile(r"\d{1,9}", re.ASCII)
SHOWN = 3  # how many offending labels or indices a message names


class LabelsError(BlvnetError):
    """A label file that cannot be read, or that is not one label for each class."""


def check_same(ours: Sequence[str], theirs: Sequence[str]) -> None:
    """Raise `LabelsError` unless the network's labels are those of the data set, in the same order."""
    if len(ours) != len(theirs):
        raise LabelsError(f"the network has {len(ours)} labels, the data set {len(theirs)}")
    for index, (own, other) in enumerate(zip(ours, theirs, strict=True)):
        if own != other:
            raise LabelsError(f"label {index} is {own!r} to the network and {other!r} in the data set")


def read_labels(path: Path) -> tuple[str, ...]:
    """Read a label file; label i is the name of output i.

    Raises:
        LabelsError: the file cannot be read, is empty, repeats a label, or its indices are not 0 .. C - 1.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as exc:
        raise LabelsError(f"{path}: the label file cannot be read ({exc.strerror})") from exc
    except UnicodeDecodeError as exc:
        raise LabelsError(f"{path}: the label file is not UTF-8 text") from exc
    try:
        return checked(_parse(text))
    except LabelsError as exc:
        raise LabelsError(f"{path}: {exc.message}") from exc


def checked(labels: Sequence[str]) -> tuple[str, ...]:
    """Labels as a package takes them.

    Raises:
        LabelsError: there is none, there are too many, one is empty or there more than once.
    """
    if not labels:
        raise LabelsError("there are no labels")
    if len(labels) > MAX_LABELS:
        raise LabelsError(f"{len(labels)} labels are more than {MAX_LABELS}")
    if not all(label.strip() for label in labels):
        raise LabelsError("a label is empty")
    _refuse_repeated("label", labels)
    return tuple(labels)


def check_count(labels: Sequence[str], classes: int, source: str) -> None:
    """Check that there is one label for each of the network's classes.

    Raises:
        LabelsError: there are more or fewer; the message names `source`.
    """
    if len(labels) != classes:
        raise LabelsError(
            f"{source} has {len(labels)} labels, the checkpoint's network has {classes} classes"
        )


def _parse(text: str) -> list[str]:
    if text.lstrip().startswith(("[", "{")):
        return _parse_json(text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return _parse_indexed(lines) or [_unquoted(line) for line in lines]


def _unquoted(line: str) -> str:
    fields = next(csv.reader([line]))
    return fields[0].strip() if len(fields) == 1 and line.startswith('"') else line


def _parse_json(text: str) -> list[str]:
    try:
        document = json.loads(text, object_pairs_hook=_unique_keys)
    except ValueError as exc:
        raise LabelsError("the label file starts like JSON, but is not") from exc
    if isinstance(document, list):
        if not all(isinstance(label, str) for label in document):
            raise LabelsError("the list of labels holds something that is not a string")
        return document
    return _parse_object(document)


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object whose keys are checked: `json` would keep the last of two equal labels and say nothing."""
    _refuse_repeated("label", (key for key, _ in pairs))
    return dict(pairs)


def _parse_object(document: Mapping[str, object]) -> list[str]:
    """`{"0": label}` where every key is a number, else `{label: "0"}` or `{label: 0}`."""
    if document and all(INDEX.fullmatch(key) for key in document):
        pairs = [(key, label) for key, label in document.items()]
    else:
        pairs = [(str(index), label) for label, index in document.items() if not isinstance(index, bool)]
    if len(pairs) != len(document) or not all(
        isinstance(label, str) and INDEX.fullmatch(index) for index, label in pairs
    ):
        raise LabelsError("the label object must map labels to indices, or indices to labels")
    return _in_order([(int(index), str(label)) for index, label in pairs])


def _parse_indexed(lines: Sequence[str]) -> list[str] | None:
    """Labels of `label,index` or `index,label` lines; None where the lines are labels themselves.

    Every line must have its index on the same side; only the first may have none, as a header. A label may
    hold commas of its own.
    """
    rows = list(csv.reader(lines))
    for side in (-1, 0):
        header = bool(rows) and len(rows[0]) > 1 and not _has_index(rows[0], side)
        body = rows[1:] if header else rows
        if body and all(_has_index(row, side) for row in body):
            return _in_order([_index_and_label(row, side) for row in body])
    return None


def _has_index(row: Sequence[str], side: int) -> bool:
    return len(row) > 1 and INDEX.fullmatch(row[side].strip()) is not None


def _index_and_label(row: Sequence[str], side: int) -> tuple[int, str]:
    rest = row[:-1] if side else row[1:]
    return int(row[side]), ",".join(rest).strip()


def _in_order(pairs: Sequence[tuple[int, str]]) -> list[str]:
    _refuse_repeated("index", (str(index) for index, _ in pairs))
    labels = dict(pairs)
    missing = [index for index in range(min(len(pairs), MAX_LABELS)) if index not in labels]
    if missing:
        raise LabelsError(f"indices must run from 0 to {len(pairs) - 1}; there is none for {_some(missing)}")
    return [labels[index] for index in range(len(pairs))]


def _refuse_repeated(what: str, values: Iterable[str]) -> None:
    repeated = [value for value, count in Counter(values).items() if count > 1]
    if repeated:
        raise LabelsError(f"the {what} {_some([repr(value) for value in repeated])} is there more than once")


def _some(values: Sequence[object]) -> str:
    shown = ", ".join(str(value) for value in values[:SHOWN])
    return shown if len(values) <= SHOWN else f"{shown} and {len(values) - SHOWN} more"
