"""Medians and how far the values lie apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True)
class Spread:
    """Of measured values, in their unit; `count` says of how many."""

    count: int
    minimum: float
    lower_quartile: float
    median: float
    upper_quartile: float
    maximum: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of one value at least."""
        return cls(len(values), *(float(value) for value in np.percentile(values, (0, 25, 50, 75, 100))))

    def to_json(self) -> dict[str, float]:
        """Six figures are more than was measured."""
        return {
            name: float(f"{value:.6g}") if name != "count" else value for name, value in asdict(self).items()
        }
