"""Divides a long video into windows of time. Pure functions on integers: microseconds and frame numbers.

    video    0 ────────────────────────────────────────── end
    windows  [─── 0 ───)
                   [─── 1 ───)                               each starts one stride after the previous one
                         [─── 2 ───)
                               ...         [─── last ─)      the first to reach the end

Integers avoid rounding errors of `k * stride`, which could assign a frame on a boundary to the wrong window.
Answers show microseconds, so the rule can be verified from them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

US_PER_S = 1_000_000


def microseconds(seconds: float) -> int:
    """Convert to whole microseconds, rounding to the nearest."""
    return round(seconds * US_PER_S)


@dataclass(frozen=True)
class WindowRule:
    """Window k covers `[k * stride, k * stride + length)`, in microseconds from the first frame."""

    length_us: int
    stride_us: int

    @classmethod
    def of(cls, window_s: float, stride_s: float) -> WindowRule:
        """Create a rule from lengths in seconds."""
        return cls(microseconds(window_s), microseconds(stride_s))

    def count(self, duration_us: int) -> int:
        """Return the number of windows of a video, at least one.

        A window exists if it starts before the end of the video and the previous window does not reach the
        end.
        """
        beyond_first = duration_us - self.length_us
        reaching_the_end = 1 + max(0, -(-beyond_first // self.stride_us))
        beginning_in_time = -(-duration_us // self.stride_us)
        return max(1, min(reaching_the_end, beginning_in_time))


@dataclass(frozen=True)
class Window:
    """A window: its number, start, end, and the numbers of its frames."""

    number: int
    start_us: int
    end_us: int
    frames: range


def cut(times_us: Sequence[int], duration_us: int, rule: WindowRule) -> tuple[Window, ...]:
    """Return all windows of a video.

    A window contains the frames whose timestamps lie in it. A window without timestamps, which occurs with
    variable frame rates, contains the frame that is displayed during it. The last window ends with the video
    and may be shorter.

    Args:
        times_us: timestamps of at least one frame in display order, non-decreasing, starting with 0.
        duration_us: duration of the video, at least the last timestamp.
        rule: length and stride of the windows.
    """
    return tuple(_window(number, times_us, duration_us, rule) for number in range(rule.count(duration_us)))


def _window(number: int, times_us: Sequence[int], duration_us: int, rule: WindowRule) -> Window:
    start_us = number * rule.stride_us
    end_us = min(start_us + rule.length_us, duration_us)
    first, stop = bisect_left(times_us, start_us), bisect_left(times_us, end_us)
    if end_us == duration_us:
        stop = len(times_us)  # the duration is rounded, so include all frames
    if first == stop:
        first = bisect_right(times_us, start_us) - 1
        stop = first + 1
    return Window(number, start_us, end_us, range(first, stop))
