"""Parts that the renderers of all tasks share: painting frame by frame, and flips that keep the label."""

from __future__ import annotations

import math
from collections.abc import Mapping

import cv2
import numpy as np
import numpy.typing as npt

from model_export.synthetic.appearance import SpriteFactory
from model_export.synthetic.drawing.nuisance import Nuisance
from model_export.synthetic.drawing.painting import FrameSize, Painter
from model_export.synthetic.drawing.textures import Rng
from model_export.synthetic.motions import Paint

Frames = npt.NDArray[np.uint8]  # (frames, H, W, 3) RGB


def margin_px(frame_size: FrameSize, camera: float) -> int:
    """Pixels that a background needs on every side for camera displacements up to `camera` units."""
    return math.ceil(camera * frame_size.unit) + 1


def paint_frames(
    rng: Rng,
    sprites: SpriteFactory,
    nuisance: Nuisance,
    paint: Paint,
    phases: npt.NDArray[np.float64],
    times: npt.NDArray[np.float64],
    zoom: float = 1.0,
    exposures: int = 1,
) -> Frames:
    """Paint the background, the nuisance at `times[i]` and the action at `phases[i]`, for every frame i.

    `zoom` scales all lengths of the action and of the nuisance about the frame's centre. With more than one
    of `exposures`, a frame is the mean of that many moments up to the next frame, so what moves is blurred.
    """
    frame_size = sprites.frame_size
    margin = (sprites.background.shape[0] - frame_size.height) // 2
    frames = np.empty((len(phases), frame_size.height, frame_size.width, 3), dtype=np.uint8)
    for index, (phase, time) in enumerate(zip(phases, times, strict=True)):
        camera_x, camera_y = nuisance.camera[index]
        shift = np.array(
            [
                [1.0, 0.0, camera_x * frame_size.unit - margin],
                [0.0, 1.0, camera_y * frame_size.unit - margin],
            ]
        )
        size = frame_size.width, frame_size.height
        background = np.asarray(cv2.warpAffine(sprites.background, shift, size), dtype=np.float32)
        until = phases[min(index + 1, len(phases) - 1)]
        exposed = []
        for part in range(exposures):
            canvas = background.copy()
            painter = Painter(canvas, frame_size, camera_x, camera_y, zoom)
            nuisance.behind(painter, float(time))
            paint(painter, float(phase + (until - phase) * part / exposures))
            nuisance.before(painter, float(time))
            exposed.append(canvas)
        frames[index] = nuisance.degrade(np.mean(exposed, axis=0, dtype=np.float32), index, rng)
    return frames


def flipped_at_random(
    rng: Rng, label: str, frames: Frames, mirrored: Mapping[str, str], backwards: Mapping[str, str]
) -> Frames:
    """Reverse and mirror the frames at random, where that does not change the label.

    This makes the tables of mirrored and reversed labels exact in distribution for any motion.
    """
    flips = [(reverse, mirror) for reverse in (False, True) for mirror in (False, True)]

    def flipped(reverse: bool, mirror: bool) -> str:
        after = backwards[label] if reverse else label
        return mirrored[after] if mirror else after

    keeping = [flip for flip in flips if flipped(*flip) == label]
    reverse, mirror = keeping[rng.integers(len(keeping))]
    frames = frames[::-1] if reverse else frames
    return frames[:, :, ::-1] if mirror else frames
