"""Proportions with confidence intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable

CONFIDENCE_Z = 1.96  # 95 %


def share(values: Iterable[bool]) -> float:
    """The proportion of true values."""
    return statistics.fmean(values)


def interval(right: int, of: int) -> tuple[float, float]:
    """The Wilson 95 % interval of a proportion, which stays within [0, 1]."""
    observed, z2 = right / of, CONFIDENCE_Z**2
    middle = (observed + z2 / (2 * of)) / (1 + z2 / of)
    half = CONFIDENCE_Z * math.sqrt(observed * (1 - observed) / of + z2 / (4 * of**2)) / (1 + z2 / of)
    return middle - half, middle + half


def difference_interval(lost: int, gained: int, of: int) -> tuple[float, float]:
    """95 % interval of the decrease of a proportion, measured on the same clips before and after.

    Only clips whose result changes contribute, so this interval is narrower than those of the two
    proportions. One clip is added to each kind of change, because otherwise no changes at all would give an
    interval of width zero (Bonett and Price, "Adjusted Wald Confidence Interval for a Difference of Binomial
    Proportions Based on Paired Data", J. Educ. Behav. Stat. 37, 2012).

    Args:
        lost: number of clips that were correct only before.
        gained: number of clips that are correct only after.
        of: number of all clips.
    """
    total = of + 2
    before, after = (lost + 1) / total, (gained + 1) / total
    half = CONFIDENCE_Z * math.sqrt((before + after - (before - after) ** 2) / total)
    return max(-1.0, before - after - half), min(1.0, before - after + half)
