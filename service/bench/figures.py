"""Figures of measurements: rates, multiples of the matrix product, agreement of outputs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from service.bench.measurement import WorkloadResult
from service.subprocesses.workload import Arrays

DIGITS = 6  # more than the precision of any measurement here


@dataclass(frozen=True)
class ExpectedOutputs:
    """Outputs to compare with, their source, and the largest difference allowed; None if unknown."""

    source: str | None
    outputs: Arrays | None = None
    bound: float | None = None


@dataclass(frozen=True)
class Spread:
    """Distribution of `count` measured values, in their unit."""

    count: int
    minimum: float
    lower_quartile: float
    median: float
    upper_quartile: float
    maximum: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return cls(len(values), *(float(value) for value in np.percentile(values, (0, 25, 50, 75, 100))))

    def to_json(self) -> dict[str, float]:
        """Rounded to `DIGITS` significant digits."""
        return {
            name: value if name == "count" else float(f"{value:.{DIGITS}g}")
            for name, value in asdict(self).items()
        }


def entry(result: WorkloadResult, product: WorkloadResult, expected: ExpectedOutputs) -> dict[str, Any]:
    """Return the report of a workload.

    Args:
        result: Measurements of the workload.
        product: Measurements of the matrix product in the same group.
        expected: The outputs that the workload should have computed for the sample.
    """
    compared: dict[str, Any] | None = None
    if expected.outputs is not None and result.outputs is not None:
        compared = agreement(result.outputs, expected.outputs)
        bound, difference = expected.bound, compared["difference"]
        agrees = None if bound is None else difference is not None and difference <= bound
        compared |= {"bound": bound, "agrees": agrees}
    return {
        "contender": result.workload.name,
        "threads": result.workload.threads,
        "load_s": rounded(Spread.of(result.load_s).median if result.load_s else None),
        "agreement": compared,
        "error": result.failure,
        "batches": list(rows(result, product)),
    }


def product_entry(product: WorkloadResult) -> dict[str, Any]:
    """Return the report of the matrix product of a group."""
    return {
        "threads": product.workload.threads,
        "gflops": rate_spread(product),
        "error": product.failure,
    }


def rate(result: WorkloadResult, batch: int) -> float | None:
    """GFLOP/s of the median run; None if the operations of a clip are unknown."""
    gflop = result.workload.gflop
    return None if gflop is None else gflop * batch / Spread.of(result.runs_s[batch]).median


def rate_spread(result: WorkloadResult, batch: int = 1) -> dict[str, float] | None:
    """Spread of GFLOP/s over all runs; None if unknown."""
    gflop, runs_s = result.workload.gflop, result.runs_s.get(batch)
    if gflop is None or not runs_s:
        return None
    return Spread.of([gflop * batch / run_s for run_s in runs_s]).to_json()


def rows(result: WorkloadResult, product: WorkloadResult) -> Iterator[dict[str, Any]]:
    """A row of figures for each measured batch size; `product` as in `entry`."""
    for batch, runs_s in result.runs_s.items():
        if not runs_s:
            continue
        latency = Spread.of(runs_s)
        yield {
            "batch": batch,
            "latency_s": latency.to_json(),
            "clips_per_s": rounded(batch / latency.median),
            "gflops": rounded(rate(result, batch)),
            "times_matrix_product": rounded(multiple(result, batch, product)),
            "peak_memory_bytes": result.peak_bytes[batch],
        }


def multiple(result: WorkloadResult, batch: int, product: WorkloadResult) -> float | None:
    """The rate as a multiple of the matrix product's; None if one of them is unknown."""
    if result.workload.gflop is None or not product.runs_s.get(1):
        return None
    own, reference = rate(result, batch), rate(product, 1)
    return None if own is None or reference is None else own / reference


def agreement(outputs: Arrays, expected: Arrays) -> dict[str, Any]:
    """Compare logits over all clips.

    `difference` is the largest difference relative to the largest expected magnitude, `same_top1` the share
    of clips with the same top label.
    """
    actual, wanted = outputs["logits"].astype(np.float64), expected["logits"].astype(np.float64)
    difference = float(np.abs(actual - wanted).max()) / (float(np.abs(wanted).max()) or 1.0)
    same = float(np.mean(actual.argmax(axis=1) == wanted.argmax(axis=1)))
    return {"difference": rounded(difference, 3), "same_top1": same, "clips": len(wanted)}


def rounded(value: float | None, digits: int = DIGITS) -> float | None:
    """Round to significant digits; None for values that are not finite, which JSON cannot represent."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.{digits}g}")
