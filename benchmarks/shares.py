"""Shares of clips and how sure they are."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable

CONFIDENCE_Z = 1.96  # 95 %


def share(values: Iterable[bool]) -> float:
    """The share of true values."""
    return statistics.fmean(values)


def interval(right: int, of: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, which unlike the plain one stays inside [0, 1] near its ends."""
    observed, z2 = right / of, CONFIDENCE_Z**2
    middle = (observed + z2 / (2 * of)) / (1 + z2 / of)
    half = CONFIDENCE_Z * math.sqrt(observed * (1 - observed) / of + z2 / (4 * of**2)) / (1 + z2 / of)
    return middle - half, middle + half


def difference_interval(lost: int, gained: int, of: int) -> tuple[float, float]:
    """95 % interval of what a share has lost, measured on the same clips before and after.

    Clips that are right both times, or wrong both times, say nothing of a difference, so it is narrower than
    the interval of either share. One clip is added to each kind of change, or none at all would pass for
    certainty (Bonett and Price, "Adjusted Wald Confidence Interval for a Difference of Binomial Proportions
    Based on Paired Data", J. Educ. Behav. Stat. 37, 2012).

    Args:
        lost: clips that were right before alone.
        gained: clips that are right after alone.
        of: all clips.
    """
    total = of + 2
    before, after = (lost + 1) / total, (gained + 1) / total
    half = CONFIDENCE_Z * math.sqrt((before + after - (before - after) ** 2) / total)
    return max(-1.0, before - after - half), min(1.0, before - after + half)
