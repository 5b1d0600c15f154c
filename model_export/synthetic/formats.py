"""The format of a generated video: frame size, number of frames, encoding."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, TypeVar

import numpy as np

from model_export.synthetic.drawing.painting import FrameSize
from model_export.synthetic.drawing.textures import Rng
from model_export.synthetic.encode import Encoding

# (longer side, shorter side) and weight. Most are small, because small videos render and encode fastest.
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
class VideoFormat:
    """Frame size, number of frames and encoding of a video."""

    frame_size: FrameSize
    frames: int
    encoding: Encoding

    @property
    def duration_s(self) -> float:
        """Length of the video in seconds."""
        return float(self.frames / self.encoding.fps)


def draw_format(rng: Rng) -> VideoFormat:
    """Draw a format as varied as those of uploads."""
    long, short = _weighted(rng, _SIZES)
    frame_size = FrameSize(short, long) if rng.random() < _PORTRAIT else FrameSize(long, short)
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
    return VideoFormat(frame_size, max(round(duration_s * fps), math.ceil(_SHORTEST_S * fps)), encoding)


def _weighted(rng: Rng, choices: tuple[tuple[T, int], ...]) -> T:
    weights = np.array([weight for _, weight in choices], dtype=np.float64)
    return choices[int(rng.choice(len(choices), p=weights / weights.sum()))][0]
