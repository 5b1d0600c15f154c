"""How a long video is cut into windows of time. Pure functions on integers: microseconds and frame numbers.

    video    0 ────────────────────────────────────────── end
    windows  [─── 0 ───)
                   [─── 1 ───)                               each begins a stride after the one before
                         [─── 2 ───)
                               ...         [─── last ─)      the first to reach the end

Integers, because a boundary that is `k * stride` in floats would now and then put the frame that lies on it
into the wrong window. A microsecond is what answers show, so whoever reads one can check the rule.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

US_PER_S = 1_000_000


def microseconds(seconds: float) -> int:
    """The nearest whole number of them."""
    return round(seconds * US_PER_S)


@dataclass(frozen=True)
class WindowRule:
    """Window k covers `[k * stride, k * stride + length)`, in microseconds from the first frame."""

    length_us: int
    stride_us: int

    @classmethod
    def of(cls, window_s: float, stride_s: float) -> WindowRule:
        """The rule for these lengths in seconds."""
        return cls(microseconds(window_s), microseconds(stride_s))

    def count(self, duration_us: int) -> int:
        """How many windows a video of this length has, at least one.

        A window exists if it begins before the video ends, and the one before has not reached the end.
        """
        beyond_first = duration_us - self.length_us
        reaching_the_end = 1 + max(0, -(-beyond_first // self.stride_us))
        beginning_in_time = -(-duration_us // self.stride_us)
        return max(1, min(reaching_the_end, beginning_in_time))


@dataclass(frozen=True)
class Window:
    """The window `number`, where it begins and ends, and the numbers of its frames."""

    number: int
    start_us: int
    end_us: int
    frames: range


def cut(times_us: Sequence[int], duration_us: int, rule: WindowRule) -> tuple[Window, ...]:
    """All windows of a video.

    A window has the frames whose time lies in it. One in which no frame begins, as happens where the rate
    varies, has the frame that is on the screen meanwhile. The last one ends with the video and may be
    shorter.

    Args:
        times_us: of the frames in the order of showing, at least one, never falling, the first 0.
        duration_us: of the video, no less than the last of them.
        rule: where windows lie.
    """
    return tuple(_window(number, times_us, duration_us, rule) for number in range(rule.count(duration_us)))


def _window(number: int, times_us: Sequence[int], duration_us: int, rule: WindowRule) -> Window:
    start_us = number * rule.stride_us
    end_us = min(start_us + rule.length_us, duration_us)
    first, stop = bisect_left(times_us, start_us), bisect_left(times_us, end_us)
    if end_us == duration_us:
        stop = len(times_us)  # a duration is rounded, the frames are all there
    if first == stop:
        first = bisect_right(times_us, start_us) - 1
        stop = first + 1
    return Window(number, start_us, end_us, range(first, stop))
