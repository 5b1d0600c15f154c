"""Calibrated probabilities of clips that were left out of the learning, and the threshold for `unsure`."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from service.teaching.report import Accuracy, UnsureThreshold

Floats = NDArray[np.float64]

TEMPERATURES = np.geomspace(0.05, 20.0, 121)
# The threshold marks at most this share of the right answers as unsure.
MAX_RIGHT_MARKED = 0.1
NORMAL_95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


def softmax(logits: Floats) -> Floats:
    """Probabilities over the last axis."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))


def log_loss(logits: Floats, classes: NDArray[np.int64], weights: Floats) -> float:
    """Return the weighted mean cross entropy of `logits (n, C)`, for targets a little below 1.

    A class of m clips has the target (m + 1) / (m + 2), as in Platt scaling (1999): even if all of a few
    clips are right, the next one may be wrong.
    """
    count, size = logits.shape
    rest = 1 / (count / size + 2)
    shifted = logits - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1, keepdims=True)) - shifted
    own = losses[np.arange(count), classes]
    others = (losses.sum(axis=1) - own) / max(1, size - 1)
    return float((weights * ((1 - rest) * own + rest * others)).sum() / weights.sum())


def best_temperature(logits: Floats, classes: NDArray[np.int64], weights: Floats) -> tuple[float, float]:
    """Return the temperature with the least `log_loss`, and that loss (Guo et al., arXiv 1706.04599)."""
    losses = [log_loss(logits / temperature, classes, weights) for temperature in TEMPERATURES]
    best = int(np.argmin(losses))
    return float(TEMPERATURES[best]), losses[best]


def accuracy_of(right: int, clips: int) -> Accuracy:
    """Return top-1 with the 95 % Wilson score interval (Wilson, 1927), which is also valid for few clips."""
    share, square = right / clips, NORMAL_95**2
    centre = (share + square / (2 * clips)) / (1 + square / clips)
    half = NORMAL_95 * math.sqrt(share * (1 - share) / clips + square / (4 * clips**2)) / (1 + square / clips)
    return Accuracy(clips, right, share, max(0.0, centre - half), min(1.0, centre + half))


def unsure_threshold(right: Floats, wrong: Floats, unknown: Floats) -> UnsureThreshold:
    """Return the score that best separates right answers from the others.

    It maximises the share of right answers above it plus the share of other answers below it (Youden, 1950),
    and marks at most a share of `MAX_RIGHT_MARKED` of the right answers.

    Args:
        right: best scores of right answers.
        wrong: best scores of wrong answers.
        unknown: best scores of clips whose label was left out of the learning.
    """
    others = np.concatenate([wrong, unknown])
    candidates = np.unique(np.concatenate([right, others, [0.0]]))
    allowed = [value for value in candidates if _below(right, value) <= MAX_RIGHT_MARKED]
    value = max(allowed, key=lambda value: (_below(others, value) - _below(right, value), -value))
    return UnsureThreshold(
        value=float(value),
        right_marked=_below(right, value),
        wrong_marked=_below(wrong, value) if len(wrong) else None,
        unknown_marked=_below(unknown, value) if len(unknown) else None,
    )


def _below(scores: Floats, value: float) -> float:
    """Return the share of `scores` that are lower than `value`; 0 without scores."""
    return float((scores < value).mean()) if len(scores) else 0.0
