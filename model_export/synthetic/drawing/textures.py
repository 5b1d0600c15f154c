"""Texture fields: float32 `(height, width)` in 0..1 that mix two colours over an object or a background.

Each function takes a generator, the size in pixels, and `grain`, the size of a feature in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

Rng = np.random.Generator
Field = npt.NDArray[np.float32]
FieldMaker = Callable[[Rng, int, int, float], Field]


def _axes(rng: Rng, height: int, width: int, angle: float | None = None) -> tuple[Field, Field]:
    """Pixel coordinates, rotated by `angle` (random if None) and shifted at random."""
    turn = rng.uniform(0, math.pi) if angle is None else angle
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    shift_x, shift_y = rng.uniform(0, 1000, size=2).astype(np.float32)
    cos, sin = np.float32(math.cos(turn)), np.float32(math.sin(turn))
    return x * cos + y * sin + shift_x, y * cos - x * sin + shift_y


def _normalised(values: npt.NDArray[np.floating]) -> Field:
    low, high = float(values.min()), float(values.max())
    return np.asarray(((values - low) / max(high - low, 1e-6)), dtype=np.float32)


def _value_noise(rng: Rng, height: int, width: int, grain: float, interpolation: int) -> Field:
    rows, columns = max(2, round(height / grain)), max(2, round(width / grain))
    coarse = rng.random((rows, columns), dtype=np.float32)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=interpolation), dtype=np.float32)


def flat(rng: Rng, height: int, width: int, grain: float) -> Field:
    """One colour."""
    del rng, grain
    return np.zeros((height, width), dtype=np.float32)


def stripes(rng: Rng, height: int, width: int, grain: float) -> Field:
    """Hard-edged stripes at any angle."""
    along, _ = _axes(rng, height, width)
    return np.asarray((along % (2 * grain) < grain), dtype=np.float32)


def checker(rng: Rng, height: int, width: int, grain: float) -> Field:
    """A chessboard, upright or turned."""
    u, v = _axes(rng, height, width, 0.0 if rng.random() < 0.5 else None)
    return np.asarray((u // grain + v // grain) % 2, dtype=np.float32)


def slope(rng: Rng, height: int, width: int, grain: float) -> Field:
    """A linear gradient over the whole area."""
    del grain
    return _normalised(_axes(rng, height, width)[0])


def clouds(rng: Rng, height: int, width: int, grain: float) -> Field:
    """Three octaves of bilinear value noise."""
    total = _value_noise(rng, height, width, 3 * grain, cv2.INTER_LINEAR)
    for octave in (1, 2):
        total += _value_noise(rng, height, width, 3 * grain / 2**octave, cv2.INTER_LINEAR) / 2**octave
    return _normalised(total)


def patches(rng: Rng, height: int, width: int, grain: float) -> Field:
    """Camouflage: smooth noise cut at half height."""
    return np.asarray(
        (_value_noise(rng, height, width, 1.6 * grain, cv2.INTER_CUBIC) > 0.5), dtype=np.float32
    )


def furniture(rng: Rng, height: int, width: int, grain: float) -> Field:
    """A wall, a floor and some soft boxes: the rough layout of a room."""
    area = np.full((height, width), 0.35, dtype=np.float32)
    area[round(height * rng.uniform(0.5, 0.85)) :] = 0.65
    for _ in range(int(rng.integers(2, 6))):
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        w, h = (int(value) for value in rng.uniform(0.8, 4.0, size=2) * grain + 1)
        cv2.rectangle(area, (x, y), (x + w, y + h), float(rng.random()), cv2.FILLED)
    return np.asarray(cv2.blur(area, (3, 3)), dtype=np.float32)


def zigzag(rng: Rng, height: int, width: int, grain: float) -> Field:
    """Zigzag stripes."""
    u, v = _axes(rng, height, width)
    return np.asarray(((u + np.abs(v % (2 * grain) - grain)) % (2 * grain) < grain), dtype=np.float32)


def ripples(rng: Rng, height: int, width: int, grain: float) -> Field:
    """Rings around a point near the area."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    distance = np.hypot(x - rng.uniform(-0.2, 1.2) * width, y - rng.uniform(-0.2, 1.2) * height)
    return np.asarray((0.5 + 0.5 * np.sin(distance * (math.pi / grain))), dtype=np.float32)


def haze(rng: Rng, height: int, width: int, grain: float) -> Field:
    """One octave of smooth noise."""
    return _normalised(_value_noise(rng, height, width, 2.5 * grain, cv2.INTER_CUBIC))


def dots(rng: Rng, height: int, width: int, grain: float) -> Field:
    """Polka dots, every other row shifted."""
    u, v = _axes(rng, height, width)
    row = v // (1.6 * grain)
    across = (u + row * 0.8 * grain) % (1.6 * grain) - 0.8 * grain
    down = v % (1.6 * grain) - 0.8 * grain
    return np.asarray((across**2 + down**2 < (0.5 * grain) ** 2), dtype=np.float32)


def waves(rng: Rng, height: int, width: int, grain: float) -> Field:
    """Wavy soft bands."""
    u, v = _axes(rng, height, width)
    bend = np.sin(v * (math.pi / (1.7 * grain))) * 0.35 * grain
    return np.asarray((0.5 + 0.5 * np.sin((u + bend) * (math.pi / grain))), dtype=np.float32)


def bricks(rng: Rng, height: int, width: int, grain: float) -> Field:
    """Bricks in running bond with thin joints."""
    u, v = _axes(rng, height, width, 0.0 if rng.random() < 0.5 else None)
    course = v // (0.9 * grain)
    joint = (v % (0.9 * grain) < 0.18 * grain) | ((u + course * grain) % (2 * grain) < 0.18 * grain)
    return joint.astype(np.float32)


def glow(rng: Rng, height: int, width: int, grain: float) -> Field:
    """A radial gradient over the whole area."""
    del grain
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return _normalised(np.hypot(x - rng.random() * width, y - rng.random() * height))


def plasma(rng: Rng, height: int, width: int, grain: float) -> Field:
    """Noise with a 1/f**1.6 spectrum."""
    del grain
    rows, columns = 48, 64
    frequency = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns)[None, :])
    spectrum = np.fft.rfft2(rng.standard_normal((rows, columns))) / np.maximum(frequency, 1 / 64) ** 1.6
    small = _normalised(np.fft.irfft2(spectrum, s=(rows, columns)))
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def facets(rng: Rng, height: int, width: int, grain: float) -> Field:
    """Cells around random points, each with one grey level."""
    count = int(np.clip(height * width / (1.6 * grain) ** 2, 6, 40))
    y, x = np.mgrid[0:48, 0:64].astype(np.float32)
    points = rng.random((count, 2), dtype=np.float32) * np.array([48, 64], dtype=np.float32)
    nearest = np.argmin((y[..., None] - points[:, 0]) ** 2 + (x[..., None] - points[:, 1]) ** 2, axis=-1)
    cells = rng.random(count, dtype=np.float32)[nearest]
    return np.asarray(cv2.resize(cells, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.float32)


def stones(rng: Rng, height: int, width: int, grain: float) -> Field:
    """A floor, a wall and some soft ellipses."""
    area = np.full((height, width), 0.3, dtype=np.float32)
    area[round(height * rng.uniform(0.5, 0.85)) :] = 0.6
    for _ in range(int(rng.integers(2, 6))):
        centre = int(rng.integers(0, width)), int(rng.integers(0, height))
        axes = tuple(int(value) for value in rng.uniform(0.4, 2.0, size=2) * grain + 1)
        angle = float(rng.uniform(0, 180))
        cv2.ellipse(area, centre, axes, angle, 0, 360, float(rng.random()), cv2.FILLED)
    return np.asarray(cv2.blur(area, (3, 3)), dtype=np.float32)


# No field but the flat one is in two splits. A "soft" field may fill a background at full contrast.
THING_FIELDS: Final[dict[str, tuple[FieldMaker, ...]]] = {
    "train": (stripes, checker, slope, clouds, patches),
    "val": (zigzag, ripples, haze),
    "test": (dots, waves, bricks, glow, plasma, facets),
}
BACKGROUND_FIELDS: Final[dict[str, tuple[FieldMaker, ...]]] = {
    "train": (slope, slope, clouds, clouds, furniture, checker, stripes, patches),
    "val": (haze, haze, ripples, zigzag),
    "test": (glow, glow, plasma, plasma, stones, bricks, waves, facets, dots),
}
