"""Lists of paths with label indices, as the authors of bLVNet-TAM keep their data.

    DATA/train.txt, DATA/val.txt        lines of "path start end label" or "path label"; with several labels
                                        "path 3,17", "path start end 3,17" or "path start end 3 17"
    DATA/labels.txt or labels.json      optional: the names of the labels
    DATA/symmetry.json                  optional: see `model_export.datasets.symmetry`
    DATA/groups.csv                     optional: see `model_export.datasets.groups`

Fields are separated by spaces, or by semicolons where paths contain spaces. Paths are relative to DATA. With
`start` and `end`, the numbers of the first and last picture, the path is a folder of JPEG pictures; without
them, it is a video or such a folder. Labels count from 0, or from 1 as in the lists of UCF101.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from model_export.datasets.files import (
    SPLITS,
    PathIndex,
    find_file,
    look_for,
    make_listing,
    read_lines,
    split_names,
)
from model_export.datasets.groups import with_groups
from model_export.datasets.labels import read_label_file
from model_export.datasets.listing import Example, Listing
from model_export.datasets.symmetry import read_symmetry, unknown_symmetry
from service.errors import BlvnetError
from service.packages.manifest import MAX_LABELS

LABEL_FILES = ("labels.txt", "labels.json", "labels.csv")
# Endings of the lists' names; the authors' tools also write `_256.txt`.
ENDINGS = (".txt", "_256.txt")


def read_list(data: Path, split: str) -> Listing:
    """Read a split of a data set in lists; labels without names are named by their number.

    Raises:
        BlvnetError: the list is missing or unreadable, or no listed video exists.
    """
    source = find_file(data, _list_names(split))
    examples = list(_read_examples(data, source))
    labels, first, multi_label = _read_labels(data)
    last = first + len(labels) - 1
    for item in examples:
        outside = [label for label in item.labels if not first <= label <= last]
        if outside:
            raise BlvnetError(
                f"{source}: {item.path} has label {outside[0]}; labels run from {first} to {last}"
            )
    existing = PathIndex()
    annotated = (
        (str(item.path), _counted_from_zero(item, first) if item.path in existing else None)
        for item in examples
    )
    symmetry = read_symmetry(data, labels) or unknown_symmetry(labels)
    listing = make_listing(source, labels, symmetry, annotated, multi_label=multi_label)
    listing = replace(listing, examples=with_groups(data, listing.examples))
    return replace(listing, notes=(f"{source} counts labels from 1",)) if first else listing


def _counted_from_zero(item: Example, first: int) -> Example:
    return replace(item, label=item.label - first, others=tuple(label - first for label in item.others))


def _list_names(split: str) -> list[str]:
    return [name + ending for name in split_names(split) for ending in ENDINGS]


def _read_labels(data: Path) -> tuple[tuple[str, ...], int, bool]:
    """The labels, the number that the lists give to the first, 0 or 1, and whether videos may have several.

    The lists of all splits are considered, because a validation list may happen to lack the first label, or
    to have one label on each line.
    """
    lists = [path for split in SPLITS if (path := look_for(data, _list_names(split))) is not None]
    examples = [example for path in lists for example in _read_examples(data, path)]
    used = {label for example in examples for label in example.labels}
    several = any(example.others for example in examples)
    path = look_for(data, LABEL_FILES)
    if path is None:
        if max(used, default=0) > MAX_LABELS:
            raise BlvnetError(
                f"{data}: a list has the label {max(used)}, and a network has at most {MAX_LABELS} labels"
            )
        first = 1 if min(used, default=0) == 1 else 0
        return tuple(str(number) for number in range(first, max(used, default=-1) + 1)), first, several
    file = read_label_file(path)
    from_one = 0 not in used and (file.first_index == 1 or len(file.labels) in used)
    return file.labels, 1 if from_one else 0, several


def _read_examples(data: Path, source: Path) -> Iterator[Example]:
    """Examples with the labels as they are numbered in the file."""
    for number, line in enumerate(read_lines(source), start=1):
        if not line.strip():
            continue
        path, *fields = (field.strip() for field in (line.split(";") if ";" in line else line.split()))
        # The authors' lists have several labels in fields of their own.
        frames, given = (fields[:2], fields[2:]) if len(fields) > 1 else ([], fields)
        numbers = [_number(label) for field in given for label in field.split(",")]
        labels = list(dict.fromkeys(numbers)) or [-1]
        others = tuple(labels[1:])
        match [_number(field) for field in frames]:
            case [] if min(labels) >= 0:
                yield Example(data / path, labels[0], others=others)
            case [start, end] if min(labels) >= 0 and 1 <= start <= end:
                yield Example(data / path, labels[0], (start, end), others)
            case _:
                raise BlvnetError(
                    f"{source}, line {number}: not path start end label, nor path label, with start from 1 "
                    "and label from 0"
                )


def _number(text: str) -> int:
    """A number of at most 18 digits, because Python converts a few thousand at most; -1 for other text."""
    return int(text) if text.isdecimal() and len(text) <= 18 else -1
