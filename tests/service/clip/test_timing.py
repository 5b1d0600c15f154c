"""Display times: exact where the file states them, and repaired around single bad timestamps."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.clip.timing import PacketTimes, Timing, frame_timing

MS = Fraction(1, 1000)
# Timestamps of a recording of 21 frames at 4.35 frames a second, in milliseconds.
RECORDING = [230 * number for number in range(21)]


def timing_of(pts: list[int | None] | list[int], *rates: Fraction) -> Timing:
    return frame_timing(pts, MS, rates)


def test_times_count_from_the_first_frame() -> None:
    timing = timing_of([1400, 1440, 1480, 1520], Fraction(25))
    assert timing.times_s == pytest.approx((0.0, 0.04, 0.08, 0.12))
    assert (timing.fps, timing.duration_s, timing.timestamps) == (25.0, 0.16, "exact")


def test_variable_rate_keeps_each_frames_own_time() -> None:
    timing = timing_of([0, 10, 500, 1000])
    assert timing.times_s == (0.0, 0.01, 0.5, 1.0)
    assert (timing.fps, timing.exact) == (3.0, True)


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        (Fraction(30000, 1001), 30000 / 1001),  # the measured rate is off by the milliseconds' rounding
        (Fraction(60), 30.0),  # the header is wrong, or counts fields
        (Fraction(90000), 30.0),  # a tick rate
        (Fraction(0), 30.0),
    ],
)
def test_stated_rate_is_used_if_the_frames_confirm_it(stated: Fraction, expected: float) -> None:
    assert timing_of([0, 33, 67, 100], stated).fps == pytest.approx(expected)


def test_the_first_stated_rate_that_the_frames_confirm_is_used() -> None:
    rates = (Fraction(60), Fraction(30000, 1001))
    assert timing_of([0, 33, 67, 100], *rates).fps == pytest.approx(30000 / 1001)


@pytest.mark.parametrize("pts", [[None, None, None], [7, None, None], [7, 7, 7]])
@pytest.mark.parametrize(
    ("stated", "step_s"), [(Fraction(10), 0.1), (Fraction(0), 0.04), (Fraction(10**6), 0.04)]
)
def test_without_two_different_timestamps_frames_are_spaced_evenly(
    pts: list[int | None], stated: Fraction, step_s: float
) -> None:
    timing = timing_of(pts, stated)
    assert timing.times_s == pytest.approx((0, step_s, 2 * step_s))
    assert timing.duration_s == pytest.approx(3 * step_s)
    assert timing.timestamps == "estimated"


@pytest.mark.parametrize(
    ("pts", "expected"),
    [
        ([0, None, 80, 120], (0, 0.04, 0.08, 0.12)),
        ([None, 40, 80, 120], (0, 0.04, 0.08, 0.12)),
        ([0, 40, None, None], (0, 0.04, 0.08, 0.12)),
    ],
)
def test_missing_timestamps_are_interpolated(pts: list[int | None], expected: tuple[float, ...]) -> None:
    timing = timing_of(pts, Fraction(10))
    assert timing.times_s == pytest.approx(expected)
    assert timing.timestamps == "estimated"


def test_two_frames_at_one_time_do_not_spoil_the_rest() -> None:
    timing = timing_of([0, 40, 40, 120], Fraction(25))
    assert (timing.times_s, timing.exact) == ((0.0, 0.04, 0.04, 0.12), True)


def test_one_frame_lasts_one_period() -> None:
    timing = timing_of([5000], Fraction(20))
    assert (timing.times_s, timing.fps, timing.duration_s) == ((0.0,), 20.0, 0.05)


def test_timestamps_that_fall_by_little_are_sorted() -> None:
    """A browser's recording, one block of which is stamped 1 ms before the block in front of it."""
    pts = [*RECORDING[:8], RECORDING[7] - 1, *RECORDING[9:]]
    timing = timing_of(pts)
    assert timing.times_s == tuple(value / 1000 for value in sorted(pts))
    assert timing.duration_s == pytest.approx(4.83)
    assert timing.timestamps == "exact"


def test_reordered_timestamps_are_sorted() -> None:
    assert timing_of([0, 120, 40, 80, 240, 160, 200]).times_s == (0, 0.04, 0.08, 0.12, 0.16, 0.2, 0.24)


@pytest.mark.parametrize("second", [[0, 230, 460], RECORDING, [9_000_000, 9_000_230, 9_000_460]])
def test_a_recording_after_another_follows_it(second: list[int]) -> None:
    timing = timing_of([*RECORDING, *second])
    moved = [RECORDING[-1] + 230 + value - second[0] for value in second]
    assert timing.times_s == tuple(value / 1000 for value in [*RECORDING, *moved])
    assert timing.fps == pytest.approx(1000 / 230)
    assert timing.timestamps == "estimated"


def test_three_recordings_follow_one_another() -> None:
    timing = timing_of([*RECORDING, *RECORDING, *RECORDING])
    assert timing.times_s == pytest.approx([0.23 * number for number in range(63)])


@pytest.mark.parametrize("at", [0, 1, 50, 99])
@pytest.mark.parametrize("stamp", [37_600_000, -37_600_000, 10_000_000])
def test_an_outlier_gets_the_time_between_its_neighbours(at: int, stamp: int) -> None:
    pts = [33 * number for number in range(100)]
    timing = timing_of([stamp if number == at else value for number, value in enumerate(pts)])
    assert timing.times_s == pytest.approx([value / 1000 for value in pts])
    assert timing.timestamps == "estimated"


def test_an_outlier_among_three_frames_is_found() -> None:
    assert timing_of([0, 37_600_000, 66]).times_s == (0, 0.033, 0.066)


def test_two_outliers_in_a_row_and_one_apart_are_found() -> None:
    pts: list[int] = [33 * number for number in range(100)]
    bad = list(pts)
    bad[20] = bad[21] = 5_000_000
    bad[70] = -900_000
    assert timing_of(bad).times_s == pytest.approx([value / 1000 for value in pts])


def test_a_long_pause_is_kept() -> None:
    pts = [*range(0, 1000, 40), *range(300_000, 301_000, 40)]
    assert timing_of(pts).times_s[-1] == pytest.approx(300.96)
    assert timing_of(pts).exact


@given(st.lists(st.integers(1, 3_000_000), min_size=1, max_size=80), st.data())
def test_times_never_fall_whatever_the_timestamps(steps: list[int], data: st.DataObject) -> None:
    pts: list[int | None] = [sum(steps[:count]) for count in range(len(steps))]
    for _ in range(data.draw(st.integers(0, 6))):
        at = data.draw(st.integers(0, len(pts) - 1))
        pts[at] = data.draw(st.one_of(st.none(), st.integers(-(2**62), 2**62)))
    timing = timing_of(pts)
    assert len(timing.times_s) == len(pts)
    assert timing.times_s[0] == 0
    assert list(timing.times_s) == sorted(timing.times_s)
    assert timing.duration_s > timing.times_s[-1]
    assert timing.fps > 0


def test_the_last_frames_own_duration_counts() -> None:
    timing = frame_timing([0, 12, 54, 66], Fraction(1, 100), [Fraction(100, 27)], last_duration=42)
    assert timing.duration_s == 1.08
    assert timing.fps == pytest.approx(300 / 66)


@pytest.mark.parametrize("duration", [-1, 3_600_001, 2**63 - 1])
def test_an_impossible_duration_of_the_last_frame_is_ignored(duration: int) -> None:
    times = PacketTimes(MS, states_durations=True)
    for pts in (0, 40, 80):
        times.add(pts, pts, 40 if pts < 80 else duration, shown=True)
    assert times.timing(times.shown).duration_s == pytest.approx(0.12)


def test_a_rounded_duration_does_not_make_the_video_longer() -> None:
    timing = frame_timing([0, 33, 67, 100], MS, [Fraction(30)], last_duration=34)
    assert timing.duration_s == pytest.approx(0.1 + 1 / 30)


def times_of_avi(slots: list[int], end: int) -> PacketTimes:
    times = PacketTimes(Fraction(1, 50), [Fraction(50), Fraction(25)], decode_times_only=True,
                        states_durations=True, end=end)  # fmt: skip
    for slot in slots:
        times.add(slot + 2, slot, 1, shown=True)
    return times


def test_an_avi_takes_its_decode_times_in_turn() -> None:
    """FFmpeg makes up presentation times, and the last of them falls short."""
    slots = list(range(0, 240, 2))
    timing = times_of_avi(slots, 240).timing([*range(2, 240, 2), 239])
    assert timing.times_s == tuple(slot / 50 for slot in slots)
    assert (timing.fps, timing.duration_s, timing.timestamps) == (25.0, 4.8, "exact")


def test_an_avi_that_breaks_off_ends_with_its_last_frame() -> None:
    assert times_of_avi([0, 2, 4, 6], 240).timing([0, 1, 2, 3]).duration_s == pytest.approx(0.16, abs=0.02)


def test_frames_and_packets_give_the_same_times() -> None:
    times = PacketTimes(MS, states_durations=True)
    for pts in (0, 120, 40, 80, 160):
        times.add(pts, None, 70, shown=True)
    assert times.timing(times.shown) == times.timing([0, 40, 80, 120, 160])
    assert times.timing([0, 40, 80, 120, 160]).duration_s == pytest.approx(0.23)
