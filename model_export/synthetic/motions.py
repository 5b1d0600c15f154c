"""The motions of the forward labels.

A motion draws its appearance and path from a generator and returns a `Paint`: a function that paints one
frame, given the phase of the motion (0 before it starts, 1 after it ends). Lengths are in units of the
frame's shorter side, so that everything happens within the centre square.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from model_export.synthetic.appearance import Colour, SpriteFactory
from model_export.synthetic.drawing.painting import Image, Painter
from model_export.synthetic.drawing.shapes import superellipse
from model_export.synthetic.drawing.textures import Rng
from model_export.synthetic.labels import FORWARD, HOLDING, PAIRS, SHAKING
from model_export.synthetic.timing import MotionTiming

Paint = Callable[[Painter, float], None]
Motion = Callable[[Rng, SpriteFactory, MotionTiming], Paint]

# By rotational order: a shape that turns further between two sampled frames may seem to turn backwards.
_CLEAR_TURN_DEG: Final = {1: 40.0, 2: 40.0, 3: 34.0, 4: 26.0}


def _upright_or_not(rng: Rng) -> float:
    return 0.0 if rng.random() < 0.5 else float(rng.uniform(-180, 180))


def _sway(rng: Rng, most: float) -> float:
    """Degrees of incidental rotation during another motion; often 0."""
    return 0.0 if rng.random() < 0.5 else float(rng.uniform(-most, most))


def _xy(point: npt.NDArray[np.float64]) -> tuple[float, float]:
    return float(point[0]), float(point[1])


def _between(start: float, stop: float, phase: float) -> float:
    return start + (stop - start) * phase


def _travel(rng: Rng, sprites: SpriteFactory, axis: int) -> Paint:
    """An object moves along x (`axis` 0) or y (1) in the positive direction."""
    size = rng.uniform(0.22, 0.42)
    look, angle, sway = sprites.thing(size), _upright_or_not(rng), _sway(rng, 20)
    kind = rng.random()
    span = (
        rng.uniform(0.42, 0.75)
        if kind < 0.7
        else rng.uniform(0.75, 1.1)
        if kind < 0.92
        else rng.uniform(1.1, 1.5)
    )
    slack = max(0.04, 0.35 * (0.75 - span))
    start = rng.uniform(-slack, slack) - span / 2
    aside, slant, arc = rng.uniform(-0.2, 0.2), rng.uniform(-0.1, 0.1) * span, rng.uniform(-0.05, 0.05)

    def paint(painter: Painter, phase: float) -> None:
        along = start + span * phase
        across = aside + slant * (phase - 0.5) + arc * math.sin(math.pi * phase)
        x, y = (along, across) if axis == 0 else (across, along)
        painter.put(look, x, y, size, angle + sway * phase)

    return paint


def move_right(rng: Rng, sprites: SpriteFactory, timing: MotionTiming) -> Paint:
    """An object moves from left to right."""
    del timing
    return _travel(rng, sprites, axis=0)


def move_up(rng: Rng, sprites: SpriteFactory, timing: MotionTiming) -> Paint:
    """An object moves up: the path down, reversed."""
    del timing
    down = _travel(rng, sprites, axis=1)
    return lambda painter, phase: down(painter, 1 - phase)


def approach(rng: Rng, sprites: SpriteFactory, timing: MotionTiming) -> Paint:
    """An object grows, linearly or geometrically."""
    del timing
    small = rng.uniform(0.1, 0.28)
    large = float(np.clip(small * rng.uniform(2.0, 5.5), 0.42, 1.15))
    look, angle, sway = sprites.thing(large), _upright_or_not(rng), _sway(rng, 15)
    far, near = rng.uniform(-0.2, 0.2, size=2), rng.uniform(-0.1, 0.1, size=2)
    geometric = rng.random() < 0.5

    def paint(painter: Painter, phase: float) -> None:
        size = small * (large / small) ** phase if geometric else _between(small, large, phase)
        near_share = (size - small) / (large - small)
        x, y = far + (near - far) * near_share
        painter.put(look, x, y, size, angle + sway * phase)

    return paint


def appear(rng: Rng, sprites: SpriteFactory, timing: MotionTiming) -> Paint:
    """An object fades in, or appears from one frame to the next."""
    del timing
    size = rng.uniform(0.26, 0.6)
    look, angle = sprites.thing(size), _upright_or_not(rng)
    x, y = rng.uniform(-0.2, 0.2, size=2)
    length = 0.01 if rng.random() < 0.35 else rng.uniform(0.25, 0.9)
    start = rng.uniform(0.12, 0.88 - length) if length < 0.7 else (1 - length) / 2

    def paint(painter: Painter, phase: float) -> None:
        alpha = min(max((phase - start) / length, 0.0), 1.0)
        if alpha > 0:
            painter.put(look, x, y, size, angle, alpha)

    return paint


def turn_clockwise(rng: Rng, sprites: SpriteFactory, timing: MotionTiming) -> Paint:
    """An object turns in place by at least 120 degrees, slowly enough that the direction is unambiguous."""
    size = rng.uniform(0.4, 0.72)
    if rng.random() < 0.45:
        shape, order = sprites.shape(), 1
        look = sprites.marked(shape, size)
    else:
        shape = sprites.shape(lambda candidate: candidate.order in _CLEAR_TURN_DEG)
        look, order = sprites.thing(size, shape), shape.order
    most = min(540.0, _CLEAR_TURN_DEG[order] / timing.steepest)
    total = rng.uniform(120, max(most, 130))
    start = _upright_or_not(rng)
    x, y = rng.uniform(-0.1, 0.1, size=2)
    return lambda painter, phase: painter.put(look, x, y, size, start + total * phase)


def _pair_axis(rng: Rng) -> float:
    """Direction between two objects in radians: mostly horizontal, sometimes vertical, rarely oblique."""
    kind = rng.random()
    if kind < 0.55:
        return math.radians(rng.uniform(-12, 12))
    if kind < 0.8:
        return math.radians(90 + rng.uniform(-12, 12))
    return float(rng.uniform(0, math.pi))


def come_together(rng: Rng, sprites: SpriteFactory, timing: MotionTiming) -> Paint:
    """Two objects meet."""
    del timing
    shape = sprites.shape()
    sizes = rng.uniform(0.22, 0.34, size=2)
    looks = [sprites.thing(sizes[0], shape)]
    alike = rng.random() < 0.4
    sizes[1] = sizes[0] if alike else sizes[1]
    looks.append(looks[0] if alike else sprites.thing(sizes[1], sprites.shape()))
    axis = _pair_axis(rng)
    direction = np.array([math.cos(axis), math.sin(axis)])
    close = sizes.mean() * rng.uniform(0.7, 0.95)
    apart = min(close + rng.uniform(0.45, 0.7), 1.1)
    share, middle = rng.uniform(0.38, 0.62), rng.uniform(-0.07, 0.07, size=2)
    angles = [_upright_or_not(rng), _upright_or_not(rng)]

    def paint(painter: Painter, phase: float) -> None:
        gap = _between(apart, close, phase)
        for index, side in enumerate((-share, 1 - share)):
            x, y = middle + direction * (gap * side)
            painter.put(looks[index], x, y, sizes[index], angles[index])

    return paint


def pick_up(rng: Rng, sprites: SpriteFactory, timing: MotionTiming) -> Paint:
    """A hand comes down, grasps an object and lifts it."""
    del timing
    size, length = rng.uniform(0.24, 0.36), rng.uniform(1.15, 1.5)
    look, angle = sprites.thing(size), _upright_or_not(rng)
    hand = sprites.hand(length)
    rest = np.array([rng.uniform(-0.15, 0.15), rng.uniform(0.08, 0.28)])
    grip = rest - (0, length / 2 + rng.uniform(0.0, 0.25) * size)
    coming = grip - (rng.uniform(-0.12, 0.12), rest[1] + 0.5 + rng.uniform(-0.1, 0.12))
    lift = np.array([rng.uniform(-0.15, 0.15), -rng.uniform(0.5, 0.85)])
    middle, dwell = rng.uniform(0.4, 0.55), rng.uniform(0.0, 0.08)

    def paint(painter: Painter, phase: float) -> None:
        if phase < middle:
            place, shift = coming + (grip - coming) * (phase / middle), np.zeros(2)
        else:
            shift = lift * max(0.0, (phase - middle - dwell) / (1 - middle - dwell))
            place = grip + shift
        painter.put(look, *_xy(rest + shift), size, angle)
        painter.put(hand, *_xy(place), length)

    return paint


def open_up(rng: Rng, sprites: SpriteFactory, timing: MotionTiming) -> Paint:
    """Two doors, a door, or the lid of a box swing open."""
    del timing
    kind = rng.random()
    if kind < 0.45:
        return _doors(rng, sprites, count=2)
    return _doors(rng, sprites, count=1) if kind < 0.7 else _lid(rng, sprites)


def _slab(x0: float, y0: float, x1: float, y1: float) -> list[tuple[float, float]]:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _doors(rng: Rng, sprites: SpriteFactory, count: int) -> Paint:
    """A cupboard from the front; its doors are hinged at the sides and swing towards the camera."""
    half_width = rng.uniform(0.22, 0.34) if count == 2 else rng.uniform(0.2, 0.29)
    half_height = rng.uniform(0.2, 0.36)
    x, y = rng.uniform(-0.07, 0.07, size=2)
    colour, frame = sprites.colour(), rng.uniform(0.02, 0.04)
    door = sprites.panel(2 * half_width / count, 2 * half_height, colour)
    inside, edge = sprites.plain(_interior(sprites, colour)), sprites.plain(colour * np.float32(0.45))
    widest, depth = math.radians(rng.uniform(75, 115)), rng.uniform(0.15, 0.35)

    def paint(painter: Painter, phase: float) -> None:
        painter.quad(
            edge,
            _slab(
                x - half_width - frame,
                y - half_height - frame,
                x + half_width + frame,
                y + half_height + frame,
            ),
        )
        painter.quad(inside, _slab(x - half_width, y - half_height, x + half_width, y + half_height))
        reach, nearer = 2 * half_width / count * math.cos(widest * phase), depth * math.sin(widest * phase)
        for side in (-1, 1)[:count]:
            hinge, free = x + side * half_width, x + side * (half_width - reach)
            tall = half_height * (1 + nearer)
            corners = [(hinge, y - half_height), (free, y - tall), (free, y + tall), (hinge, y + half_height)]
            painter.quad(_shaded(door, 1 - 0.25 * nearer / depth), corners)
            painter.quad(edge, _slab(free - 0.006, y - tall, free + 0.006, y + tall))

    return paint


def _interior(sprites: SpriteFactory, door: Colour) -> Colour:
    """Colour behind a door: nearly black, or pale for a dark door."""
    dark = float(door.mean()) < 90
    return (
        np.full(3, 235, dtype=np.float32)
        if dark
        else np.full(3, 18, dtype=np.float32) + sprites.rng.random() * 10
    )


def _shaded(image: Image, light: float) -> Image:
    shaded = image.copy()
    shaded[..., :3] *= np.float32(light)
    return shaded


def _lid(rng: Rng, sprites: SpriteFactory) -> Paint:
    """A box from the side, with its lid hinged at the left."""
    width, height, thick = rng.uniform(0.42, 0.6), rng.uniform(0.2, 0.34), rng.uniform(0.07, 0.11)
    left, top = -width / 2 + rng.uniform(-0.05, 0.1), rng.uniform(0.05, 0.18)
    box, lid = sprites.panel(width, height), sprites.panel(width, thick)
    widest = math.radians(rng.uniform(60, 115))

    def paint(painter: Painter, phase: float) -> None:
        painter.quad(box, _slab(left, top, left + width, top + height))
        cos, sin = math.cos(widest * phase), math.sin(widest * phase)
        along, up = np.array([cos, -sin]) * width, np.array([-sin, -cos]) * thick
        hinge = np.array([left, top])
        painter.quad(lid, [tuple(hinge + up), tuple(hinge + along + up), tuple(hinge + along), tuple(hinge)])

    return paint


def cover(rng: Rng, sprites: SpriteFactory, timing: MotionTiming) -> Paint:
    """A sheet slides over an object until it is hidden."""
    del timing
    size = rng.uniform(0.25, 0.37)
    look, angle = sprites.thing(size), _upright_or_not(rng)
    sheet_size = size * rng.uniform(1.45, 1.7)  # the diagonal of a square is 1.41
    sheet = sprites.thing(sheet_size, superellipse("sheet", 4, 1.0, rng.uniform(5, 30)))
    place = rng.uniform(-0.12, 0.12, size=2)
    side = rng.choice(4, p=[0.4, 0.2, 0.2, 0.2])
    away = np.array([(0, -1), (1, 0), (-1, 0), (0, 1)][side]) * rng.uniform(0.62, 0.95)
    end = place + rng.uniform(-0.02, 0.02, size=2)

    def paint(painter: Painter, phase: float) -> None:
        painter.put(look, *_xy(place), size, angle)
        painter.put(sheet, *_xy(end + away * (1 - phase)), sheet_size)

    return paint


def fill_up(rng: Rng, sprites: SpriteFactory, timing: MotionTiming) -> Paint:
    """The level of a liquid rises in a glass."""
    del timing
    half_top, height = rng.uniform(0.18, 0.29), rng.uniform(0.46, 0.72)
    half_base, wall = half_top * rng.uniform(0.75, 1.0), rng.uniform(0.025, 0.045)
    x, base = rng.uniform(-0.1, 0.1), height / 2 + rng.uniform(-0.06, 0.08)
    liquid = sprites.panel(2 * half_top, height)
    glass = sprites.plain(sprites.colour())
    low, high = rng.uniform(0.03, 0.15), rng.uniform(0.75, 0.95)

    def half_at(level: float) -> float:
        return _between(half_base, half_top, level)

    def paint(painter: Painter, phase: float) -> None:
        level = _between(low, high, phase)
        shown = liquid[round((1 - level) * (liquid.shape[0] - 1)) :]
        half = half_at(level)
        surface = base - level * height
        painter.quad(
            shown, [(x - half, surface), (x + half, surface), (x + half_base, base), (x - half_base, base)]
        )
        for side in (-1, 1):
            foot, brim = x + side * half_base, x + side * half_top
            out = side * wall
            painter.quad(
                glass, [(brim, base - height), (brim + out, base - height), (foot + out, base), (foot, base)]
            )
        painter.quad(glass, _slab(x - half_base - wall, base, x + half_base + wall, base + wall))

    return paint


def hold(rng: Rng, sprites: SpriteFactory, timing: MotionTiming) -> Paint:
    """An object stays still."""
    del timing
    size = rng.uniform(0.26, 0.6)
    look, angle = sprites.thing(size), _upright_or_not(rng)
    x, y = rng.uniform(-0.2, 0.2, size=2)
    return lambda painter, _: painter.put(look, x, y, size, angle)


def shake(rng: Rng, sprites: SpriteFactory, timing: MotionTiming) -> Paint:
    """An object swings back and forth, slowly enough to be sampled."""
    most = 1.6 / max(timing.steepest, 0.01) / 2  # half swings: at least 2.5 sampled frames in a whole one
    size = rng.uniform(0.26, 0.5)
    look, angle = sprites.thing(size), _upright_or_not(rng)
    place, heading = rng.uniform(-0.12, 0.12, size=2), rng.choice([0, math.pi / 2, rng.uniform(0, math.pi)])
    reach = np.array([math.cos(heading), math.sin(heading)]) * rng.uniform(0.08, 0.14)
    tilt = rng.uniform(14, 30) if rng.random() < 0.3 else 0.0
    swings = round(rng.uniform(5, max(6.0, min(11.0, most))))

    def paint(painter: Painter, phase: float) -> None:
        swing = math.sin(math.pi * swings * phase)
        x, y = place + reach * swing
        painter.put(look, x, y, size, angle + tilt * swing)

    return paint


_FORWARD: Final[tuple[Motion, ...]] = (
    move_right, move_up, approach, appear, turn_clockwise,
    come_together, pick_up, open_up, cover, fill_up,
)  # fmt: skip
MOTIONS: Final[dict[str, Motion]] = {
    **{forward: motion for (forward, _), motion in zip(PAIRS, _FORWARD, strict=True)},
    HOLDING: hold,
    SHAKING: shake,
}
assert MOTIONS.keys() == set(FORWARD.values())
