"""Label files: the names of the classes, in the order of the network's outputs.

The format is recognised by content, not by the file's name:

- text with one label per line, quoted or not: Something-Something V1 (`something-something-v1-labels.csv`,
  whose labels contain commas), Kinetics label maps (which quote labels with an apostrophe);
- text with a label and its index on each line, in either order, separated by a comma, tab, semicolon or
  space, with or without a header: Moments in Time (`moments_categories.txt`), Kinetics CSVs (`id,name`),
  UCF101 (`classInd.txt`, counted from 1);
- a JSON list of labels: `blvnet synth`;
- a JSON object `{"label": "0", ...}`, as Something-Something V2 ships it, or `{"0": "label", ...}`.

Indices count from 0 or from 1 and leave no gap.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from service.errors import BlvnetError
from service.packages.manifest import MAX_LABELS

INDEX = re.compile(r"\d{1,9}", re.ASCII)
QUOTED = re.compile(r'"((?:[^"]|"")*)"')
SHOWN = 3  # how many offending labels or indices a message lists

Numbered = tuple[int, str]
"""An index and its label."""


class LabelsError(BlvnetError):
    """A label file that cannot be read, or does not name each class once."""


@dataclass(frozen=True)
class LabelFile:
    """The labels of a file, and its first index: 0 or 1, or None for a file without indices."""

    labels: tuple[str, ...]
    first_index: int | None


def read_labels(path: Path) -> tuple[str, ...]:
    """Read a label file; label i names output i.

    Raises:
        LabelsError: as `read_label_file`.
    """
    return read_label_file(path).labels


def read_label_file(path: Path) -> LabelFile:
    """Read a label file, and whether it counts from 0 or 1.

    Raises:
        LabelsError: the file cannot be read, is empty, repeats a label, or its indices have gaps.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as exc:
        raise LabelsError(f"{path}: the label file cannot be read ({exc.strerror})") from exc
    except UnicodeDecodeError as exc:
        raise LabelsError(f"{path}: the label file is not UTF-8 text") from exc
    try:
        parsed = _parse_json(text) if text.lstrip().startswith(("[", "{")) else _parse_text(text)
        return LabelFile(checked(parsed.labels), parsed.first_index)
    except LabelsError as exc:
        raise LabelsError(f"{path}: {exc.message}") from exc
    except csv.Error as exc:
        raise LabelsError(f"{path}: the label file cannot be read as text or CSV ({exc})") from exc


def checked(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the labels if they are valid for a package.

    Raises:
        LabelsError: there are none or too many, or one is empty or repeated.
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
    """Check that there is one label for each class of the network.

    Raises:
        LabelsError: there are more or fewer; the message names `source`.
    """
    if len(labels) != classes:
        raise LabelsError(
            f"{source} has {len(labels)} labels, the checkpoint's network has {classes} classes"
        )


def check_same(network: Sequence[str], dataset: Sequence[str]) -> None:
    """Check that a network and a data set have the same labels in the same order.

    Raises:
        LabelsError: they differ; the message names the first difference.
    """
    if len(network) != len(dataset):
        raise LabelsError(f"the network has {len(network)} labels, the data set {len(dataset)}")
    for index, (own, other) in enumerate(zip(network, dataset, strict=True)):
        if own != other:
            raise LabelsError(f"label {index} is {own!r} in the network and {other!r} in the data set")


def _parse_json(text: str) -> LabelFile:
    try:
        # Plain `json` keeps the last of two equal keys, which would drop a class silently.
        document = json.loads(text, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as exc:
        raise LabelsError("the label file starts like JSON, but is not") from exc
    if isinstance(document, list):
        if not all(isinstance(label, str) for label in document):
            raise LabelsError("the list of labels contains something that is not a string")
        return LabelFile(tuple(document), None)
    if document and all(INDEX.fullmatch(key) for key in document):
        pairs = list(document.items())
    else:
        pairs = [(str(index), label) for label, index in document.items() if not isinstance(index, bool)]
    if len(pairs) != len(document) or not all(
        isinstance(label, str) and INDEX.fullmatch(index) for index, label in pairs
    ):
        raise LabelsError("the label object must map labels to indices, or indices to labels")
    return _in_order([(int(index), str(label)) for index, label in pairs])


def _unique_keys(pairs: list[tuple[str, object]]) -> Mapping[str, object]:
    _refuse_repeated("label", (key for key, _ in pairs))
    return dict(pairs)


def _parse_text(text: str) -> LabelFile:
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    for delimiter in (",", "\t", ";"):
        rows = list(csv.reader(lines, delimiter=delimiter))
        last = [(row[-1], delimiter.join(row[:-1])) for row in rows]
        first = [(row[0], delimiter.join(row[1:])) for row in rows]
        for numbered in (_numbered(last), _numbered(first)):
            if numbered is not None:
                return _in_order(numbered)
    last = [(line.split()[-1], line.rpartition(line.split()[-1])[0]) for line in lines]
    first = [(line.split()[0], line.partition(line.split()[0])[2]) for line in lines]
    for numbered in (_numbered(last), _numbered(first)):
        # "apple 0", "pear 1" have an index; "Level 1", "Level 2" are labels that end with a number.
        if numbered is not None and len({label for _, label in numbered}) == len(numbered):
            try:
                return _in_order(numbered)
            except LabelsError as exc:
                hint = "use a JSON list if the numbers belong to the labels"
                raise LabelsError(f"{exc.message}; {hint}") from exc
    if lines and all(";" in line for line in lines):
        raise LabelsError("the lines look like a table, but no column has the indices 0, 1, ...")
    if lines and all(len(line) > 1 and line[0] == line[-1] == "'" for line in lines):
        lines = [line[1:-1] for line in lines]
    return LabelFile(tuple(_unquoted(line) for line in lines), None)


def _numbered(rows: Sequence[tuple[str, str]]) -> list[Numbered] | None:
    """Read rows of an index and a label; None if a row has another form. The first row may be a header."""

    def is_numbered(row: tuple[str, str]) -> bool:
        return INDEX.fullmatch(row[0].strip()) is not None and bool(row[1].strip())

    body = rows[1:] if len(rows) > 1 and rows[0][1] and not is_numbered(rows[0]) else rows
    if not body or not all(is_numbered(row) for row in body):
        return None
    return [(int(index), _unquoted(label.strip())) for index, label in body]


def _unquoted(label: str) -> str:
    quoted = QUOTED.fullmatch(label)
    if quoted is not None:
        return quoted[1].replace('""', '"').strip()
    if label.startswith('"') or "\t" in label:
        raise LabelsError(f"the line {label!r} is neither a label nor a label and its index")
    return label


def _in_order(numbered: Sequence[Numbered]) -> LabelFile:
    """Labels by index.

    Raises:
        LabelsError: the indices do not run from 0, or from 1, without gaps.
    """
    _refuse_repeated("index", (str(index) for index, _ in numbered))
    labels = dict(numbered)
    first = 1 if 0 not in labels and len(numbered) in labels else 0
    indices = range(first, first + len(numbered))
    missing = [index for index in indices[:MAX_LABELS] if index not in labels]
    if missing:
        raise LabelsError(
            f"indices must run from {first} to {indices[-1]}; there is none for {_some(missing)}"
        )
    return LabelFile(tuple(labels[index] for index in indices), first if numbered else None)


def _refuse_repeated(what: str, values: Iterable[str]) -> None:
    repeated = [value for value, count in Counter(values).items() if count > 1]
    if repeated:
        raise LabelsError(f"the {what} {_some([repr(value) for value in repeated])} is there more than once")


def _some(values: Sequence[object]) -> str:
    shown = ", ".join(str(value) for value in values[:SHOWN])
    return shown if len(values) <= SHOWN else f"{shown} and {len(values) - SHOWN} more"
