"""Memory growth with its uncertainty. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MINUTE_S = 60.0
BLOCKS = 15
CONFIDENCE_ERRORS = 2.0  # standard errors


@dataclass(frozen=True)
class Slope:
    """Slope of a fitted line and its standard error, both per minute."""

    per_minute: float
    error: float

    @property
    def lower_bound(self) -> float:
        """The slope minus two standard errors."""
        return self.per_minute - CONFIDENCE_ERRORS * self.error


def slope(times_s: Sequence[float], values: Sequence[float], blocks: int = BLOCKS) -> Slope:
    """Fit a line to the means of `blocks` equal time intervals by least squares.

    Consecutive samples are correlated (a worker grows until it is recycled), so treating them as independent
    would underestimate the error.

    Raises:
        ValueError: there are fewer samples than blocks, or fewer than three blocks.
    """
    if not 3 <= blocks <= len(times_s):
        raise ValueError(f"{len(times_s)} samples are too few for {blocks} blocks; at least three are needed")
    x = np.array([part.mean() for part in np.array_split(np.asarray(times_s) / MINUTE_S, blocks)])
    y = np.array([part.mean() for part in np.array_split(np.asarray(values, np.float64), blocks)])
    spread = ((x - x.mean()) ** 2).sum()
    per_minute = float(((x - x.mean()) * (y - y.mean())).sum() / spread)
    left = y - y.mean() - per_minute * (x - x.mean())
    return Slope(per_minute, math.sqrt(float((left**2).sum()) / (blocks - 2) / float(spread)))
