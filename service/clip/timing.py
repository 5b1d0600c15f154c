"""When the frames of a video are shown, from what its container says and what decoded. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

# FFmpeg's own guess for a stream that states no rate.
DEFAULT_RATE = Fraction(25)
# A stated rate outside is a tick rate or a lie, not frames a second: the fastest cameras people upload from
# reach 960.
PLAUSIBLE_RATES = (Fraction(1, 3600), Fraction(1000))
# How far a stated rate may be from the measured one and still be taken; timestamps in milliseconds
# measure 29.97 as 29.94 on a clip of two seconds.
RATE_TOLERANCE = Fraction(1, 100)


@dataclass(frozen=True)
class Timing:
    """`times_s`: one time for each frame, from 0 on, never falling. `fps` is the mean rate."""

    times_s: tuple[float, ...]
    fps: float
    duration_s: float


def frame_timing(pts: Sequence[int | None], time_base: Fraction, stated_rate: Fraction | None) -> Timing:
    """Times of the frames in the order in which they are shown, in seconds from the first.

    `pts` are the decoded frames' timestamps in units of `time_base`, at least one of them. Where they are
    incomplete, or fall, or never move, the order of the frames is all there is to go by: they are then
    spaced evenly at the stated rate, or at `DEFAULT_RATE` if none is stated.
    """
    rate = stated_rate if stated_rate and _plausible(stated_rate) else None
    known = [value for value in pts if value is not None]
    steps = [after - before for before, after in pairwise(known)]
    if len(known) < len(pts) or not steps or min(steps) < 0 or known[-1] == known[0]:
        return _even(len(pts), rate or DEFAULT_RATE)
    measured = len(steps) / ((known[-1] - known[0]) * time_base)
    if rate is None or abs(measured - rate) > RATE_TOLERANCE * rate:
        rate = measured
    ticks, per_s = time_base.numerator, time_base.denominator
    times = tuple((value - known[0]) * ticks / per_s for value in known)
    return Timing(times, float(rate), float((known[-1] - known[0]) * time_base + 1 / rate))


def _even(count: int, rate: Fraction) -> Timing:
    times = tuple(float(index / rate) for index in range(count))
    return Timing(times, float(rate), float(count / rate))


def _plausible(rate: Fraction) -> bool:
    slowest, fastest = PLAUSIBLE_RATES
    return slowest <= rate <= fastest
