"""The metrics of networks: top-1, and mean average precision for videos with several labels."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt


class Metric(StrEnum):
    """A measure from 0 to 1; its value is part of names in checkpoints (`best_top1`) and in logs."""

    TOP1 = "top1"
    MAP = "map"  # mean average precision, for videos with several labels

    @classmethod
    def of(cls, *, multi_label: bool) -> Metric:
        """The measure for videos with one label each, or with several."""
        return cls.MAP if multi_label else cls.TOP1

    @property
    def shown(self) -> str:
        """The name in messages."""
        return "mAP" if self is Metric.MAP else "top-1"

    @property
    def best_key(self) -> str:
        """The name of the best value in checkpoints."""
        return f"best_{self.value}"

    @property
    def log_key(self) -> str:
        """The name in the lines of the log."""
        return f"validation_{self.value}"


def average_precisions(
    scores: npt.NDArray[np.floating[Any]], targets: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Average precision of each class: the mean, over its examples, of the precision down to their rank.

    Examples with equal scores share the last of their ranks, so the order of the examples does not matter.

    Args:
        scores: `(n, C)`.
        targets: `(n, C)` of zeros and ones.

    Returns:
        float64 `(C,)`; NaN for a class without examples.
    """
    order = np.argsort(-scores, axis=0, kind="stable")
    sorted_targets = np.take_along_axis(targets, order, axis=0)
    sorted_scores = np.take_along_axis(scores, order, axis=0)
    precision = sorted_targets.cumsum(axis=0) / np.arange(1, len(scores) + 1)[:, None]
    rows = np.arange(len(scores))[:, None]
    last = np.ones(scores.shape, np.bool_)  # whether the next score is another one
    last[:-1] = sorted_scores[1:] != sorted_scores[:-1]
    ends = np.minimum.accumulate(np.where(last, rows, len(scores))[::-1], axis=0)[::-1]
    precision = np.take_along_axis(precision, ends, axis=0)
    totals = targets.sum(axis=0)
    sums = (precision * sorted_targets).sum(axis=0)
    return np.where(totals > 0, sums / np.maximum(totals, 1), np.nan)


def mean_average_precision(scores: npt.NDArray[np.floating[Any]], targets: npt.NDArray[np.int64]) -> float:
    """Mean of `average_precisions` over the classes that have examples."""
    return float(np.nanmean(average_precisions(scores, targets)))
