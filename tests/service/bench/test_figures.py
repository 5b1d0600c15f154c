"""Rates, multiples and agreement, from runs of known length."""

from __future__ import annotations

import numpy as np
import pytest

from service.bench.figures import agreement, rate_spread, rows
from service.bench.matrix_product import GFLOP, SIZE, matrix_product
from service.bench.race import Plan, Result, race
from service.bench.spread import Spread
from service.contenders.contender import Arrays, Contender


def result(gflop: float | None, runs_s: dict[int, list[float]]) -> Result:
    contender = Contender("it", "nowhere:nothing", {}, 1, tuple(runs_s), gflop)
    return Result(contender, [1.0], runs_s, dict.fromkeys(runs_s, 1000))


def logits(*rows: list[float]) -> Arrays:
    return {"logits": np.array(rows, np.float32)}


def test_row_gives_median_rate_and_multiple() -> None:
    product = result(10.0, {1: [0.1, 0.2, 0.1]})  # 100 a second
    [row] = rows(result(3.0, {4: [0.05, 0.04, 0.9]}), product)
    assert row["batch"] == 4
    assert row["latency_s"]["median"] == 0.05
    assert row["clips_per_s"] == 80
    assert row["gflops"] == 240
    assert row["times_matrix_product"] == 2.4
    assert row["peak_memory_bytes"] == 1000


def test_unknown_costs_leave_rates_out() -> None:
    [row] = rows(result(None, {1: [0.5]}), result(10.0, {1: [0.1]}))
    assert (row["clips_per_s"], row["gflops"], row["times_matrix_product"]) == (2, None, None)


def test_matrix_product_that_failed_leaves_the_multiple_out() -> None:
    [row] = rows(result(1.0, {1: [0.5]}), result(10.0, {}))
    assert (row["gflops"], row["times_matrix_product"]) == (2, None)


def test_batch_that_never_had_a_turn_has_no_row() -> None:
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


def test_answers_that_are_no_numbers_have_no_difference() -> None:
    assert agreement(logits([np.nan, 1]), logits([1, 2]))["difference"] is None


def test_matrix_product_counts_two_operations_for_each_multiply_accumulate() -> None:
    assert GFLOP == pytest.approx(2 * SIZE**3 / 1e9) == pytest.approx(17.18, abs=0.01)
    [[measured]] = race([[matrix_product(1)]], {}, Plan(rounds=1, turn_s=0.0), lambda step: None)
    assert measured.failure is None
    assert len(measured.runs_s[1]) == 1
