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


STEADY = [10 * number for number in range(21)]  # frames of 10 ms; out of order by up to 16 of them
HOUR = 3_600_000


def times_ms(pts: list[int | None] | list[int], *rates: Fraction) -> list[float]:
    return [round(1000 * time_s, 6) for time_s in timing_of(pts, *rates).times_s]


@pytest.mark.parametrize(("stray", "kept"), [(40, True), (39, False), (370, True), (371, False)])
def test_a_frame_up_to_16_steps_out_of_order_is_sorted_and_others_are_outliers(
    stray: int, kept: bool
) -> None:
    pts = [*STEADY, stray, *(210 + 10 * number for number in range(30))]
    assert timing_of(pts).exact is kept
    assert (stray in times_ms(pts)) is kept
    assert kept or 205 in times_ms(pts)


@pytest.mark.parametrize(("stray", "kept"), [(160, True), (161, False)])
def test_the_first_frame_may_be_out_of_order_too(stray: int, kept: bool) -> None:
    timing = timing_of([stray, *STEADY])
    assert timing.exact is kept
    assert timing.duration_s == pytest.approx(0.2 + 0.2 / 21 if kept else 0.22)


@pytest.mark.parametrize(
    ("stray", "kept"), [(40, True), (39, False), (200 + HOUR, True), (201 + HOUR, False)]
)
def test_the_last_frame_may_be_out_of_order_or_late_too(stray: int, kept: bool) -> None:
    pts = [*STEADY, stray]
    assert timing_of(pts).exact is kept
    assert times_ms(pts)[-1] == (max(200, stray) if kept else 210)


@pytest.mark.parametrize(("gap", "kept"), [(HOUR, True), (HOUR + 1, False)])
def test_gaps_up_to_an_hour_are_pauses_and_longer_ones_jumps_of_the_clock(gap: int, kept: bool) -> None:
    pts = [*STEADY, *(200 + gap + 10 * number for number in range(21))]
    assert timing_of(pts).exact is kept
    assert times_ms(pts)[21] == (200 + gap if kept else 210)
    assert timing_of([-gap, *STEADY]).exact is kept


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_three_frames_in_a_row_may_be_outliers(count: int) -> None:
    strays = [100_000 + 10 * number for number in range(count)]
    later = [210 + 10 * (count + number) for number in range(20)]
    timing = timing_of([*STEADY, *strays, *later])
    assert not timing.exact
    assert (timing.duration_s < 1) is (count < 4)  # four are a recording of their own
    lasting = timing_of([*STEADY, *(-value for value in strays), *later])
    assert (lasting.times_s[-1] == pytest.approx(later[-1] / 1000)) is (count < 4)


def test_several_frames_at_either_end_are_a_recording_of_their_own() -> None:
    assert times_ms([5000, 5010, *STEADY])[:3] == [0, 10, 20]
    assert times_ms([*STEADY, 5000, 5010])[-2:] == [5000, 5010]
    assert times_ms([*STEADY, -5000, -4990])[-2:] == [210, 220]


@pytest.mark.parametrize(
    ("pts", "expected"),
    [
        ([0, 10, 0, 10], [0, 10, 20, 30]),  # back at the first time: another recording
        ([0, 10, 1, 11], [0, 1, 10, 11]),
        ([5, 15, 5, 15, 5, 15], [0, 10, 20, 30, 40, 50]),
        ([0, 10, 20, 30, -5, 5], [0, 10, 20, 30, 40, 50]),
        ([0, 10, 20, 12, 22], [0, 10, 12, 20, 22]),
        ([0, 0, 10], [0, 0, 10]),
    ],
)
def test_a_restart_falls_to_the_first_time_or_below(pts: list[int], expected: list[float]) -> None:
    assert times_ms(pts) == expected


@pytest.mark.parametrize(
    ("pts", "expected"),
    [
        ([None, None, 100, 110], [0, 10, 20, 30]),
        ([100, None, None, 130], [0, 10, 20, 30]),
        ([100, None, 111], [0, 5, 11]),
        ([100, 110, None, None], [0, 10, 20, 30]),
        ([None, 0, 10, None, 40, 50, None], [0, 10, 20, 35, 50, 60, 70]),
    ],
)
def test_missing_times_follow_the_typical_step_at_the_ends(
    pts: list[int | None], expected: list[float]
) -> None:
    assert times_ms(pts) == expected
    assert not timing_of(pts).exact


@pytest.mark.parametrize(
    ("rate", "used"),
    [
        (Fraction(1, 3600), True),
        (Fraction(1, 3601), False),
        (Fraction(1000), True),
        (Fraction(1001), False),
    ],
)
def test_plausible_rates_reach_from_a_frame_an_hour_to_1000_a_second(rate: Fraction, used: bool) -> None:
    assert timing_of([7, 7], rate, Fraction(10)).fps == pytest.approx(float(rate) if used else 10)


@pytest.mark.parametrize(("per_100_s", "used"), [(2525, True), (2526, False), (2475, True), (2474, False)])
def test_a_stated_rate_may_be_off_by_one_percent(per_100_s: int, used: bool) -> None:
    pts = [100 * number for number in range(per_100_s + 1)]
    timing = frame_timing(pts, Fraction(1, per_100_s), (Fraction(25),))
    assert timing.fps == (25 if used else per_100_s / 100)


@pytest.mark.parametrize(
    ("duration", "lasts_ms"), [(None, 40), (39, 40), (41, 40), (38, 38), (42, 42), (500, 500)]
)
def test_a_duration_counts_unless_it_is_the_mean_gap_rounded(duration: int | None, lasts_ms: int) -> None:
    timing = frame_timing([0, 40, 80], MS, (), last_duration=duration)
    assert timing.duration_s == pytest.approx((80 + lasts_ms) / 1000)


@pytest.mark.parametrize(
    ("duration", "fps"),
    [(None, 30.0), (33, 30.0), (34, 30.0), (35, 1000 / 35), (32, 1000 / 32)],
)
def test_one_frame_has_a_stated_rate_within_a_tick_of_its_duration(duration: int | None, fps: float) -> None:
    timing = frame_timing([7], MS, (Fraction(30),), last_duration=duration)
    assert timing.fps == pytest.approx(fps)
    assert timing.duration_s == pytest.approx(1 / fps)
    assert timing.exact


@pytest.mark.parametrize(
    ("duration", "lasts_ms"), [(HOUR, HOUR), (HOUR + 1, 10), (0, 10), (-5, 10), (None, 10), (500, 500)]
)
def test_durations_above_an_hour_or_below_zero_are_ignored(duration: int | None, lasts_ms: int) -> None:
    times = PacketTimes(MS, states_durations=True)
    for pts in (0, 20, 10):  # in file order; the frame at 20 is shown last
        times.add(pts, pts, duration if pts == 20 else 10, shown=True)
    assert times.timing([0, 10, 20]).duration_s == pytest.approx((20 + lasts_ms) / 1000)
    guessed = PacketTimes(MS)
    for pts in (0, 10, 20):
        guessed.add(pts, pts, 500, shown=True)
    assert guessed.timing([0, 10, 20]).duration_s == pytest.approx(0.03)


def test_duration_is_unknown_if_frames_are_missing() -> None:
    times = PacketTimes(MS, states_durations=True)
    for pts in (0, 10, 20):
        times.add(pts, pts, 500, shown=True)
    times.add(30, 30, 500, shown=False)
    assert times.shown == [0, 10, 20]
    assert times.timing([0, 10]).duration_s == pytest.approx(0.02)
    assert times.timing([0, 10, 20]).duration_s == pytest.approx(0.52)
    assert times.timing([None, None, None]).duration_s == pytest.approx(3 / 25)


@pytest.mark.parametrize(
    ("end", "lasts_ms"),
    # The longest gap is 15 ms, and 30 ms is the duration of the last packet.
    [(None, 30), (20, 30), (21, 1), (34, 14), (35, 15), (36, 30)],
)
def test_end_of_an_avi_is_believed_up_to_the_longest_gap(end: int | None, lasts_ms: int) -> None:
    times = PacketTimes(MS, decode_times_only=True, states_durations=True, end=end)
    for dts in (0, 20, 5):
        times.add(1000 + dts, dts, 30, shown=True)
    timing = times.timing([1000, 1005, 1020])
    assert timing.times_s == pytest.approx((0, 0.005, 0.02))
    assert timing.duration_s == pytest.approx((20 + lasts_ms) / 1000)


def test_an_avi_with_other_numbers_of_frames_and_packets_takes_presentation_times() -> None:
    times = PacketTimes(MS, decode_times_only=True, states_durations=True)
    for dts in (0, 20):
        times.add(1000 + 2 * dts, dts, 30, shown=True)
    assert times.timing([1000]).times_s == (0.0,)
    assert times.timing([1000, 1040]).times_s == pytest.approx((0, 0.02))
    times.add(1080, None, 30, shown=True)
    assert times.timing([1000, 1040, 1080]).times_s == pytest.approx((0, 0.04, 0.08))
