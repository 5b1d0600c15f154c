"""One clip: from a seed and a label to frames and the way they are to be encoded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from model_export.synthetic.bank import bank
from model_export.synthetic.classes import FORWARD, LABELS, MIRRORED, REVERSED
from model_export.synthetic.encode import Encoding
from model_export.synthetic.fields import Rng
from model_export.synthetic.motions import MOTIONS
from model_export.synthetic.nuisance import MAX_CAMERA, draw_nuisance
from model_export.synthetic.painting import Painter, Stage
from model_export.synthetic.props import Props
from model_export.synthetic.split import SPLITS, Split
from model_export.synthetic.timing import draw_timing

# (longer side, shorter side) and how often; small ones are the most, as they cost the least.
_SIZES: Final = (
    ((96, 96), 2), ((128, 96), 9), ((160, 120), 20), ((176, 144), 11), ((192, 144), 8), ((160, 160), 3),
    ((224, 128), 7), ((256, 144), 8), ((240, 180), 5), ((320, 180), 5), ((320, 240), 5), ((426, 240), 2),
)  # fmt: skip
_RATES: Final = (
    (Fraction(8), 10), (Fraction(10), 17), (Fraction(12), 19), (Fraction(15), 25), (Fraction(20), 9),
    (Fraction(24), 7), (Fraction(25), 7), (Fraction(30000, 1001), 2), (Fraction(30), 5),
)  # fmt: skip
T = TypeVar("T")

_PORTRAIT: Final = 0.35
_SHORTEST_S: Final = 1.5
_LONGEST_S: Final = 6.0


@dataclass(frozen=True)
class Clip:
    """Frames uint8 `(frames, H, W, 3)` RGB, and how to write them."""

    frames: npt.NDArray[np.uint8]
    encoding: Encoding


@dataclass(frozen=True)
class _Format:
    stage: Stage
    frames: int
    encoding: Encoding

    @property
    def duration_s(self) -> float:
        return float(self.frames / self.encoding.fps)


def render_clip(label: str, split: Split, *seed: int) -> Clip:
    """The clip of a label for a seed, which may be several numbers.

    Nothing that is drawn depends on which label of a pair is asked for: a label and its reverse have, for the
    same seed, the same frames in opposite order and the same encoding.
    """
    forward = FORWARD[label]
    rng = np.random.default_rng([*seed, SPLITS.index(split), LABELS.index(forward)])
    layout = _draw_format(rng)
    frames = _symmetrised(rng, forward, _render(rng, forward, split, layout))
    return Clip(frames if label == forward else frames[::-1], layout.encoding)


def _symmetrised(rng: Rng, label: str, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The clip as it is, reversed, mirrored, or both: one of those that leave the label as it is.

    This makes the reverse and mirror tables exact in distribution, whatever a motion draws.
    """
    flips = [(reverse, mirror) for reverse in (False, True) for mirror in (False, True)]
    keeping = [flip for flip in flips if _flipped(label, *flip) == label]
    reverse, mirror = keeping[rng.integers(len(keeping))]
    frames = frames[::-1] if reverse else frames
    return frames[:, :, ::-1] if mirror else frames


def _flipped(label: str, reverse: bool, mirror: bool) -> str:
    after = REVERSED[label] if reverse else label
    return MIRRORED[after] if mirror else after


def _render(rng: Rng, label: str, split: Split, layout: _Format) -> npt.NDArray[np.uint8]:
    stage, count = layout.stage, layout.frames
    margin = math.ceil(MAX_CAMERA * stage.unit) + 1
    props = Props(rng, bank(split), stage, margin)
    timing = draw_timing(rng, count)
    paint = MOTIONS[label](rng, props, timing)
    nuisance = draw_nuisance(rng, props, count, layout.duration_s)
    frames = np.empty((count, stage.height, stage.width, 3), dtype=np.uint8)
    for index in range(count):
        camera_x, camera_y = nuisance.camera[index]
        canvas = _shifted(props, margin, camera_x * stage.unit, camera_y * stage.unit)
        painter = Painter(canvas, stage, camera_x, camera_y)
        time = index / (count - 1)
        nuisance.behind(painter, time)
        paint(painter, float(timing.phase[index]))
        nuisance.before(painter, time)
        frames[index] = nuisance.degrade(canvas, index, rng)
    return frames


def _shifted(props: Props, margin: int, x_px: float, y_px: float) -> npt.NDArray[np.float32]:
    """The background as the camera sees it from where it is."""
    matrix = np.array([[1.0, 0.0, x_px - margin], [0.0, 1.0, y_px - margin]])
    size = props.stage.width, props.stage.height
    return np.asarray(cv2.warpAffine(props.background, matrix, size), dtype=np.float32)


def _draw_format(rng: Rng) -> _Format:
    long, short = _weighted(rng, _SIZES)
    stage = Stage(short, long) if rng.random() < _PORTRAIT else Stage(long, short)
    fps = _weighted(rng, _RATES)
    duration_s = _SHORTEST_S + (_LONGEST_S - _SHORTEST_S) * rng.beta(1.0, 2.5)
    h264 = rng.random() < 0.7
    encoding = Encoding(
        codec="h264" if h264 else "vp9",
        fps=fps,
        crf=int(rng.integers(17, 31) if h264 else rng.integers(26, 44)),
        b_frames=int(rng.choice([0, 0, 2, 3])),
        gop=int(rng.choice([12, 30, 60, 250])),
    )
    return _Format(stage, max(round(duration_s * fps), math.ceil(_SHORTEST_S * fps)), encoding)


def _weighted(rng: Rng, choices: tuple[tuple[T, int], ...]) -> T:
    weights = np.array([weight for _, weight in choices], dtype=np.float64)
    return choices[int(rng.choice(len(choices), p=weights / weights.sum()))][0]
