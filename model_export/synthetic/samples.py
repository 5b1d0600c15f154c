"""Make the sample videos of the web page: python -m model_export.synthetic.samples [FOLDER]."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from model_export.synthetic.drawing.render import render_video
from model_export.synthetic.encode import Encoding, write_video

FOLDER: Final = Path(__file__).parents[2] / "service" / "http" / "page" / "samples"
WIDTH, HEIGHT = 240, 180
RATE: Final = 12
SCENE_S: Final = 4
ENCODING: Final = Encoding("h264", Fraction(RATE), crf=27, b_frames=0, gop=48)
# File -> label and seed of each scene; the seeds give landscape videos whose motion is easy to see.
SAMPLES: Final = {
    "left-to-right.mp4": (("Moving something from left to right", 20),),
    "turning.mp4": (("Turning something clockwise", 12),),
    "five-scenes.mp4": (
        ("Moving something up", 31),
        ("Something disappearing", 13),
        ("Moving two things apart", 27),
        ("Covering something", 21),
        ("Shaking something", 5),
    ),
}


def scene(label: str, seed: int) -> npt.NDArray[np.uint8]:
    """A motion of four seconds, uint8 `(frames, HEIGHT, WIDTH, 3)` RGB."""
    frames = render_video(label, "test", seed).frames
    shown = np.linspace(0, len(frames) - 1, SCENE_S * RATE).round().astype(int)
    size = (WIDTH, HEIGHT)
    return np.stack(
        [np.asarray(cv2.resize(frames[i], size, interpolation=cv2.INTER_AREA), np.uint8) for i in shown]
    )


def main(folder: Path = FOLDER) -> None:
    """Write all samples; the same code always writes the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, scenes in SAMPLES.items():
        write_video(folder / name, np.concatenate([scene(*one) for one in scenes]), ENCODING)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
