"""What the learning of a head found, as a document."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Accuracy:
    """Top-1 of `clips` clips of which `right` are right, with the Wilson interval of 95 %, as fractions."""

    clips: int
    right: int
    top1: float
    low: float
    high: float


@dataclass(frozen=True)
class Suspect:
    """A clip that the other clips label otherwise: `score` is the probability of `looks_like`."""

    name: str
    label: str
    looks_like: str
    score: float


@dataclass(frozen=True)
class CurvePoint:
    """Cross-validated top-1 when about `clips_per_label` clips of each label are learned from."""

    clips_per_label: float
    top1: float


@dataclass(frozen=True)
class UnsureThreshold:
    """Answers with a best score below `value` are unsure.

    Attributes:
        value: A probability.
        right_marked: Share of the right cross-validated answers that it marks as unsure.
        wrong_marked: Share of the wrong ones; None if there are none.
        unknown_marked: Share of clips of a label that was left out of the learning; None with two labels.
    """

    value: float
    right_marked: float
    wrong_marked: float | None
    unknown_marked: float | None


@dataclass(frozen=True)
class Validation:
    """Answers to clips that were kept apart; `unsure` are marked, and `unsure_wrong` of these are wrong."""

    accuracy: Accuracy
    confusion: tuple[tuple[int, ...], ...]
    unsure: int
    unsure_wrong: int


@dataclass(frozen=True)
class Report:
    """How good a taught model is likely to be, measured on clips that were left out of the learning.

    Attributes:
        labels: Clips of each label, in the order of the model's labels.
        groups: Number of groups; as many as clips, if each clip is its own.
        views: Views of each clip that were learned from.
        folds: Parts of the cross-validation; no group is in two.
        accuracy: Of the cross-validation.
        confusion: Clips by true label (rows) and predicted label (columns), in the order of `labels`.
        curve: Top-1 with fewer clips, ascending; the last point is `accuracy`.
        two_more: Expected change of top-1 with two more clips of each label; None if it cannot be told.
        suspects: Clips that look mislabelled, the most suspect first.
        threshold: For unsure answers.
        regularisation: Chosen strength of the L2 penalty.
        temperature: That calibrates the scores; it is folded into the weights and the bias.
        warnings: One sentence each.
        validation: Answers to clips that were kept apart; None without any.
    """

    labels: dict[str, int]
    groups: int
    views: int
    folds: int
    accuracy: Accuracy
    confusion: tuple[tuple[int, ...], ...]
    curve: tuple[CurvePoint, ...]
    two_more: float | None
    suspects: tuple[Suspect, ...]
    threshold: UnsureThreshold
    regularisation: float
    temperature: float
    warnings: tuple[str, ...]
    validation: Validation | None = None

    def to_json(self) -> dict[str, Any]:
        """The document of the manifest, of `blvnet teach --json` and of the service."""
        document: dict[str, Any] = json.loads(json.dumps(asdict(self)))  # lists for tuples
        return document
