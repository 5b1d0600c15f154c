"""Figures of a soak: how memory moved, with the uncertainty of that. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MINUTE_S = 60.0
BLOCKS = 15
SURE = 2.0  # standard errors


@dataclass(frozen=True)
class Slope:
    """A straight line's slope and the standard error of it, both for a minute."""

    per_minute: float
    error: float

    @property
    def surely(self) -> float:
        """The least that it is, with some certainty."""
        return self.per_minute - SURE * self.error


def slope(times_s: Sequence[float], values: Sequence[float], blocks: int = BLOCKS) -> Slope:
    """Least squares over the means of `blocks` equal parts of the time.

    Samples that follow each other closely are alike (a worker grows until it is replaced), so counted one by
    one they would promise more certainty than there is.

    Raises:
        ValueError: there are fewer samples than blocks, or fewer than three blocks.
    """
    if not 3 <= blocks <= len(times_s):
        raise ValueError(f"{len(times_s)} samples do not make {blocks} blocks, three at least")
    x = np.array([part.mean() for part in np.array_split(np.asarray(times_s) / MINUTE_S, blocks)])
    y = np.array([part.mean() for part in np.array_split(np.asarray(values, np.float64), blocks)])
    spread = ((x - x.mean()) ** 2).sum()
    per_minute = float(((x - x.mean()) * (y - y.mean())).sum() / spread)
    left = y - y.mean() - per_minute * (x - x.mean())
    return Slope(per_minute, math.sqrt(float((left**2).sum()) / (blocks - 2) / float(spread)))
