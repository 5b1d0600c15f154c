"""Examples to learn from: features of labelled clips, without the clips."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.errors import BlvnetError

MIN_LABELS = 2
MIN_CLIPS = 2


class TeachingError(BlvnetError):
    """The examples cannot be learned from; the message says what to change."""


@dataclass(frozen=True)
class Examples:
    """Labelled clips of one base model.

    Attributes:
        features: float32 `(n, V, T', F)`, V views of each of n clips; the first view is the one that requests
            are answered with.
        labels: n labels.
        groups: n groups; clips of a group (a person, a place, a recording) are never split by the
            cross-validation. None if each clip is its own group.
        names: n names for reports, such as file names.
        mirrored: The second half of the views are mirror images.
    """

    features: NDArray[np.float32]
    labels: Sequence[str]
    names: Sequence[str]
    groups: Sequence[str] | None = None
    mirrored: bool = False


def check_set(labels: Sequence[str]) -> None:
    """Check that a head can be learned from clips with these labels.

    Raises:
        TeachingError: labels are empty or differ only by case or spaces, there are fewer than two, or one has
            fewer than two clips.
    """
    check_labels(labels)
    counts = Counter(labels)
    if len(counts) < MIN_LABELS:
        found = f"only {next(iter(counts))!r} has clips" if counts else "there are no clips"
        raise TeachingError(f"at least {MIN_LABELS} labels are needed; {found}")
    if few := sorted(label for label, count in counts.items() if count < MIN_CLIPS):
        raise TeachingError(
            f"each label needs at least {MIN_CLIPS} clips; add clips of {', '.join(map(repr, few))}"
        )


def check_labels(labels: Sequence[str]) -> None:
    """Refuse labels that people would confuse.

    Raises:
        TeachingError: a label is empty, or two differ only by case or spaces; the message names them.
    """
    known: dict[str, str] = {}
    for label in sorted(set(labels)):
        plain = "".join(label.split()).casefold()
        if not plain:
            raise TeachingError("a label must not be empty")
        if plain in known:
            raise TeachingError(
                f"the labels {known[plain]!r} and {label!r} differ only by case or spaces; give them one name"
            )
        known[plain] = label
