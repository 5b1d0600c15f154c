"""The listing of a split: its labels, its labelled examples, and the symmetry of its labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from model_export.datasets.symmetry import Symmetry


@dataclass(frozen=True)
class Example:
    """A labelled video.

    Attributes:
        path: a video file, or a folder with the video's frames as JPEG pictures.
        label: index of its label.
        span: first and last picture of the folder that belong to the video, counted from 1; None for all.
        others: further labels, in a multi-label data set.
        group: its group of videos that belong together, such as those of one person; None if unknown.
    """

    path: Path
    label: int
    span: tuple[int, int] | None = None
    others: tuple[int, ...] = ()
    group: str | None = None

    @property
    def labels(self) -> tuple[int, ...]:
        """All labels."""
        return (self.label, *self.others)


@dataclass(frozen=True)
class Listing:
    """One split of a data set, in an order that is the same on every machine.

    Attributes:
        labels: names of the classes.
        examples: the videos that are on disk.
        symmetry: what mirroring and reversing do to each label.
        missing: number of annotated videos that are not on disk.
        notes: other remarks about the split for the user, one line each.
        multi_label: whether a video may have several labels.
    """

    labels: tuple[str, ...]
    examples: tuple[Example, ...]
    symmetry: Symmetry
    missing: int = 0
    notes: tuple[str, ...] = ()
    multi_label: bool = False

    def only(self, indices: Sequence[int]) -> Listing:
        """Return the listing with these of its examples."""
        return replace(self, examples=tuple(self.examples[index] for index in indices))

    def unused_labels(self) -> tuple[str, ...]:
        """Labels that no example has."""
        used = {label for example in self.examples for label in example.labels}
        return tuple(label for index, label in enumerate(self.labels) if index not in used)


Reader = Callable[[Path, str], Listing]
"""Reads one split: the data set's folder and the name of the split -> its listing."""
