"""What mirroring or reversing a video does to its label: known from the data set, never from the pixels."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.errors import BlvnetError

SYMMETRY_FILE = "symmetry.json"
TRANSFORMS = ("mirrored", "reversed")
OTHERS = "*"  # the key that stands for every label that is not in the table

# "right" only where it is a direction: a label of Something-Something says "pulling it right out".
DIRECTION = re.compile(r"\b(left|right)\b(?! out\b)", re.IGNORECASE)
OPPOSITE = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}


@dataclass(frozen=True)
class Symmetry:
    """For each label index the index after the transform, or None where the label has no counterpart.

    A video whose entry is None must not be transformed that way: its label would be wrong afterwards.
    """

    mirrored: tuple[int | None, ...]
    reversed: tuple[int | None, ...]

    def reversed_pairs(self) -> tuple[tuple[int, int], ...]:
        """Pairs of different labels that are each other's reverse, each pair once."""
        table = self.reversed
        return tuple((a, b) for a, b in enumerate(table) if b is not None and a < b and table[b] == a)


def unknown_symmetry(labels: Sequence[str]) -> Symmetry:
    """No label has a known counterpart, so nothing is mirrored or reversed."""
    unknown = (None,) * len(labels)
    return Symmetry(unknown, unknown)


def mirrored_unchanged(labels: Sequence[str]) -> Symmetry:
    """Every label is its own mirror image; nothing is reversed."""
    return Symmetry(tuple(range(len(labels))), (None,) * len(labels))


def mirrored_by_wording(labels: Sequence[str]) -> Symmetry:
    """A mirror swaps "left" and "right" in a label; a label without a direction is its own mirror image.

    A label whose swapped form is not among the labels has no counterpart. Nothing is reversed: the wording
    does not say what an action looks like backwards.
    """
    return Symmetry(label_indices(labels, swapped_directions(labels)), (None,) * len(labels))


def swapped_directions(labels: Sequence[str]) -> dict[str, str]:
    """Each label with "left" and "right" swapped."""

    def swap(word: re.Match[str]) -> str:
        return OPPOSITE[word[0]] if word[0] in OPPOSITE else OPPOSITE[word[0].lower()]

    return {label: DIRECTION.sub(swap, label) for label in labels}


def label_indices(labels: Sequence[str], table: Mapping[str, str | None]) -> tuple[int | None, ...]:
    """`table` in label indices; a label whose counterpart is not among the labels gets None."""
    position = {label: index for index, label in enumerate(labels)}
    return tuple(position.get(table.get(label) or "") for label in labels)


def read_symmetry(data: Path, labels: Sequence[str]) -> Symmetry | None:
    """Read `DATA/symmetry.json`; None if there is no such file.

        {"mirrored": {"Swipe left": "Swipe right", "Swipe right": "Swipe left", "*": "*"},
         "reversed": {"Zoom in": "Zoom out", "Zoom out": "Zoom in"}}

    Each table maps a label to the label of the transformed video, or to null. `"*": "*"` says that all labels
    that are not in the table stay unchanged; without it they have no counterpart.

    Raises:
        BlvnetError: the file cannot be read, names an unknown label, or is not its own inverse.
    """
    path = data / SYMMETRY_FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as exc:
        raise BlvnetError(f"{path} cannot be read as JSON") from exc
    if not isinstance(document, dict) or not document.keys() <= set(TRANSFORMS):
        raise BlvnetError(f"{path} must be an object whose keys are {' or '.join(TRANSFORMS)}")
    return Symmetry(*(_parse_table(path, name, document.get(name, {}), labels) for name in TRANSFORMS))


def read_mirror(path: Path, labels: Sequence[str]) -> tuple[int, ...]:
    """For each label the index of its mirror image, from a file that covers all labels.

    The file maps labels to labels, either directly or in the table `mirrored` of a `symmetry.json`.

    Raises:
        BlvnetError: the file cannot be read, lacks a label, names an unknown one, or is not its own inverse.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as exc:
        raise BlvnetError(f"{path}: the symmetry file cannot be read as JSON") from exc
    table = document.get("mirrored", document) if isinstance(document, dict) else document
    mirrored = _parse_table(path, "mirrored", table, labels)
    if unknown := [label for label, other in zip(labels, mirrored, strict=True) if other is None]:
        more = f" and {len(unknown) - 1} more labels" if len(unknown) > 1 else ""
        raise BlvnetError(
            f"{path} does not give the mirror image of {unknown[0]!r}{more}; "
            '"*": "*" says that all other labels are their own'
        )
    return tuple(index for index in mirrored if index is not None)


def _parse_table(path: Path, name: str, table: Any, labels: Sequence[str]) -> tuple[int | None, ...]:
    if not isinstance(table, dict) or not all(isinstance(other, str | None) for other in table.values()):
        raise BlvnetError(f'{path}: "{name}" must map labels to labels or null')
    rest = {label for label in labels if label not in table} if table.get(OTHERS) == OTHERS else set()
    named = {label: other for label, other in table.items() if label != OTHERS}
    for label in [*named, *named.values()]:
        if label is not None and label not in labels:
            raise BlvnetError(f'{path}: "{name}" names {label!r}, which is not among the labels')
    if table.get(OTHERS, OTHERS) != OTHERS:
        raise BlvnetError(f'{path}: the only entry for the other labels in "{name}" is "*": "*"')
    counterparts = named | {label: label for label in rest}
    for label, other in counterparts.items():
        # Without this, a video transformed twice would end up with a different label.
        if other is not None and counterparts.get(other) != label:
            raise BlvnetError(f'{path}: "{name}" maps {label!r} to {other!r}, but not {other!r} back to it')
    return label_indices(labels, counterparts)
