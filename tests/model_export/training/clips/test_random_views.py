"""Random frames and crops: in their segments, windows and frames, and the same for a seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model_export.datasets import Example
from model_export.datasets.reading import read_views
from model_export.training.clips.batches import DecodedClips, Draw
from model_export.training.clips.random_views import POSITIONS, SCALES, SIZES, RandomViewPlan
from model_export.training.config import CropMode, Offsets
from service.clip.spec import ClipSpec, Frames, InputSpec, Sampling
from tests.support.clips import ClipRecipe, encode, numbered_clip, read_numbers

SPEC = ClipSpec(4, (InputSpec("frames", Frames.ALL, 32, 32),))
DENSE = ClipSpec(4, SPEC.inputs, Sampling.DENSE, stride=3)


def sampled(offsets: Offsets, spec: ClipSpec, frame_count: int, count: int = 300) -> list[tuple[int, ...]]:
    plans = (RandomViewPlan(offsets=offsets, seed=seed) for seed in range(count))
    return [plan.sample(spec, frame_count)[0] for plan in plans]


def test_segment_offset_is_any_and_the_same_in_every_segment() -> None:
    clips = sampled(Offsets.SEGMENT, SPEC, 20)
    assert set(clips) == {tuple(offset + 5 * k for k in range(4)) for offset in range(5)}


def test_frame_offsets_are_independent() -> None:
    clips = sampled(Offsets.FRAME, SPEC, 20)
    assert all(frame // 5 == k for clip in clips for k, frame in enumerate(clip))
    assert len({tuple(frame % 5 for frame in clip) for clip in clips}) > 100


@pytest.mark.parametrize("offsets", [Offsets.SEGMENT, Offsets.FRAME])
def test_dense_window_starts_anywhere_and_wraps_in_short_videos(offsets: Offsets) -> None:
    assert {clip[0] for clip in sampled(offsets, DENSE, 20)} == set(range(20 - 12 + 1))
    assert all(np.diff(clip).tolist() == [3, 3, 3] for clip in sampled(offsets, DENSE, 20))
    assert set(sampled(offsets, DENSE, 5)) == {(0, 3, 1, 4)}


@pytest.mark.parametrize("frame_count", [1, 3, 4, 7])
def test_short_videos_repeat_frames_in_order(frame_count: int) -> None:
    for clip in sampled(Offsets.FRAME, SPEC, frame_count, 50):
        assert list(clip) == sorted(clip)
        assert set(clip) <= set(range(frame_count))


def test_drawn_clip_of_a_video_has_the_frames_of_its_seed(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    path.write_bytes(numbered_clip(frames=20))
    source = DecodedClips(1, SPEC, phases=1, crops=1, offsets=Offsets.SEGMENT)
    for seed in range(3):
        (clip,) = source.load(Draw(0, seed=seed), Example(path, 0))
        expected = RandomViewPlan(offsets=Offsets.SEGMENT, seed=seed).sample(SPEC, 20)[0]
        assert tuple(read_numbers(clip)) == expected


def test_sizes_and_positions_are_those_of_the_authors() -> None:
    assert len(SIZES) == 10
    assert len(set(POSITIONS)) == 13
    assert all(abs(SCALES.index(x) - SCALES.index(y)) <= 1 for x, y in SIZES)


@pytest.mark.parametrize("rotation", [0, 90])
def test_multi_scale_crop_shows_one_part_of_the_frame_at_every_input_size(
    tmp_path: Path, rotation: int
) -> None:
    """A picture whose red rises to the right and green downwards tells where a crop is, and how large."""
    width, height = 96, 64
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, width)[None, :]
    image[..., 1] = np.linspace(0, 255, height)[:, None]
    path = tmp_path / "video.mp4"
    recipe = ClipRecipe(width=width, height=height, pix_fmt="yuv444p", rotation=rotation)
    path.write_bytes(encode([image] * 4, recipe))
    inputs = (InputSpec("little", Frames.EVEN, 48, 48), InputSpec("big", Frames.ODD, 24, 24))
    shorter = 64
    parts = set()
    for seed in range(60):
        plan = RandomViewPlan(crop=CropMode.MULTI_SCALE, seed=seed)
        found = read_views(Example(path, 0), ClipSpec(4, inputs), plan=plan)
        little, big = found["little"][0, 0].astype(float), found["big"][0, 0].astype(float)
        np.testing.assert_allclose(little.mean((0, 1)), big.mean((0, 1)), atol=4)
        across, down = (0, 1) if rotation == 0 else (1, 0)
        spread = [np.ptp(little[..., across].mean(axis=0)), np.ptp(little[..., down].mean(axis=1))]
        sides = (width, height) if rotation == 0 else (height, width)
        parts.add(
            tuple(round(value / 255 * side / shorter, 2) for value, side in zip(spread, sides, strict=True))
        )
    shown = np.array(sorted(parts))
    assert 0.55 < shown.min() < 0.72
    assert 0.9 < shown.max() <= 1.05
    assert (np.abs(shown[:, 0] - shown[:, 1]) > 0.05).any()
