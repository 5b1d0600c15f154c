"""From what was measured to what is reported: rates, multiples of the matrix product, agreement."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.bench.race import Result
from service.bench.spread import Spread
from service.contenders.contender import Arrays


@dataclass(frozen=True)
class Reference:
    """The right answer to a question, whose it is, and how far from it is still right; None: not known."""

    source: str | None
    outputs: Arrays | None = None
    bound: float | None = None


def entry(result: Result, product: Result, reference: Reference) -> dict[str, Any]:
    """All that is reported of a contender.

    Args:
        result: of the contender.
        product: of the matrix product that ran in its heat.
        reference: the right answer to the question that it was asked.
    """
    return {
        "contender": result.contender.name,
        "threads": result.contender.threads,
        "load_s": rounded(Spread.of(result.load_s).median if result.load_s else None),
        "agreement": _held_against(reference, result.outputs),
        "error": result.failure,
        "batches": list(rows(result, product)),
    }


def product_entry(product: Result) -> dict[str, Any]:
    """All that is reported of the matrix product in a heat."""
    return {"threads": product.contender.threads, "gflops": rate_spread(product), "error": product.failure}


def rate(result: Result, batch: int) -> float | None:
    """GFLOP/s by the median run; None where the operations of a clip are not known."""
    gflop = result.contender.gflop
    return None if gflop is None else gflop * batch / Spread.of(result.runs_s[batch]).median


def rate_spread(result: Result, batch: int = 1) -> dict[str, float] | None:
    """The spread of the rate in GFLOP/s over all runs; None where there is none."""
    gflop, runs_s = result.contender.gflop, result.runs_s.get(batch)
    if gflop is None or not runs_s:
        return None
    return Spread.of([gflop * batch / run_s for run_s in runs_s]).to_json()


def rows(result: Result, product: Result) -> Iterator[dict[str, Any]]:
    """A row for each batch size that was measured.

    Args:
        result: of the contender.
        product: of the matrix product that ran against it, with as many threads.
    """
    for batch, runs_s in result.runs_s.items():
        if not runs_s:
            continue
        latency = Spread.of(runs_s)
        gflops = rate(result, batch)
        yield {
            "batch": batch,
            "latency_s": latency.to_json(),
            "clips_per_s": rounded(batch / latency.median),
            "gflops": rounded(gflops),
            "times_matrix_product": rounded(multiple(result, batch, product)),
            "peak_memory_bytes": result.peak_bytes[batch],
        }


def multiple(result: Result, batch: int, product: Result) -> float | None:
    """The rate as a multiple of the matrix product's; None where one of them is not known."""
    if result.contender.gflop is None or not product.runs_s.get(1):
        return None
    mine, its = rate(result, batch), rate(product, 1)
    return None if mine is None or its is None else mine / its


def agreement(outputs: Arrays, reference: Arrays) -> dict[str, Any]:
    """How near outputs are to the reference's, over all clips.

    `difference` is the largest one of a logit, relative to the reference's largest magnitude; `same_top1` the
    share of clips with the same best label.
    """
    found, wanted = outputs["logits"], reference["logits"]
    difference = _relative(found.astype(np.float64), wanted.astype(np.float64))
    same = float(np.mean(found.argmax(axis=1) == wanted.argmax(axis=1)))
    return {"difference": rounded(difference, 3), "same_top1": same, "clips": len(wanted)}


def rounded(value: float | None, digits: int = 6) -> float | None:
    """To so many figures; None for what is no finite number, which JSON does not have."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.{digits}g}")


def _held_against(reference: Reference, outputs: Arrays | None) -> dict[str, Any] | None:
    """How near the answer is, and whether that `agrees`."""
    if reference.outputs is None or outputs is None:
        return None
    found = agreement(outputs, reference.outputs)
    bound, difference = reference.bound, found["difference"]
    agrees = None if bound is None else difference is not None and difference <= bound
    return found | {"bound": bound, "agrees": agrees}


def _relative(found: NDArray[np.float64], wanted: NDArray[np.float64]) -> float:
    largest = float(np.abs(wanted).max())
    return float(np.abs(found - wanted).max()) / (largest or 1.0)
