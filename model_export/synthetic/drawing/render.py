"""Render one video: from a task, a label and a seed to frames and their encoding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model_export.synthetic.encode import Encoding
from model_export.synthetic.formats import VideoFormat, draw_format
from model_export.synthetic.labels import Split
from model_export.synthetic.tasks.names import Task
from model_export.synthetic.tasks.registry import TASKS, seed_of
from model_export.synthetic.tasks.scene import Frames


@dataclass(frozen=True)
class RenderedVideo:
    """Frames uint8 `(frames, H, W, 3)` RGB, and how to write them."""

    frames: Frames
    encoding: Encoding


def render_video(
    label: str, split: Split, *seed: int, task: Task = Task.SIMPLE, layout: VideoFormat | None = None
) -> RenderedVideo:
    """Render the video of a label for a seed of one or more numbers.

    Two labels of a pair of motions use the same draws: for the same seed, a label and its reverse have the
    same frames in opposite order and the same encoding. All labels of the task `events` share their draws in
    the same way: for the same seed they have the same frames in different orders.

    Args:
        label: one of the task's labels.
        split: determines which shapes, textures, colours and hands may be shown.
        seed: determines the video.
        task: the task that the label belongs to.
        layout: the video's format; None draws one.
    """
    rng = np.random.default_rng(seed_of(task, label, split, seed))
    spec = TASKS[task]
    layout = spec.fit(draw_format(rng) if layout is None else layout)
    return RenderedVideo(spec.render(rng, label, split, layout), layout.encoding)
