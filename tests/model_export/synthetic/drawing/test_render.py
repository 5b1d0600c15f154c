import numpy as np
import numpy.typing as npt
import pytest

from model_export.synthetic.drawing.render import RenderedVideo, render_video
from model_export.synthetic.labels import LABELS, PAIRS


def track(clip: RenderedVideo) -> npt.NDArray[np.float64]:
    """Centre of the difference from the median frame, `(frames, 2)` in pixels, x first."""
    grey = clip.frames.mean(axis=3)
    moving = np.clip(np.abs(grey - np.median(grey, axis=0)) - 12, 0, None)
    total = moving.sum(axis=(1, 2)) + 1e-6
    x = (moving.sum(axis=1) * np.arange(grey.shape[2])).sum(axis=1) / total
    y = (moving.sum(axis=2) * np.arange(grey.shape[1])).sum(axis=1) / total
    return np.stack([x, y], axis=-1)


def progress(label: str, axis: int, seeds: int = 12) -> npt.NDArray[np.float64]:
    """Movement along an axis from the first to the last third of some videos, in frame sides."""
    moved = []
    for seed in range(seeds):
        clip = render_video(label, "train", seed)
        third = len(clip.frames) // 3
        path = track(clip)[:, axis]
        moved.append((path[-third:].mean() - path[:third].mean()) / min(clip.frames.shape[1:3]))
    return np.array(moved)


@pytest.mark.parametrize(("label", "reverse"), PAIRS)
@pytest.mark.parametrize("seed", [0, 1])
def test_reverse_has_the_same_frames_in_opposite_order_and_the_same_encoding(
    label: str, reverse: str, seed: int
) -> None:
    clip, backwards = render_video(label, "train", seed), render_video(reverse, "train", seed)
    assert np.array_equal(clip.frames, backwards.frames[::-1])
    assert clip.encoding == backwards.encoding
    assert not np.array_equal(clip.frames, backwards.frames)


def test_pair_is_indistinguishable_without_the_order_of_frames() -> None:
    """Sorted frames are equal, so a network that ignores their order gives both videos the same answer."""
    clip, backwards = (render_video(label, "test", 5) for label in PAIRS[3])
    assert sorted(frame.tobytes() for frame in clip.frames) == sorted(
        frame.tobytes() for frame in backwards.frames
    )


@pytest.mark.parametrize(
    ("label", "axis", "sign"),
    [
        ("Moving something from left to right", 0, 1),
        ("Moving something from right to left", 0, -1),
        ("Moving something up", 1, -1),
        ("Moving something down", 1, 1),
    ],
)
def test_objects_move_in_the_direction_of_the_label(label: str, axis: int, sign: int) -> None:
    moved = sign * progress(label, axis)
    assert np.median(moved) > 0.2
    assert (moved > 0).mean() >= 0.9


@pytest.mark.parametrize("label", LABELS)
def test_videos_have_the_documented_sizes_rates_and_lengths(label: str) -> None:
    clip = render_video(label, "val", 3)
    count, height, width, channels = clip.frames.shape
    assert clip.frames.dtype == np.uint8
    assert channels == 3
    assert height % 2 == width % 2 == 0
    assert 96 <= min(height, width) <= max(height, width) <= 426
    assert 8 <= clip.encoding.fps <= 30
    assert 1.5 <= count / clip.encoding.fps <= 6.1


def test_formats_vary_as_real_uploads_do() -> None:
    clips = [render_video("Holding something still", "train", seed) for seed in range(60)]
    shapes = [clip.frames.shape for clip in clips]
    assert any(height > width for _, height, width, _ in shapes)
    assert any(height < width for _, height, width, _ in shapes)
    assert {clip.encoding.codec for clip in clips} == {"h264", "vp9"}
    assert {clip.encoding.b_frames > 0 for clip in clips} == {True, False}
    assert len({clip.encoding.fps for clip in clips}) >= 5
    assert 30 <= np.mean([count for count, *_ in shapes]) <= 60


def test_same_seed_gives_the_same_clip_and_another_seed_another() -> None:
    first, again, other = (render_video(LABELS[0], "train", 1, index) for index in (4, 4, 5))
    assert np.array_equal(first.frames, again.frames)
    assert first.encoding == again.encoding
    assert first.frames.shape != other.frames.shape or not np.array_equal(first.frames, other.frames)


def test_holding_still_changes_little_and_shaking_much() -> None:
    def unrest(label: str) -> float:
        clips = (render_video(label, "train", seed).frames.astype(np.float32) for seed in range(10))
        return float(np.median([np.abs(clip - clip.mean(axis=0)).max(axis=3).mean() for clip in clips]))

    assert unrest("Shaking something") > 1.5 * unrest("Holding something still")
