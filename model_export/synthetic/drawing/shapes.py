"""Outlines of objects: closed polygons in the square [-1, 1] x [-1, 1], y pointing down.

An outline is a list of contours, float64 `(points, 2)`, filled by the even-odd rule (so a second contour
inside the first is a hole), and scaled so that its longer side is 2 and its bounding box is centred on 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Contour = npt.NDArray[np.float64]
Outline = list[Contour]

ROUND: Final = 99  # order of shapes that look the same at any angle


@dataclass(frozen=True)
class Shape:
    """A named outline; `order` is its rotational symmetry: how often it looks the same in a full turn."""

    name: str
    order: int
    outline: tuple[Contour, ...]


def _shape(name: str, order: int, *contours: Contour) -> Shape:
    points = np.concatenate(contours)
    low, high = points.min(axis=0), points.max(axis=0)
    scale = 2.0 / float((high - low).max())
    return Shape(name, order, tuple((contour - (low + high) / 2) * scale for contour in contours))


def _points(*pairs: tuple[float, float]) -> Contour:
    return np.array(pairs, dtype=np.float64)


def _polar(radius: npt.ArrayLike, angle: npt.ArrayLike) -> Contour:
    r, a = np.asarray(radius, dtype=np.float64), np.asarray(angle, dtype=np.float64)
    return np.stack([r * np.sin(a), -r * np.cos(a)], axis=-1)


def _arc(start: float, stop: float, count: int = 48, radius: float = 1.0) -> Contour:
    """Points on a circle; angles in turns, clockwise from the top."""
    angles = np.linspace(start, stop, count) * 2 * math.pi
    return _polar(np.full(count, radius), angles)


def regular(name: str, sides: int) -> Shape:
    """A regular polygon, a side down."""
    angles = (np.arange(sides) + (0.5 if sides % 2 == 0 else 0.0)) * 2 * math.pi / sides
    return _shape(name, sides, _polar(np.ones(sides), angles))


def star(name: str, points: int, inner: float) -> Shape:
    """A star with `points` tips whose notches lie at `inner` of the radius."""
    radius = np.where(np.arange(2 * points) % 2 == 0, 1.0, inner)
    return _shape(name, points, _polar(radius, np.arange(2 * points) * math.pi / points))


def superellipse(name: str, order: int, aspect: float, power: float) -> Shape:
    """Between ellipse (`power` 2) and rectangle (large); `aspect` is height over width."""
    angle = np.linspace(0, 2 * math.pi, 64, endpoint=False)
    x = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** (2 / power)
    y = np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** (2 / power)
    return _shape(name, order, np.stack([x, aspect * y], axis=-1))


def rectangle(name: str, aspect: float) -> Shape:
    """A rectangle lying down; `aspect` is height over width."""
    order = 4 if aspect == 1 else 2
    return _shape(name, order, _points((-1, -aspect), (1, -aspect), (1, aspect), (-1, aspect)))


def ring(name: str, inner: float) -> Shape:
    """A disc with a round hole of `inner` times its radius."""
    return _shape(name, ROUND, _arc(0, 1), _arc(0, 1, radius=inner))


def crescent(name: str) -> Shape:
    """A thick crescent, open to the right."""
    hollow = _arc(0.98, 0.52) * np.array([0.3, 0.9])
    return _shape(name, 1, np.concatenate([_arc(0.52, 0.98), hollow]))


def bean(name: str) -> Shape:
    """Half a disc on the left, with a bulge on its straight side."""
    bulge = _arc(0.08, 0.42, radius=0.75) * np.array([0.35, 1.0]) + np.array([0.12, 0.0])
    return _shape(name, 1, np.concatenate([_arc(0.52, 0.98), bulge]))


def drop(name: str) -> Shape:
    """A tear drop with its tip up."""
    return _shape(name, 1, np.concatenate([_arc(0.22, 0.78), _points((0.0, -2.0))]))


def heart(name: str) -> Shape:
    """A heart with its tip down."""
    t = np.linspace(0, 2 * math.pi, 64, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return _shape(name, 1, np.stack([x, y], axis=-1))


def lens(name: str) -> Shape:
    """Two arcs that meet in two tips."""
    right = _arc(0.085, 0.415) - np.array([0.55, 0.0])
    return _shape(name, 2, np.concatenate([right, -right]))


def mouth(name: str) -> Shape:
    """A disc with a wedge missing."""
    return _shape(name, 1, np.concatenate([_arc(0.36, 1.14), _points((0.0, 0.0))]))


def polygon(name: str, order: int, *pairs: tuple[float, float]) -> Shape:
    """Any polygon by its corners."""
    return _shape(name, order, _points(*pairs))


def cells(name: str, order: int, rows: str) -> Shape:
    """A letter-like shape of square cells: rows separated by `/`, `#` is a filled cell.

    Each cell is its own contour, a little larger than the cell's grid so that no seams appear.
    """
    contours = []
    for y, row in enumerate(rows.split("/")):
        for x, cell in enumerate(row):
            if cell == "#":
                contours.append(_points((x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1)))
    return _shape(name, order, *contours)


def blob(seed: int) -> Shape:
    """A smooth, irregular random shape."""
    rng = np.random.default_rng([7919, seed])
    angle = np.linspace(0, 2 * math.pi, 64, endpoint=False)
    radius = np.ones(64)
    for harmonic, size in ((2, 0.24), (3, 0.20), (4, 0.12), (5, 0.06)):
        radius += rng.uniform(0.5, 1.0) * size * np.cos(harmonic * angle + rng.uniform(0, 2 * math.pi))
    # Some of them look nearly the same after a third of a turn, hence the order.
    return _shape(f"blob-{seed}", 3, _polar(np.maximum(radius, 0.25), angle))


def _train() -> list[Shape]:
    arrow = ((0, -1), (0.8, -0.1), (0.3, -0.1), (0.3, 1), (-0.3, 1), (-0.3, -0.1), (-0.8, -0.1))
    return [
        superellipse("disc", ROUND, 1.0, 2.0),
        superellipse("ellipse", 2, 0.62, 2.0),
        rectangle("square", 1.0),
        rectangle("bar", 0.42),
        rectangle("oblong", 0.66),
        regular("triangle", 3),
        regular("octagon", 8),
        star("star-5", 5, 0.5),
        ring("ring", 0.42),
        bean("bean"),
        _shape("half-disc", 1, _arc(-0.25, 0.25)),
        polygon("arrow", 1, *arrow),
        polygon("right-triangle", 1, (-1, -1), (-1, 1), (1, 1)),
        cells("cells-F", 1, ".##/##./.#."),
        cells("cells-L", 1, "#./#./##"),
        cells("cells-P", 1, "##/##/#."),
        cells("cells-T", 1, "###/.#./.#."),
        cells("cells-U", 1, "#.#/###"),
        cells("cells-plus", 4, ".#./###/.#."),
        *(blob(seed) for seed in range(48)),
    ]


def _val() -> list[Shape]:
    chevron = ((-1, -0.8), (0, -0.2), (1, -0.8), (1, 0.1), (0, 0.8), (-1, 0.1))
    return [
        regular("pentagon", 5),
        heart("heart"),
        polygon("chevron", 1, *chevron),
        rectangle("plank", 0.52),
        superellipse("bun", 2, 0.78, 2.6),
        cells("cells-V", 1, "#../#../###"),
        cells("cells-S", 2, ".##/##."),
        *(blob(seed) for seed in range(100, 116)),
    ]


def _test() -> list[Shape]:
    house = ((0, -1), (0.9, -0.2), (0.9, 0.9), (-0.9, 0.9), (-0.9, -0.2))
    return [
        regular("hexagon", 6),
        regular("heptagon", 7),
        star("star-4", 4, 0.45),
        star("star-6", 6, 0.58),
        superellipse("squircle", 4, 1.0, 4.0),
        superellipse("capsule", 2, 0.5, 3.5),
        superellipse("egg", 2, 0.72, 2.2),
        polygon("trapezoid", 1, (-0.5, -0.7), (0.5, -0.7), (1, 0.7), (-1, 0.7)),
        polygon("kite", 1, (0, -1), (0.7, -0.35), (0, 1), (-0.7, -0.35)),
        polygon("house", 1, *house),
        drop("drop"),
        lens("lens"),
        mouth("mouth"),
        cells("cells-J", 1, ".#/.#/##/##"),
        cells("cells-W", 1, "#../##./.##"),
        cells("cells-Y", 1, "#./##/#./#."),
        cells("cells-Z", 2, "##./.#./.##"),
        cells("cells-E", 1, "##/#./##/#./##"),
        *(blob(seed) for seed in range(200, 232)),
    ]


SHAPES: Final[dict[str, Callable[[], list[Shape]]]] = {"train": _train, "val": _val, "test": _test}
