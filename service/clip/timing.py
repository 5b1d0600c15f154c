"""Display times of a video's frames, from the timestamps in its container. Pure functions on numbers.

    timestamps of the frames ──> outliers removed ──> restarts joined ──> gaps filled ──> sorted ──> seconds

One bad timestamp makes the time of one frame inexact, not the timing of the whole video. `Timing.exact` tells
whether every time comes from the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from statistics import median_low
from typing import Literal

# FFmpeg's own guess for a stream that states no rate.
DEFAULT_RATE = Fraction(25)
# A stated rate outside this range is a tick rate or wrong: the fastest consumer cameras reach 960 frames a
# second.
PLAUSIBLE_RATES = (Fraction(1, 3600), Fraction(1000))
# How far a stated rate may be from the measured one and still be used. Timestamps in milliseconds measure
# 29.97 as 29.94 over two seconds.
RATE_TOLERANCE = Fraction(1, 100)
# Timestamps may fall by this many typical steps and still only be out of order: H.264 and HEVC reorder at
# most 16 frames. A larger fall is an outlier or the start of another recording.
MAX_REORDER_STEPS = 16
# This many frames in a row may be outliers; more are a separate recording.
MAX_OUTLIERS = 3
# A recording does not pause for longer between two frames; a longer gap is a jump of the clock, and a frame
# with a longer duration is damaged.
MAX_GAP_S = 3600


@dataclass(frozen=True)
class Timing:
    """Display times of all frames of a video.

    Attributes:
        times_s: One time per frame in display order, non-decreasing, starting with 0.
        fps: Mean rate in frames per second.
        duration_s: End of the last frame.
        exact: Whether every time is stated by the file; otherwise some or all are estimated.
    """

    times_s: tuple[float, ...]
    fps: float
    duration_s: float
    exact: bool = True

    @property
    def timestamps(self) -> Literal["exact", "estimated"]:
        """The value of `VideoInfo.timestamps`."""
        return "exact" if self.exact else "estimated"


class PacketTimes:
    """The timestamps and durations of a track's packets, collected in file order.

    Planned decoding, full decoding and windows all derive their times from it, so they agree.

    Args:
        time_base: Seconds per tick.
        stated_rates: Frame rates that the file states, the most trusted first.
        decode_times_only: The container (AVI) stores no presentation times. Frames then take its decode times
            in order; the presentation times that FFmpeg makes up only serve to tell frames apart.
        states_durations: The container stores a duration for each frame.
        end: End of the track according to the container, in ticks; only used with `decode_times_only`.
    """

    def __init__(
        self,
        time_base: Fraction,
        stated_rates: Sequence[Fraction | None] = (),
        *,
        decode_times_only: bool = False,
        states_durations: bool = False,
        end: int | None = None,
    ) -> None:
        self.time_base = time_base
        self._stated_rates = tuple(stated_rates)
        self._decode_times_only = decode_times_only
        self._states_durations = states_durations
        self._end = end
        self._shown: list[int | None] = []
        self._decode_times: list[int | None] = []
        self._durations: dict[int, int] = {}

    def add(self, pts: int | None, dts: int | None, duration: int | None, *, shown: bool) -> None:
        """Record the next packet; `shown` tells whether it holds a displayed frame."""
        if shown:
            self._shown.append(pts)
            self._decode_times.append(dts)
        time = dts if self._decode_times_only else pts
        if time is None or not duration or not self._states_durations:
            return
        if 0 < duration * self.time_base <= MAX_GAP_S:
            self._durations[time] = duration

    @property
    def shown(self) -> Sequence[int | None]:
        """Presentation timestamps of the packets that hold a displayed frame, in file order."""
        return self._shown

    def timing(self, pts: Sequence[int | None]) -> Timing:
        """Return the times of the frames with the timestamps `pts`, in the order of the decoder's output.

        Call it after the last packet. `timing(shown)` predicts the times from the packets alone.
        """
        if self._decode_times_only and len(self._decode_times) == len(pts) and None not in self._decode_times:
            slots = sorted(time for time in self._decode_times if time is not None)
            return frame_timing(
                slots, self.time_base, self._stated_rates, last_duration=self._last_slot(slots)
            )
        duration = None
        if len(pts) == len(self._shown):  # otherwise packets without a frame may follow the last one
            last = max((value for value in pts if value is not None), default=None)
            duration = None if last is None else self._durations.get(last)
        return frame_timing(pts, self.time_base, self._stated_rates, last_duration=duration)

    def _last_slot(self, slots: Sequence[int]) -> int | None:
        """Return the duration of an AVI's last frame: empty chunks after it repeat the frame up to the end.

        A header that claims a much later end belongs to a truncated file.
        """
        rest = (self._end or 0) - slots[-1]
        longest = max((after - before for before, after in pairwise(slots)), default=rest)
        return rest if 0 < rest <= longest else self._durations.get(slots[-1])


def frame_timing(
    pts: Sequence[int | None],
    time_base: Fraction,
    stated_rates: Sequence[Fraction | None],
    *,
    last_duration: int | None = None,
) -> Timing:
    """Return the times of a video's frames in seconds from the first one.

    Without two different timestamps, the frames are spaced evenly at the first plausible stated rate, or at
    `DEFAULT_RATE`.

    Args:
        pts: The frames' timestamps in the order of the decoder's output, at least one, in ticks.
        time_base: Seconds per tick.
        stated_rates: Frame rates that the file states, the most trusted first.
        last_duration: The last frame's duration in ticks, or None if unknown; the frame then gets the average
            duration.
    """
    slowest, fastest = PLAUSIBLE_RATES
    rates = [rate for rate in stated_rates if rate and slowest <= rate <= fastest]
    ticks, exact = _repaired(pts, time_base)
    span = (ticks[-1] - ticks[0]) * time_base
    if not span:
        rate = rates[0] if rates else DEFAULT_RATE
        if len(pts) == 1 and last_duration:
            lasts = last_duration * time_base
            rate = next((rate for rate in rates if abs(1 / rate - lasts) <= time_base), 1 / lasts)
        times = tuple(float(index / rate) for index in range(len(pts)))
        return Timing(times, float(rate), float(len(pts) / rate), exact and len(pts) == 1)
    measured = (len(ticks) - 1) / span
    rate = next((rate for rate in rates if abs(measured - rate) <= RATE_TOLERANCE * rate), measured)
    lasts = 1 / rate
    # Within a tick of the mean gap, the duration is a rounded value and the rate is more precise.
    if last_duration and abs(last_duration * time_base - lasts) > time_base:
        lasts = last_duration * time_base
    first, per_s = ticks[0], time_base.denominator
    times = tuple((value - first) * time_base.numerator / per_s for value in ticks)
    return Timing(times, float(rate), float(span + lasts), exact)


def _repaired(pts: Sequence[int | None], time_base: Fraction) -> tuple[list[int], bool]:
    """Return ascending timestamps for all frames, and whether all of them come from the file."""
    known = [value for value in pts if value is not None]
    steps = [after - before for before, after in pairwise(known)]
    if not any(steps):
        return [0] * len(pts), len(known) == len(pts)
    longest = max(MAX_GAP_S // time_base, 1)
    if len(known) == len(pts) and min(steps) >= 0 and max(steps) <= longest:
        return known, True
    rising = [step for step in steps if 0 < step <= longest]
    if not rising:  # few frames, and bad timestamps among them
        rising = [after - before for before, after in pairwise(sorted(known)) if after > before]
    step = median_low(rising)
    values = _without_outliers(list(pts), MAX_REORDER_STEPS * step, longest)
    joined = _joined(values, step, longest)
    exact = None not in values and joined == values
    return sorted(_filled(joined, step)), exact


def _without_outliers(values: list[int | None], tolerance: int, longest: int) -> list[int | None]:
    """Return the timestamps, with None in place of the few that are far from both neighbours."""
    numbers = [number for number, value in enumerate(values) if value is not None]
    ticks = [value for value in values if value is not None]
    kept: list[int] = []
    start = 0
    while start < len(ticks):
        for count in range(1, min(MAX_OUTLIERS, len(ticks) - start) + 1):
            run, after = ticks[start : start + count], ticks[start + count : start + count + 2]
            if _are_outliers(run, kept[-2:], after, tolerance, longest):
                for number in numbers[start : start + count]:
                    values[number] = None
                start += count
                break
        else:
            kept.append(ticks[start])
            start += 1
    return values


def _are_outliers(
    run: Sequence[int], before: Sequence[int], after: Sequence[int], tolerance: int, longest: int
) -> bool:
    """Return whether the timestamps `run` are far from those on both sides, which continue each other.

    After a restart of the clock, the timestamps on both sides do not continue each other.

    Args:
        run: Consecutive timestamps.
        before: The two timestamps before them, or fewer at the start of the video.
        after: The two timestamps after them, or fewer at the end.
        tolerance: Ticks by which timestamps may be out of order.
        longest: Ticks that may lie between two frames.
    """
    low, high = min(run), max(run)
    if before and after:
        continuous = before[-1] <= after[0] <= before[-1] + longest
        return continuous and (low - after[0] > tolerance or before[-1] - high > tolerance)
    if len(run) > 1:
        return False  # several frames at either end are a separate recording
    if len(after) == 2:
        return after[0] <= after[1] and (low - after[0] > tolerance or after[0] - high > longest)
    if len(before) == 2:
        return before[0] <= before[1] and (low - before[1] > longest or before[1] - high > tolerance)
    return False


def _joined(values: Sequence[int | None], step: int, longest: int) -> list[int | None]:
    """Return the timestamps of consecutive recordings, each moved behind the previous one."""
    joined: list[int | None] = []
    offset = 0
    first = latest = None  # of the current recording, before it is moved
    for value in values:
        if value is None:
            joined.append(None)
            continue
        if first is None or latest is None:
            first = latest = value
        fall = latest - value
        restarts = value <= first and fall >= step and latest > first
        if restarts or fall > MAX_REORDER_STEPS * step or -fall > longest:
            offset += latest + step - value
            first = latest = value
        latest = max(latest, value)
        joined.append(value + offset)
    return joined


def _filled(values: Sequence[int | None], step: int) -> list[int]:
    """Return the timestamps with missing ones interpolated between their neighbours."""
    known = [(number, value) for number, value in enumerate(values) if value is not None]
    first_number, first = known[0]
    filled = [first - (first_number - number) * step for number in range(first_number)]
    for (number, value), (next_number, next_value) in pairwise(known):
        gap = next_number - number
        filled += [value + (next_value - value) * part // gap for part in range(gap)]
    last_number, last = known[-1]
    return filled + [last + (number - last_number) * step for number in range(last_number, len(values))]
