"""The tasks of `blvnet synth --task`: what their labels have in common and what distinguishes them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from model_export.datasets.folders import read_synthetic
from model_export.synthetic.appearance import SpriteFactory, bank
from model_export.synthetic.dataset import plan, write_dataset
from model_export.synthetic.drawing.painting import FrameSize, Painter, Sprite
from model_export.synthetic.drawing.render import render_video
from model_export.synthetic.encode import Encoding
from model_export.synthetic.formats import VideoFormat
from model_export.synthetic.labels import LABELS, SPLITS
from model_export.synthetic.tasks import events
from model_export.synthetic.tasks.names import Task
from model_export.synthetic.tasks.registry import TASKS
from service.clip.sampling import uniform_indices

SMALL = VideoFormat(FrameSize(48, 48), 32, Encoding("h264", Fraction(10), 20, 0, 12))
# Of the frames and encodings of the first five labels; the videos of the accuracy benchmark depend on them.
SIMPLE_DIGEST = "bfaf79cef71311ad2f21ec445aa46a21e602594d11c8017fb9a253004fc55bbe"


def frames_of(task: Task, label: str, *seed: int, layout: VideoFormat = SMALL) -> npt.NDArray[np.uint8]:
    return render_video(label, "train", *seed, task=task, layout=layout).frames


def test_videos_without_a_task_are_those_of_the_accuracy_benchmark() -> None:
    digest = hashlib.sha256()
    for index, label in enumerate(LABELS[:5]):
        video = render_video(label, "test", 190_200_869, index)
        digest.update(video.frames.tobytes())
        digest.update(repr(video.encoding).encode())
    assert digest.hexdigest() == SIMPLE_DIGEST


@pytest.mark.parametrize("task", Task)
def test_same_seed_gives_the_same_frames_and_another_seed_others(task: Task) -> None:
    label = TASKS[task].labels[1]
    frames = frames_of(task, label, 3, 7)
    assert frames.dtype == np.uint8
    assert frames.shape == (32, 48, 48, 3)
    assert np.array_equal(frames, frames_of(task, label, 3, 7))
    assert not np.array_equal(frames, frames_of(task, label, 3, 8))


@pytest.mark.parametrize("task", Task)
def test_mirror_and_reversal_tables_are_their_own_inverses(task: Task) -> None:
    spec = TASKS[task]
    for table in (spec.mirrored, spec.reversed):
        assert set(table) == set(spec.labels)
        assert all(table[table[label]] == label for label in spec.labels)
    assert len(set(spec.labels)) == len(spec.labels)


def test_events_have_every_order_of_four_kinds() -> None:
    assert len(events.LABELS) == 24
    assert events.REVERSED["rise, slide, swell, vanish"] == "vanish, swell, slide, rise"
    assert all(events.REVERSED[label] != label == events.MIRRORED[label] for label in events.LABELS)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("frames", [4, 8, 16, 32])
def test_events_of_a_seed_have_the_same_sampled_frames_for_every_label(seed: int, frames: int) -> None:
    """A network that ignores the order of frames gives all 24 labels of a seed the same answer."""
    sampled = list(uniform_indices(32, frames))
    seen = {
        tuple(sorted(frame.tobytes() for frame in frames_of(Task.EVENTS, label, seed)[sampled]))
        for label in events.LABELS[::5]
    }
    assert len(seen) == 1


@pytest.mark.parametrize("frames", [8, 16, 32])
def test_events_of_a_seed_have_the_same_pairs_of_frames_for_every_label(frames: int) -> None:
    """Nor does the fusion of neighbouring frames help, as in bLVNet without a temporal module."""
    sampled = list(uniform_indices(32, frames))
    seen = set()
    for label in events.LABELS[::5]:
        clip = frames_of(Task.EVENTS, label, 1)[sampled]
        seen.add(
            tuple(
                sorted(
                    even.tobytes() + odd.tobytes() for even, odd in zip(clip[::2], clip[1::2], strict=True)
                )
            )
        )
    assert len(seen) == 1


def test_events_differ_in_their_order_and_begin_and_end_at_rest() -> None:
    layout = VideoFormat(FrameSize(48, 48), 160, SMALL.encoding)
    for seed in range(4):
        parts = events.render_parts(np.random.default_rng(seed), "val", layout).astype(np.int16)
        assert parts.shape[:2] == (4, 40)
        ends = np.concatenate([parts[:, 0], parts[:, -1]])
        moved = [np.abs(part - part[0]).mean() for part in parts]
        # Apart from noise, all parts have the same picture at both ends, and a different one in between.
        assert np.abs(ends - ends[0]).mean() < 0.5 * min(moved) + 8
        middle = parts[:, 8:32].mean(axis=1)
        assert all(np.abs(middle[a] - middle[b]).max() > 20 for a in range(4) for b in range(a))


def test_events_look_the_same_backwards_except_for_the_order() -> None:
    """The progress of an event, averaged over many, is symmetric in time."""
    time = (np.arange(40) + 0.5) / 40
    rng = np.random.default_rng(5)
    mean = np.mean([events.course(rng, time) for _ in range(3000)], axis=0)
    assert mean == pytest.approx(mean[::-1], abs=0.05)
    assert mean.max() > 0.5
    assert mean[[0, -1]] == pytest.approx(0, abs=1e-9)


def test_video_of_events_has_a_keyframe_at_the_start_of_each_part() -> None:
    video = render_video(events.LABELS[3], "train", 5, task=Task.EVENTS)
    assert len(video.frames) == 4 * video.encoding.gop
    assert video.encoding.b_frames == 0


def test_hard_motions_are_the_same_labels_backwards_and_forwards() -> None:
    label, opposite = LABELS[:2]
    forward, backward = (frames_of(Task.MOTIONS, one, 4) for one in (label, opposite))
    assert np.array_equal(forward, backward[::-1])
    assert not np.array_equal(forward, frames_of(Task.SIMPLE, label, 4))


def test_hard_motions_take_place_in_less_light_and_before_a_camera_that_moves() -> None:
    def light(task: Task) -> list[float]:
        return [float(frames_of(task, LABELS[-2], seed).mean()) for seed in range(24)]

    def unrest(task: Task) -> float:
        """Change of the corner, where only the camera moves, over a video of a still object."""
        clips = [frames_of(task, LABELS[-2], seed)[:, :8, :8].astype(np.int16) for seed in range(24)]
        return float(np.mean([np.abs(clip[-1] - clip[0]).mean() for clip in clips]))

    assert min(light(Task.MOTIONS)) < min(light(Task.SIMPLE))
    assert unrest(Task.MOTIONS) > 1.5 * unrest(Task.SIMPLE)


def test_arm_of_a_hand_reaches_from_its_wrist_out_of_the_frame() -> None:
    side = 96
    sprites = SpriteFactory(np.random.default_rng(5), bank("train"), FrameSize(side, side), 0)
    hand = sprites.reaching_hand(0.3, 1.5, tilt_deg=0.0, pointing=True)
    canvas = np.zeros((side, side, 3), np.float32)
    Painter(canvas, sprites.frame_size).put(replace(hand, levels=alpha_of(hand)), 0.0, 0.0, 0.3)
    rows = np.flatnonzero(canvas.max(axis=(1, 2)) > 0.5)
    assert rows.max() == side - 1
    assert rows.min() == pytest.approx(side / 2 - 0.15 * side, abs=4)  # the tip of the finger


def alpha_of(look: Sprite) -> tuple[npt.NDArray[np.float32], ...]:
    """The levels of a sprite in white."""
    return tuple(np.repeat(level[..., 3:], 4, axis=2) for level in look.levels)


def test_single_objects_are_hands_and_other_labels_are_those_of_motions() -> None:
    def both(label: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        plain, hands = (
            TASKS[task].render(np.random.default_rng(3), label, "train", SMALL)
            for task in (Task.MOTIONS, Task.HANDS)
        )
        return plain, hands

    plain, hands = both("Picking something up")
    assert np.array_equal(plain, hands)
    plain, hands = both("Moving something up")
    assert not np.array_equal(plain, hands)


def test_appearance_of_a_label_moves_at_random() -> None:
    clips = [frames_of(Task.APPEARANCE, "ring", seed) for seed in range(6)]
    assert all(np.abs(clip[0].astype(np.int16) - clip[-1]).max() > 40 for clip in clips)


@pytest.mark.parametrize("task", [Task.EVENTS, Task.APPEARANCE])
def test_folder_of_a_task_has_its_labels_and_symmetries(task: Task, tmp_path: Path) -> None:
    spec = TASKS[task]
    labels = spec.labels[:2]
    plans = [one for one in plan(len(spec.labels), 6, {"train": 1}, task) if one.label in labels]
    list(write_dataset(tmp_path, plans, jobs=1))
    assert tuple(json.loads((tmp_path / "labels.json").read_text())) == spec.labels
    listing = read_synthetic(tmp_path, "train")
    assert listing.labels == spec.labels
    assert len(listing.examples) == 2
    assert listing.symmetry.mirrored == tuple(range(len(spec.labels)))
    reverse = [spec.labels[index] for index in listing.symmetry.reversed if index is not None]
    assert reverse == [spec.reversed[label] for label in spec.labels]


@pytest.mark.parametrize("task", Task)
def test_plan_of_a_task_is_balanced_over_its_labels(task: Task) -> None:
    plans = plan(200, 1, task=task)
    for split in SPLITS:
        counts = Counter(dict.fromkeys(TASKS[task].labels, 0))
        counts.update(one.label for one in plans if one.split == split)
        assert max(counts.values()) - min(counts.values()) <= 1
