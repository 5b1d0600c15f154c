"""95 % intervals of accuracies and of differences between paired ones."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from model_export.export.checks.accuracy_gate import drop_bound

Z = 1.959964  # standard normal quantile of two-sided 95 % confidence
RESAMPLES = 1000

Interval = tuple[float, float]


def wilson(right: int, total: int) -> Interval:
    """Score interval of a share (Wilson, Journal of the American Statistical Association 22, 1927)."""
    share = right / total
    centre = share + Z * Z / (2 * total)
    deviation = Z * math.sqrt(share * (1 - share) / total + Z * Z / (4 * total * total))
    scale = 1 + Z * Z / total
    return max(0.0, (centre - deviation) / scale), min(1.0, (centre + deviation) / scale)


def paired_difference(only_first: int, only_second: int, total: int) -> Interval:
    """Interval of the second accuracy minus the first on the same clips (score interval of Tango, 1998).

    Args:
        only_first: clips that only the first network labels right.
        only_second: clips that only the second one labels right.
        total: all clips.
    """
    return -drop_bound(only_first, only_second, total, Z), drop_bound(only_second, only_first, total, Z)


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value of the hypothesis that both networks are right equally often."""
    total, smaller = only_first + only_second, min(only_first, only_second)
    logs = [
        math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1) - total * math.log(2)
        for k in range(smaller + 1)
    ]
    return min(1.0, 2 * sum(map(math.exp, logs)))


def bootstrap(statistic: Callable[[npt.NDArray[np.int64]], float], total: int, seed: int = 0) -> Interval:
    """Percentile interval of a statistic over resampled clips.

    Args:
        statistic: takes indices `(total,)` of clips, drawn with replacement; NaN results are left out.
        total: number of clips.
        seed: seed of the resampling; the same seed gives the same interval.
    """
    generator = np.random.default_rng(seed)
    values = [statistic(generator.integers(total, size=total)) for _ in range(RESAMPLES)]
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)
