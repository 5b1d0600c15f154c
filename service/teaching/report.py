"""The report on a learned head."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Accuracy:
    """Top-1 on `clips` clips, `right` of which are right, with the 95 % Wilson interval, as fractions."""

    clips: int
    right: int
    top1: float
    low: float
    high: float


@dataclass(frozen=True)
class Suspect:
    """A clip that a classifier of the other clips labels `looks_like`, with the probability `score`."""

    name: str
    label: str
    looks_like: str
    score: float


@dataclass(frozen=True)
class CurvePoint:
    """Cross-validated top-1 after learning from about `clips_per_label` clips of each label."""

    clips_per_label: float
    top1: float


@dataclass(frozen=True)
class UnsureThreshold:
    """Answers with a best score below `value` are unsure.

    Attributes:
        value: A probability.
        right_marked: Share of the right cross-validated answers that it marks as unsure.
        wrong_marked: Share of the wrong answers that it marks; None if there are none.
        unknown_marked: Share of clips of a left-out label that it marks; None with two labels.
    """

    value: float
    right_marked: float
    wrong_marked: float | None
    unknown_marked: float | None


@dataclass(frozen=True)
class Validation:
    """Answers to held-out clips; `unsure` of them are marked, and `unsure_wrong` of these are wrong."""

    accuracy: Accuracy
    confusion: tuple[tuple[int, ...], ...]
    unsure: int
    unsure_wrong: int


@dataclass(frozen=True)
class Report:
    """How good a taught model is likely to be, measured on clips that were left out of the learning.

    Attributes:
        labels: Number of clips of each label, in the order of the model's labels.
        groups: Number of groups, which is the number of clips if each clip is its own group.
        views: Number of views of each clip that were learned from.
        folds: Number of folds of the cross-validation; no group is in two folds.
        accuracy: Accuracy in the cross-validation.
        confusion: Clips by true label (rows) and predicted label (columns), in the order of `labels`.
        curve: Top-1 with fewer clips, ascending; the last point is `accuracy`.
        two_more: Expected change of top-1 with two more clips of each label; None if it cannot be estimated.
        suspects: Clips that look mislabelled, the most suspect first.
        threshold: Threshold for unsure answers.
        regularisation: Chosen strength of the L2 penalty.
        temperature: Temperature that calibrates the scores; it is folded into the weights and the bias.
        warnings: Warnings of one sentence each.
        validation: Answers to held-out clips; None without any.
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
        """Return the document for the manifest, `blvnet teach --json` and the service."""
        document: dict[str, Any] = json.loads(json.dumps(asdict(self)))  # turns tuples into lists
        return document
