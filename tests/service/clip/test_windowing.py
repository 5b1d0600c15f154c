"""How windows are cut: a table of the documented cases, and hypothesis for properties of every video."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.clip.windowing import US_PER_S, Window, WindowRule, cut


def evenly(frames: int, rate: int = 10) -> tuple[list[int], int]:
    """Times of frames and the duration, in microseconds."""
    step = US_PER_S // rate
    return [number * step for number in range(frames)], frames * step


def spans(frames: int, window_s: float, stride_s: float) -> list[tuple[float, float, range]]:
    windows = cut(*evenly(frames), WindowRule.of(window_s, stride_s))
    assert [window.number for window in windows] == list(range(len(windows)))
    return [(window.start_us / US_PER_S, window.end_us / US_PER_S, window.frames) for window in windows]


@pytest.mark.parametrize(
    ("frames", "window_s", "stride_s", "expected"),
    [
        # shorter than a window, exactly one, one frame more
        (7, 1, 1, [(0, 0.7, range(7))]),
        (10, 1, 1, [(0, 1, range(10))]),
        (11, 1, 1, [(0, 1, range(10)), (1, 1.1, range(10, 11))]),
        # overlapping: the first window that reaches the end is the last
        (20, 1, 0.5, [(0, 1, range(10)), (0.5, 1.5, range(5, 15)), (1, 2, range(10, 20))]),
        (18, 1, 0.5, [(0, 1, range(10)), (0.5, 1.5, range(5, 15)), (1, 1.8, range(10, 18))]),
        (7, 1, 0.2, [(0, 0.7, range(7))]),
        # with gaps: a window begins before the end or does not exist
        (40, 1, 2, [(0, 1, range(10)), (2, 3, range(20, 30))]),
        (41, 1, 2, [(0, 1, range(10)), (2, 3, range(20, 30)), (4, 4.1, range(40, 41))]),
        (35, 1, 2, [(0, 1, range(10)), (2, 3, range(20, 30))]),
        # boundaries that floats would miss: 3 * 0.1 is more than the time of frame 3
        (5, 0.1, 0.1, [(k / 10, (k + 1) / 10, range(k, k + 1)) for k in range(5)]),
    ],
)
def test_windows_of_an_even_video(
    frames: int, window_s: float, stride_s: float, expected: list[tuple[float, float, range]]
) -> None:
    assert spans(frames, window_s, stride_s) == expected


def test_window_without_a_new_frame_has_the_one_on_the_screen() -> None:
    times = [0, 100_000, 3_500_000]
    windows = cut(times, 5_000_000, WindowRule.of(1, 1))
    assert [window.frames for window in windows] == [
        range(2), range(1, 2), range(1, 2), range(2, 3), range(2, 3),
    ]  # fmt: skip


def test_rounded_down_duration_loses_no_frame() -> None:
    (window,) = cut([0, 333_333, 666_667], 666_667, WindowRule.of(1, 1))
    assert window == Window(0, 0, 666_667, range(3))


videos = st.lists(st.integers(0, 400_000), min_size=1, max_size=60).map(
    lambda steps: [sum(steps[:count]) - steps[0] for count in range(1, len(steps) + 1)]
)


@given(videos, st.integers(0, 500_000), st.integers(1, 4_000_000), st.integers(20_000, 4_000_000))
def test_windows_of_every_video(times: list[int], rest_us: int, length_us: int, stride_us: int) -> None:
    duration_us = times[-1] + rest_us
    windows = cut(times, duration_us, WindowRule(length_us, stride_us))
    assert len(windows) == WindowRule(length_us, stride_us).count(duration_us)
    for window in windows:
        assert window.start_us == window.number * stride_us
        assert window.end_us == min(window.start_us + length_us, duration_us)
        assert window.frames
        assert 0 <= window.frames.start < window.frames.stop <= len(times)
        inside = [number for number, time in enumerate(times) if window.start_us <= time < window.end_us]
        if inside and window.end_us < duration_us:
            assert list(window.frames) == inside
    for window in windows[:-1]:
        assert window.end_us < duration_us
    if stride_us <= length_us:
        assert windows[-1].end_us == duration_us
        assert {number for window in windows for number in window.frames} == set(range(len(times)))
