"""The health of a model's inference, judged by its runs and requests."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from service.engines.session import InferenceFailed
from service.pipeline.batching.health import LEAST_BOUND_S, TIMES_LONGEST, InferenceHealth
from tests.support.clock import Clock

LIMIT_S = 30.0
FOREVER_S = 3600.0


@pytest.fixture
def clock() -> Clock:
    return Clock(0.0)


@pytest.fixture
def health(clock: Clock) -> InferenceHealth:
    return InferenceHealth(LIMIT_S, clock)


def run(health: InferenceHealth, clock: Clock, took_s: float = 0.0) -> None:
    with health.run():
        clock.now_s += took_s


def fail(health: InferenceHealth) -> None:
    with pytest.raises(InferenceFailed), health.run():
        raise InferenceFailed("no")


def test_idle_model_is_healthy_and_tested_after_a_while(health: InferenceHealth, clock: Clock) -> None:
    clock.now_s = 19
    assert (health.problem(), health.needs_test(20)) == (None, False)
    clock.now_s = 3600
    assert (health.problem(), health.needs_test(20)) == (None, True)


def test_finished_run_counts_as_a_test(health: InferenceHealth, clock: Clock) -> None:
    clock.now_s = 100
    with health.request(), health.run():
        assert not health.needs_test(20)
    clock.now_s = 119
    assert not health.needs_test(20)


def test_failure_lasts_until_a_run_succeeds_and_needs_a_test_at_once(
    health: InferenceHealth, clock: Clock
) -> None:
    fail(health)
    assert health.problem() == "The last inference failed."
    assert health.needs_test(FOREVER_S)
    with health.request():
        assert health.problem() == "The last inference failed."
        assert not health.needs_test(FOREVER_S)
        run(health, clock)
    assert (health.problem(), health.needs_test(FOREVER_S)) == (None, False)


def test_requests_without_a_finished_run_are_stuck(health: InferenceHealth, clock: Clock) -> None:
    clock.now_s = 100
    with health.request():
        for clock.now_s in (110, 120):
            run(health, clock)
        clock.now_s = 150
        assert health.problem() is None
        clock.now_s = 151
        assert health.problem() == "No inference has ended for 31 s."
    assert health.problem() is None


def test_unfinished_run_is_stuck_even_if_others_end(health: InferenceHealth, clock: Clock) -> None:
    with health.run():
        for clock.now_s in range(6):
            assert health.problem() is None
            with health.request():
                run(health, clock)
        clock.now_s = 31
        assert health.problem() == "An inference has not ended for 31 s."
    assert health.problem() is None


def test_abandoned_request_does_not_change_the_health(health: InferenceHealth, clock: Clock) -> None:
    with pytest.raises(ZeroDivisionError), health.request():
        raise ZeroDivisionError
    clock.now_s = 20
    assert (health.problem(), health.needs_test(20)) == (None, True)


@pytest.mark.parametrize(
    ("took_s", "bound_s"),
    [
        ((), LIMIT_S),
        ((0.01,), LEAST_BOUND_S),
        ((0.01, 0.5, 0.01), TIMES_LONGEST * 0.5),
        ((4.0, 0.01), LIMIT_S),
    ],
    ids=["nothing known", "short runs", "longer runs", "very long runs"],
)
def test_run_is_stuck_after_a_multiple_of_the_longest_recent_run(
    health: InferenceHealth, clock: Clock, took_s: tuple[float, ...], bound_s: float
) -> None:
    for each_s in took_s:
        run(health, clock, each_s)
    assert health.run_limit_s == pytest.approx(bound_s)
    with health.run():
        clock.now_s += bound_s
        assert health.stuck() is None
        clock.now_s += 1
        assert health.stuck() == f"An inference has not ended for {bound_s + 1:.0f} s."
        assert health.oldest_run_s == pytest.approx(bound_s + 1)
    assert health.stuck() is None


def test_oldest_run_decides(health: InferenceHealth, clock: Clock) -> None:
    with ExitStack() as oldest:
        oldest.enter_context(health.run())
        for _ in range(60):
            run(health, clock, 0.1)
        assert health.stuck() == "An inference has not ended for 6 s."
        with health.run():
            oldest.close()
            assert health.stuck() is None


def test_duration_of_a_failed_run_is_ignored(health: InferenceHealth, clock: Clock) -> None:
    fail(health)
    with health.run():
        clock.now_s += LIMIT_S
        assert health.stuck() is None
