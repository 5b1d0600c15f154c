from __future__ import annotations

from contextlib import ExitStack

import pytest

from service.pipeline.run_times import LEAST_BOUND_S, TIMES_LONGEST, RunTimes

LIMIT_S = 30.0


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def runs(clock: Clock) -> RunTimes:
    return RunTimes(clock)


def run(runs: RunTimes, clock: Clock, took_s: float) -> None:
    with runs.running():
        clock.now_s += took_s


def test_nothing_is_overdue_while_nothing_runs(runs: RunTimes, clock: Clock) -> None:
    run(runs, clock, 0.1)
    clock.now_s += 3600
    assert runs.overdue_s(LIMIT_S) is None


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
def test_a_run_is_overdue_past_a_multiple_of_what_the_longest_took(
    runs: RunTimes, clock: Clock, took_s: tuple[float, ...], bound_s: float
) -> None:
    for each_s in took_s:
        run(runs, clock, each_s)
    with runs.running():
        clock.now_s += bound_s
        assert runs.overdue_s(LIMIT_S) is None
        clock.now_s += 1
        assert runs.overdue_s(LIMIT_S) == pytest.approx(bound_s + 1)
    assert runs.overdue_s(LIMIT_S) is None


def test_the_oldest_run_counts_whatever_the_others_do(runs: RunTimes, clock: Clock) -> None:
    with ExitStack() as oldest:
        oldest.enter_context(runs.running())
        for _ in range(60):
            run(runs, clock, 0.1)
        assert runs.overdue_s(LIMIT_S) == pytest.approx(6)
        with runs.running():
            oldest.close()
            assert runs.overdue_s(LIMIT_S) is None


def test_what_a_run_took_that_failed_says_nothing(runs: RunTimes, clock: Clock) -> None:
    with pytest.raises(ZeroDivisionError), runs.running():
        raise ZeroDivisionError
    with runs.running():
        clock.now_s += LIMIT_S
        assert runs.overdue_s(LIMIT_S) is None
