"""Rates, multiples and agreement from runs of known duration."""

from __future__ import annotations

import numpy as np
import pytest

from service.bench.figures import Spread, agreement, rate_spread, rows
from service.bench.machine import GFLOP, SIZE, matrix_product
from service.bench.measurement import Plan, WorkloadResult, measure_groups
from service.subprocesses.workload import Arrays, Workload


def result(gflop: float | None, runs_s: dict[int, list[float]]) -> WorkloadResult:
    workload = Workload("it", "nowhere:nothing", {}, 1, tuple(runs_s), gflop)
    return WorkloadResult(workload, [1.0], runs_s, dict.fromkeys(runs_s, 1000))


def logits(*rows: list[float]) -> Arrays:
    return {"logits": np.array(rows, np.float32)}


def test_row_has_median_rate_and_multiple() -> None:
    product = result(10.0, {1: [0.1, 0.2, 0.1]})  # 100 per second
    [row] = rows(result(3.0, {4: [0.05, 0.04, 0.9]}), product)
    assert row["batch"] == 4
    assert row["latency_s"]["median"] == 0.05
    assert row["clips_per_s"] == 80
    assert row["gflops"] == 240
    assert row["times_matrix_product"] == 2.4
    assert row["peak_memory_bytes"] == 1000


def test_rates_are_none_for_unknown_costs() -> None:
    [row] = rows(result(None, {1: [0.5]}), result(10.0, {1: [0.1]}))
    assert (row["clips_per_s"], row["gflops"], row["times_matrix_product"]) == (2, None, None)


def test_multiple_is_none_when_the_matrix_product_failed() -> None:
    [row] = rows(result(1.0, {1: [0.5]}), result(10.0, {}))
    assert (row["gflops"], row["times_matrix_product"]) == (2, None)


def test_batch_size_that_was_never_repeated_has_no_row() -> None:
    assert [row["batch"] for row in rows(result(1.0, {1: [0.5], 2: []}), result(1.0, {1: [1.0]}))] == [1]


def test_spread_has_quartiles() -> None:
    spread = Spread.of([4.0, 1.0, 2.0, 3.0, 5.0])
    assert spread.to_json() == {
        "count": 5,
        "minimum": 1,
        "lower_quartile": 2,
        "median": 3,
        "upper_quartile": 4,
        "maximum": 5,
    }
    assert rate_spread(result(10.0, {1: [1.0, 2.0, 5.0]})) == {
        "count": 3,
        "minimum": 2,
        "lower_quartile": 3.5,
        "median": 5,
        "upper_quartile": 7.5,
        "maximum": 10,
    }


@pytest.mark.parametrize(
    ("found", "difference", "same"),
    [
        (logits([1, 2], [8, 0]), 0.0, 1.0),
        (logits([1, 2.4], [8, 0]), 0.05, 1.0),
        (logits([2, 1], [8, 0]), 0.125, 0.5),
    ],
)
def test_agreement_is_relative_to_the_largest_logit(found: Arrays, difference: float, same: float) -> None:
    assert agreement(found, logits([1, 2], [8, 0])) == {
        "difference": pytest.approx(difference, rel=1e-2),
        "same_top1": same,
        "clips": 2,
    }


def test_difference_is_none_for_outputs_that_are_not_finite() -> None:
    assert agreement(logits([np.nan, 1]), logits([1, 2]))["difference"] is None


def test_matrix_product_counts_a_multiply_accumulate_as_two_operations() -> None:
    assert GFLOP == pytest.approx(2 * SIZE**3 / 1e9) == pytest.approx(17.18, abs=0.01)
    [[measured]] = measure_groups([[matrix_product(1)]], {}, Plan(rounds=1, repeat_s=0.0), lambda step: None)
    assert measured.failure is None
    assert len(measured.runs_s[1]) == 1
