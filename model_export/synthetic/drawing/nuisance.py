"""Nuisance variation of real videos: a shaky camera, distractors, noise, blur, flicker.

All of it has the same distribution for every label and for both directions of time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from model_export.synthetic.appearance import SpriteFactory
from model_export.synthetic.drawing.painting import Image, Painter
from model_export.synthetic.drawing.textures import Rng

MAX_CAMERA: Final = 0.05  # largest displacement of the camera, in units
_NOISE_SIDE: Final = 640  # pixels of the noise bank; larger than any frame


@dataclass(frozen=True)
class Nuisance:
    """Everything in a video except its action.

    `camera` is float64 `(frames, 2)` in units, `gain` float64 `(frames,)`. `noise` and `blur` are standard
    deviations in grey levels and in pixels, 0 for none. `lamp` is float32 `(H, W, 1)`, factors of brightness,
    and `gamma` the exponent of all values in 0..1. `behind` and `before` paint at a time in 0..1.
    """

    camera: npt.NDArray[np.float64]
    gain: npt.NDArray[np.float64]
    noise: float
    blur: float
    behind: Callable[[Painter, float], None]
    before: Callable[[Painter, float], None]
    lamp: Image | None = None
    gamma: float = 1.0

    def degrade(self, canvas: Image, frame: int, rng: Rng) -> npt.NDArray[np.uint8]:
        """Blur and light a painted frame and add noise; returns uint8."""
        if self.blur:
            canvas = np.asarray(cv2.GaussianBlur(canvas, (0, 0), self.blur))
        canvas = canvas * np.float32(self.gain[frame])
        if self.lamp is not None:
            canvas *= self.lamp
        if self.gamma != 1.0:
            canvas = np.float32(255) * (np.clip(canvas, 0, 255) / np.float32(255)) ** np.float32(self.gamma)
        if self.noise:
            height, width = canvas.shape[:2]
            y, x = int(rng.integers(0, _NOISE_SIDE - height)), int(rng.integers(0, _NOISE_SIDE - width))
            canvas += np.float32(self.noise) * _noise_bank()[y : y + height, x : x + width]
        return np.asarray(np.clip(canvas + np.float32(0.5), 0, 255), dtype=np.uint8)


def draw_nuisance(rng: Rng, sprites: SpriteFactory, frames: int, duration_s: float) -> Nuisance:
    """Draw the nuisance of one video."""
    unit = sprites.frame_size.unit
    distract = _distractors(rng, sprites)
    in_front = rng.random() < 0.25
    bar = _bar(rng, sprites)

    def before(painter: Painter, time: float) -> None:
        if in_front:
            distract(painter, time)
        bar(painter, time)

    camera = _camera(rng, frames, duration_s)
    flicker = 0.0 if rng.random() < 0.5 else rng.uniform(0.005, 0.035)
    return Nuisance(
        camera=camera,
        gain=1.0 + flicker * _wobble(rng, frames, duration_s),
        noise=0.0 if rng.random() < 0.3 else rng.uniform(1.0, 9.0),
        blur=0.0 if rng.random() < 0.55 else rng.uniform(0.004, 0.011) * unit,
        behind=_nothing if in_front else distract,
        before=before,
    )


def _nothing(painter: Painter, time: float) -> None:
    del painter, time


def _wobble(rng: Rng, frames: int, duration_s: float) -> npt.NDArray[np.float64]:
    """Smooth random oscillation of about unit size: three sines from 0.5 to 4 Hz."""
    time = np.linspace(0, duration_s, frames)
    frequency, phase = rng.uniform(0.5, 4.0, size=3), rng.uniform(0, 2 * math.pi, size=3)
    return np.asarray(np.sin(2 * math.pi * frequency[:, None] * time + phase[:, None]).sum(axis=0) / 2)


def _camera(rng: Rng, frames: int, duration_s: float) -> npt.NDArray[np.float64]:
    shake = 0.0 if rng.random() < 0.25 else rng.uniform(0.001, 0.011)
    drift = rng.uniform(-0.03, 0.03, size=2) if rng.random() < 0.3 else np.zeros(2)
    shaken = np.stack([_wobble(rng, frames, duration_s) for _ in range(2)], axis=-1) * shake
    path = shaken + np.linspace(-0.5, 0.5, frames)[:, None] * drift
    return np.clip(path, -MAX_CAMERA, MAX_CAMERA)


def _distractors(rng: Rng, sprites: SpriteFactory) -> Callable[[Painter, float], None]:
    """One or two small objects that jitter, circle, drift or stand still, in a third of the videos."""
    count = int(rng.choice(3, p=[0.65, 0.22, 0.13]))
    painters = [_distractor(rng, sprites) for _ in range(count)]

    def paint(painter: Painter, time: float) -> None:
        for one in painters:
            one(painter, time)

    return paint


def _distractor(rng: Rng, sprites: SpriteFactory) -> Callable[[Painter, float], None]:
    size = rng.uniform(0.05, 0.1)
    look = sprites.thing(size, colour=sprites.colour(keep=False))
    place = np.array(
        [rng.uniform(-1, 1) * sprites.frame_size.reach_x, rng.uniform(-1, 1) * sprites.frame_size.reach_y]
    )
    circle, turns, start = rng.uniform(0.02, 0.06), rng.uniform(-2.5, 2.5), rng.uniform(0, 2 * math.pi)
    drift = rng.uniform(-0.13, 0.13, size=2)
    kind = rng.choice(["stand", "circle", "drift", "jitter"])

    def paint(painter: Painter, time: float) -> None:
        angle = start + 2 * math.pi * turns * time
        shift = {
            "stand": np.zeros(2),
            "circle": circle * np.array([math.cos(angle), math.sin(angle)]),
            "drift": drift * (time - 0.5),
            "jitter": 0.25 * circle * np.array([math.sin(7 * angle), math.cos(11 * angle)]),
        }[kind]
        x, y = place + shift
        painter.put(look, float(x), float(y), size)

    return paint


def _bar(rng: Rng, sprites: SpriteFactory) -> Callable[[Painter, float], None]:
    """A thin bar across the frame in front of everything, in an eighth of the videos."""
    if rng.random() >= 0.12:
        return _nothing
    image = sprites.plain(sprites.colour(keep=False))
    thick, place = rng.uniform(0.03, 0.075) / 2, rng.uniform(-0.4, 0.4)
    lean = rng.uniform(-0.15, 0.15)
    far = 1.2 * max(sprites.frame_size.reach_x, sprites.frame_size.reach_y) + 0.1
    upright = [
        (place - thick - lean, -far),
        (place + thick - lean, -far),
        (place + thick + lean, far),
        (place - thick + lean, far),
    ]
    corners = upright if rng.random() < 0.5 else [(y, x) for x, y in upright]
    return lambda painter, _: painter.quad(image, corners)


@cache
def _noise_bank() -> npt.NDArray[np.float32]:
    """White noise from which frames take parts, because drawing it for each frame takes most of the time."""
    rng = np.random.default_rng(65537)
    return rng.standard_normal((_NOISE_SIDE, _NOISE_SIDE, 3), dtype=np.float32)
