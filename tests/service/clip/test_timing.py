from __future__ import annotations

from fractions import Fraction

import pytest

from service.clip.timing import frame_timing

MS = Fraction(1, 1000)


def test_times_count_from_the_first_frame() -> None:
    timing = frame_timing([1400, 1440, 1480, 1520], MS, Fraction(25))
    assert timing.times_s == pytest.approx((0.0, 0.04, 0.08, 0.12))
    assert (timing.fps, timing.duration_s) == (25.0, 0.16)


def test_variable_rate_keeps_each_frames_own_time() -> None:
    timing = frame_timing([0, 10, 500, 1000], MS, None)
    assert timing.times_s == (0.0, 0.01, 0.5, 1.0)
    assert timing.fps == 3.0


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        (Fraction(30000, 1001), 30000 / 1001),  # the measured rate is off by the milliseconds' rounding
        (Fraction(60), 30.0),  # the header lies
        (Fraction(90000), 30.0),  # a tick rate
        (Fraction(0), 30.0),
        (None, 30.0),
    ],
)
def test_stated_rate_is_taken_where_the_frames_bear_it_out(stated: Fraction | None, expected: float) -> None:
    assert frame_timing([0, 33, 67, 100], MS, stated).fps == pytest.approx(expected)


@pytest.mark.parametrize(
    "pts",
    [
        [None, None, None],
        [0, None, 80],
        [0, 40, 20],  # falls
        [7, 7, 7],  # never moves
    ],
    ids=["absent", "incomplete", "falling", "standing"],
)
@pytest.mark.parametrize(("stated", "step_s"), [(Fraction(10), 0.1), (None, 0.04), (Fraction(10**6), 0.04)])
def test_useless_timestamps_give_even_spacing(
    pts: list[int | None], stated: Fraction | None, step_s: float
) -> None:
    timing = frame_timing(pts, MS, stated)
    assert timing.times_s == pytest.approx((0, step_s, 2 * step_s))
    assert timing.duration_s == pytest.approx(3 * step_s)


def test_two_frames_at_one_time_do_not_spoil_the_rest() -> None:
    assert frame_timing([0, 40, 40, 120], MS, Fraction(25)).times_s == (0.0, 0.04, 0.04, 0.12)


def test_one_frame_lasts_one_period() -> None:
    timing = frame_timing([5000], MS, Fraction(20))
    assert (timing.times_s, timing.fps, timing.duration_s) == ((0.0,), 20.0, 0.05)
