"""The motions of `hands`, and strokes, circles and polygons that a hand draws in the air, in bad light.

A network that is trained on it has to tell the order of the parts of a movement, as most gestures need. Most
of the hands are in shade, in the light of a lamp, over- or underexposed, and fast hands are blurred.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from model_export.synthetic import labels as motions
from model_export.synthetic.appearance import Colour, Hand, bank
from model_export.synthetic.drawing.nuisance import MAX_CAMERA, Nuisance, draw_nuisance
from model_export.synthetic.drawing.painting import FrameSize, Image, Painter
from model_export.synthetic.drawing.textures import Rng
from model_export.synthetic.formats import VideoFormat
from model_export.synthetic.labels import FORWARD, Split
from model_export.synthetic.tasks.hands import SINGLE, Hands, HandsFromFar, hands_of, render_hands
from model_export.synthetic.tasks.motions import (
    FARTHEST,
    draw_short_timing,
    render_with,
    with_hard_nuisance,
)
from model_export.synthetic.tasks.scene import Frames, flipped_at_random, margin_px, paint_frames

# Clockwise, from up.
DIRECTIONS: Final = ("up", "up-right", "right", "down-right", "down", "down-left", "left", "up-left")
_TURNS: Final = range(2, 7)  # of the second stroke against the first, in eighths: a right angle or sharper
_POLYGONS: Final = {"triangle": 3, "square": 4}
_CLOCKWISE: Final = "clockwise"
_COUNTER: Final = "counter-clockwise"


def _strokes(first: int, second: int) -> str:
    return f"Drawing {DIRECTIONS[first % 8]}, then {DIRECTIONS[second % 8]}"


# Two strokes, as the places of their directions in `DIRECTIONS`.
_STROKES: Final = {
    _strokes(first, first + turn): (first, (first + turn) % 8) for first in range(8) for turn in _TURNS
}
# A closed outline, by its name and the sense of its turn.
_OUTLINES: Final = {
    f"Drawing a {name} {sense}": (name, sense)
    for name in ("circle", *_POLYGONS)
    for sense in (_CLOCKWISE, _COUNTER)
}
DRAWN: Final = (*_STROKES, *_OUTLINES)
LABELS: Final = (*motions.LABELS, *DRAWN)

Points = npt.NDArray[np.float64]  # (n, 2), in units

_OTHER_WAY_ROUND: Final = {
    label: f"Drawing a {name} {_COUNTER if sense == _CLOCKWISE else _CLOCKWISE}"
    for label, (name, sense) in _OUTLINES.items()
}
MIRRORED: Final = {
    **motions.MIRRORED,
    **{label: _strokes(-first, -second) for label, (first, second) in _STROKES.items()},
    **_OTHER_WAY_ROUND,
}
# The second stroke comes first, and each leads to where it came from.
REVERSED: Final = {
    **motions.REVERSED,
    **{label: _strokes(second + 4, first + 4) for label, (first, second) in _STROKES.items()},
    **_OTHER_WAY_ROUND,
}

_EXPOSURES: Final = 4  # moments that a blurred frame shows
_LEAST_CONTRAST: Final = 0.35  # of the distance at which colours are easy to tell apart
_SMALLEST: Final = 0.3  # width and height of a drawn outline, in units
_LARGEST: Final = 0.62


def render_air_drawing(rng: Rng, label: str, split: Split, layout: VideoFormat) -> Frames:
    """Render a hand that moves or draws; labels of motions that need other objects as in `motions`."""
    exposures = _EXPOSURES if rng.random() < 0.4 else 1
    if label in DRAWN:
        return _render_drawn(rng, label, split, layout, exposures)
    forward = FORWARD[label]
    if forward not in SINGLE:
        return render_hands(rng, label, split, layout)
    factory = _HandsFromFarBeforeWalls if hands_of(forward) is HandsFromFar else _HandsBeforeWalls
    zoom = rng.uniform(0.7, 1.3)
    return render_with(factory, rng, label, split, layout, zoom, in_bad_light, exposures)


def _render_drawn(rng: Rng, label: str, split: Split, layout: VideoFormat, exposures: int) -> Frames:
    margin = margin_px(layout.frame_size, FARTHEST + MAX_CAMERA)
    sprites = _HandsBeforeWalls(rng, bank(split), layout.frame_size, margin)
    timing = draw_short_timing(rng, layout.frames)
    size = rng.uniform(0.25, 0.65)
    look, tilt, sway = sprites.thing(size), rng.uniform(-12, 12), rng.uniform(-15, 15)
    path = drawn_path(rng, label)

    def paint(painter: Painter, phase: float) -> None:
        x, y = path(phase)
        painter.put(look, float(x), float(y), size, tilt + sway * phase)

    nuisance = draw_nuisance(rng, sprites, layout.frames, layout.duration_s)
    nuisance = in_bad_light(rng, with_hard_nuisance(rng, sprites, nuisance), layout.frame_size)
    times = np.arange(layout.frames) / (layout.frames - 1)
    frames = paint_frames(
        rng, sprites, nuisance, paint, timing.phase, times, zoom=rng.uniform(0.8, 1.2), exposures=exposures
    )
    return flipped_at_random(rng, label, frames, MIRRORED, REVERSED)


def drawn_path(rng: Rng, label: str) -> Callable[[float], Points]:
    """Where the hand is at each phase: it passes the corners of what it draws."""
    corners = _corners(rng, label)
    low, high = corners.min(axis=0), corners.max(axis=0)
    corners = corners - (low + high) / 2 + rng.uniform(-0.1, 0.1, size=2)
    if label in _STROKES:
        rest = rng.uniform(0.0, 0.06)  # half of the pause at the corner
        turn = rng.uniform(0.4, 0.6)
        corners, times = corners[[0, 1, 1, 2]], np.array([0.0, turn - rest, turn + rest, 1.0])
    else:
        lengths = np.linalg.norm(np.diff(corners, axis=0), axis=1)
        times = np.concatenate([[0.0], np.cumsum(lengths)]) / lengths.sum()
    return lambda phase: np.array([np.interp(phase, times, corners[:, axis]) for axis in (0, 1)])


def _corners(rng: Rng, label: str) -> Points:
    """The corners of what a label draws, a little turned and stretched."""
    if label in _STROKES:
        lean = rng.uniform(-8, 8)
        eighths = np.array(_STROKES[label])
        angles = np.radians(45 * eighths + lean + rng.uniform(-8, 8, size=2))
        lengths = rng.uniform(0.3, 0.6, size=2)
        strokes = np.stack([np.sin(angles), -np.cos(angles)], axis=-1) * lengths[:, None]
        return np.concatenate([np.zeros((1, 2)), np.cumsum(strokes, axis=0)])
    name, sense = _OUTLINES[label]
    if name == "circle":
        angles = np.linspace(0, math.radians(rng.uniform(330, 430)), 40) + rng.uniform(0, 2 * math.pi)
    else:
        count = _POLYGONS[name]
        first = rng.integers(count) + (0.5 if name == "square" else 0.0)
        angles = 2 * math.pi * (np.arange(count + 1) + first) / count
        angles = angles + math.radians(rng.uniform(-10, 10))
    outline = np.stack([np.sin(angles), -np.cos(angles)], axis=-1)
    outline = outline * np.maximum(_SMALLEST, rng.uniform(0.26, _LARGEST, size=2)) / 2
    return np.asarray(outline if sense == _CLOCKWISE else outline * (-1.0, 1.0))


class _HandsBeforeWalls(Hands):
    """Hands in the colours of skin, often before a wall that is nearly of one colour."""

    def _background(self, height: int, width: int) -> Image:
        if self.rng.random() < 0.5:
            return super()._background(height, width)
        level, tint = self.rng.uniform(60, 245), self.rng.uniform(-25, 25, size=3)
        rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None, None]
        columns = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None]
        down, across = self.rng.uniform(-25, 25, size=2)
        wall = (
            np.asarray(level + tint, dtype=np.float32)
            + np.float32(down) * rows
            + np.float32(across) * columns
        )
        if self.rng.random() < 0.5:
            wall = wall + self._grit(height, width) / 2
        return np.ascontiguousarray(np.clip(wall, 0, 255), dtype=np.float32)

    def _hand_colour(self, hand: Hand) -> Colour:
        """The colour of skin is kept if it stands out a little, as in a real scene."""
        colour = np.array(hand.colour, dtype=np.float32)
        return colour if self.stands_out(colour, _LEAST_CONTRAST) else super()._hand_colour(hand)


class _HandsFromFarBeforeWalls(_HandsBeforeWalls, HandsFromFar):
    """The same with arms for hands that approach."""


def in_bad_light(rng: Rng, nuisance: Nuisance, frame_size: FrameSize) -> Nuisance:
    """Darken some videos, light some by a lamp, expose some badly, and add noise to the dark ones."""
    frames = len(nuisance.gain)
    time = np.linspace(-1, 1, frames)
    gain = np.ones(frames)
    kind = rng.random()
    if kind < 0.35:
        gain *= math.exp(rng.uniform(math.log(0.12), math.log(0.8)))
    elif kind < 0.5:
        gain *= rng.uniform(1.1, 1.8)
    if rng.random() < 0.3:  # the camera adapts its exposure
        change, when, pace = rng.uniform(-0.6, 0.6), rng.uniform(-1, 1), rng.uniform(0.03, 0.2)
        gain *= np.exp(change / 2 * np.tanh((time - when) / pace))
    lamp = _lamp(rng, frame_size) if rng.random() < 0.3 else None
    dark = gain.mean() < 0.6 or lamp is not None
    return replace(
        nuisance,
        gain=nuisance.gain * gain,
        lamp=lamp,
        gamma=rng.uniform(0.65, 1.6) if rng.random() < 0.4 else 1.0,
        noise=rng.uniform(2.0, 14.0) if dark and rng.random() < 0.7 else nuisance.noise,
    )


def _lamp(rng: Rng, frame_size: FrameSize) -> Image:
    """The light of a lamp at the camera, float32 `(H, W, 1)`: factors of brightness, falling to the edges."""
    x = (np.arange(frame_size.width) + 0.5) / frame_size.unit - frame_size.reach_x
    y = (np.arange(frame_size.height) + 0.5) / frame_size.unit - frame_size.reach_y
    centre_x, centre_y = rng.uniform(-0.25, 0.25, size=2)
    radius = rng.uniform(0.3, 0.8)
    distance = ((x - centre_x)[None] ** 2 + (y - centre_y)[:, None] ** 2) / radius**2
    light = rng.uniform(0.05, 0.4) + rng.uniform(0.5, 1.1) * np.exp(-distance)
    return np.asarray(light[..., None], dtype=np.float32)
