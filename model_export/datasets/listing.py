"""What a reader of a data set gives: labelled clips, and what their labels turn into."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

# Of "right" only the direction: a label of Something-Something says "pulling it right out".
DIRECTION = re.compile(r"\b(left|right)\b(?! out\b)", re.IGNORECASE)
OPPOSITE = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}


@dataclass(frozen=True)
class Clip:
    """A video file, or a folder with the frames of one as JPEG pictures, and the index of its label.

    `span` is the first and the last picture of a folder that belong to the clip, counted from 1; None: all.
    """

    path: Path
    label: int
    span: tuple[int, int] | None = None


@dataclass(frozen=True)
class Symmetry:
    """For each label index, the index that a transformed clip has, or None where it has none.

    A clip whose entry is None must not be transformed that way: its label would be wrong afterwards.
    """

    mirrored: tuple[int | None, ...]
    reversed: tuple[int | None, ...]


@dataclass(frozen=True)
class Listing:
    """One split of a data set, in an order that is the same on every machine.

    `missing` counts the clips that the annotations name and that are not there; `clips` leaves them out.
    """

    labels: tuple[str, ...]
    clips: tuple[Clip, ...]
    symmetry: Symmetry
    missing: int = 0

    def without(self, excluded: frozenset[Path]) -> Listing:
        """The listing less some files."""
        return replace(self, clips=tuple(clip for clip in self.clips if clip.path not in excluded))


Reader = Callable[[Path, str], Listing]
"""The data's folder and the name of a split -> the clips of that split."""


def unknown_symmetry(labels: Sequence[str]) -> Symmetry:
    """Nothing is known of the labels, so nothing is mirrored or reversed."""
    nothing = (None,) * len(labels)
    return Symmetry(nothing, nothing)


def mirrored_as_worded(labels: Sequence[str]) -> Symmetry:
    """A mirror swaps "left" and "right" in a label; a label without a direction is its own mirror image.

    A label whose swapped form is not among the labels has no counterpart. Nothing is reversed: no wording
    says what an action is backwards.
    """
    counterparts = {label: DIRECTION.sub(lambda found: _opposite(found[0]), label) for label in labels}
    return Symmetry(indices(labels, counterparts), (None,) * len(labels))


def mirrored_alike(labels: Sequence[str]) -> Symmetry:
    """Every label is its own mirror image; nothing is reversed."""
    return Symmetry(tuple(range(len(labels))), (None,) * len(labels))


def indices(labels: Sequence[str], table: Mapping[str, str]) -> tuple[int | None, ...]:
    """`table` in label indices; a label whose counterpart is not among the labels has none."""
    position = {label: index for index, label in enumerate(labels)}
    return tuple(position.get(table.get(label, "")) for label in labels)


def _opposite(word: str) -> str:
    return OPPOSITE[word] if word in OPPOSITE else OPPOSITE[word.lower()]
