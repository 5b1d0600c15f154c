from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.clip.sampling import dense_indices, sample_indices, uniform_indices
from service.clip.spec import ClipSpec, Sampling

COUNTS = st.integers(1, 100_000)
FRAMES = st.integers(1, 64)


@pytest.mark.parametrize(
    ("frame_count", "frames", "expected"),
    [
        (1, 1, (0,)),
        (1, 4, (0, 0, 0, 0)),
        (2, 4, (0, 0, 1, 1)),
        (3, 4, (0, 1, 1, 2)),
        (4, 4, (0, 1, 2, 3)),
        (5, 4, (0, 1, 3, 4)),
        (7, 3, (1, 3, 5)),
        (8, 4, (1, 3, 5, 7)),
        (16, 16, tuple(range(16))),
        (17, 16, (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16)),
        (48, 16, tuple(range(1, 48, 3))),
        (250, 8, (15, 46, 78, 109, 140, 171, 203, 234)),
    ],
)
def test_uniform_takes_the_middle_of_each_segment(
    frame_count: int, frames: int, expected: tuple[int, ...]
) -> None:
    assert uniform_indices(frame_count, frames) == expected


@given(COUNTS, FRAMES, st.integers(1, 10), st.data())
def test_uniform_is_the_rule_in_exact_arithmetic(n: int, t: int, clips: int, data: st.DataObject) -> None:
    clip = data.draw(st.integers(0, clips - 1))
    phase = Fraction(2 * clip + 1, 2 * clips)
    assert uniform_indices(n, t, clip, clips) == tuple(floor(Fraction(n, t) * (k + phase)) for k in range(t))


@given(COUNTS, FRAMES, st.integers(1, 10))
def test_uniform_clips_stay_inside_the_video_and_never_go_back(n: int, t: int, clips: int) -> None:
    for clip in range(clips):
        indices = uniform_indices(n, t, clip, clips)
        assert len(indices) == t
        assert list(indices) == sorted(indices)
        assert 0 <= indices[0] <= indices[-1] < n


def test_several_uniform_clips_share_each_segment_out() -> None:
    clips = [uniform_indices(40, 4, clip, 5) for clip in range(5)]
    assert clips == [(1, 11, 21, 31), (3, 13, 23, 33), (5, 15, 25, 35), (7, 17, 27, 37), (9, 19, 29, 39)]


@pytest.mark.parametrize(
    ("frame_count", "frames", "stride", "clip", "clips", "expected"),
    [
        (100, 4, 8, 0, 1, (34, 42, 50, 58)),  # one window: centred
        (100, 4, 8, 0, 3, (0, 8, 16, 24)),  # several: from the first frame ...
        (100, 4, 8, 1, 3, (34, 42, 50, 58)),
        (100, 4, 8, 2, 3, (68, 76, 84, 92)),  # ... to the last window of 32 that fits
        (32, 4, 8, 0, 1, (0, 8, 16, 24)),  # exactly one window
        (32, 4, 8, 2, 3, (0, 8, 16, 24)),
        (20, 4, 8, 0, 1, (0, 8, 16, 4)),  # shorter: wraps round
        (1, 4, 8, 0, 1, (0, 0, 0, 0)),
        (10, 4, 1, 0, 1, (3, 4, 5, 6)),
    ],
)
def test_dense_takes_windows_at_a_fixed_stride(
    frame_count: int, frames: int, stride: int, clip: int, clips: int, expected: tuple[int, ...]
) -> None:
    assert dense_indices(frame_count, frames, stride, clip, clips) == expected


@given(COUNTS, FRAMES, st.integers(1, 16), st.integers(1, 10))
def test_dense_windows_fit_and_spread_from_end_to_end(n: int, t: int, stride: int, clips: int) -> None:
    windows = [dense_indices(n, t, stride, clip, clips) for clip in range(clips)]
    assert all(0 <= index < n for window in windows for index in window)
    if n >= t * stride and clips > 1:
        assert windows[0][0] == 0
        assert windows[-1][0] == n - t * stride
        steps = {after[0] - before[0] for before, after in pairwise(windows)}
        assert max(steps) - min(steps) <= 1


def test_sample_indices_follows_the_spec() -> None:
    uniform = ClipSpec(frames=4, inputs=(), sampling=Sampling.UNIFORM, stride=8)
    dense = ClipSpec(frames=4, inputs=(), sampling=Sampling.DENSE, stride=8)
    assert sample_indices(uniform, 100, 3) == tuple(uniform_indices(100, 4, clip, 3) for clip in range(3))
    assert sample_indices(dense, 100, 3) == tuple(dense_indices(100, 4, 8, clip, 3) for clip in range(3))


@pytest.mark.parametrize(
    ("frame_count", "frames", "clip", "clips"),
    [(0, 16, 0, 1), (-1, 16, 0, 1), (9, 0, 0, 1), (9, 4, 2, 2), (9, 4, -1, 2)],
)
def test_impossible_requests_are_refused(frame_count: int, frames: int, clip: int, clips: int) -> None:
    with pytest.raises(ValueError, match=r"cannot take|there is no clip"):
        uniform_indices(frame_count, frames, clip, clips)
    with pytest.raises(ValueError, match=r"cannot take|there is no clip"):
        dense_indices(frame_count, frames, 1, clip, clips)


def test_dense_refuses_a_stride_that_goes_nowhere() -> None:
    with pytest.raises(ValueError, match="stride"):
        dense_indices(10, 4, 0)
