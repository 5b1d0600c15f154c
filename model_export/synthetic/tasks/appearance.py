"""Classify an object regardless of its motion: the control task, in which relating moments adds nothing.

The object has one of twelve outlines, which are stretched a little at random. All splits have the same
outlines; textures, colours and backgrounds are those of the split's bank. The object travels, turns and
changes its size a little at random, with the same nuisance as in the other tasks.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from model_export.synthetic.appearance import SpriteFactory, bank
from model_export.synthetic.drawing.nuisance import MAX_CAMERA, draw_nuisance
from model_export.synthetic.drawing.painting import Painter
from model_export.synthetic.drawing.shapes import (
    Shape,
    cells,
    crescent,
    drop,
    heart,
    polygon,
    rectangle,
    regular,
    ring,
    star,
    superellipse,
)
from model_export.synthetic.drawing.textures import Rng
from model_export.synthetic.formats import VideoFormat
from model_export.synthetic.labels import Split
from model_export.synthetic.tasks.scene import Frames, flipped_at_random, margin_px, paint_frames

_ARROW: Final = ((0, -1), (0.8, 0), (0.35, 0), (0.35, 1), (-0.35, 1), (-0.35, 0), (-0.8, 0))
OUTLINES: Final[tuple[Shape, ...]] = (
    superellipse("disc", 99, 1.0, 2.0),
    rectangle("square", 1.0),
    regular("triangle", 3),
    rectangle("bar", 0.35),
    ring("ring", 0.55),
    star("star", 5, 0.45),
    cells("plus", 4, ".#./###/.#."),
    cells("corner", 1, "#../#../###"),
    heart("heart"),
    crescent("crescent"),
    drop("drop"),
    polygon("arrow", 1, *_ARROW),
)
LABELS: Final = tuple(shape.name for shape in OUTLINES)
UNCHANGED: Final = {label: label for label in LABELS}  # mirrored, and reversed

_TILT_DEG: Final = 25.0


def render_appearance(rng: Rng, label: str, split: Split, layout: VideoFormat) -> Frames:
    """Render a moving object whose outline is the label's."""
    sprites = SpriteFactory(rng, bank(split), layout.frame_size, margin_px(layout.frame_size, MAX_CAMERA))
    size = rng.uniform(0.5, 0.75)
    outline = OUTLINES[LABELS.index(label)]
    look = sprites.thing(size, _stretched(rng, outline))
    start, stop = rng.uniform(-0.3, 0.3, size=(2, 2))
    angle, turn = rng.uniform(-_TILT_DEG, _TILT_DEG, size=2)
    growth = rng.uniform(0.75, 1.0)
    swing, swings = rng.uniform(0, 0.05), rng.uniform(0.5, 2.5)

    def paint(painter: Painter, phase: float) -> None:
        x, y = start + (stop - start) * phase
        x += swing * math.sin(2 * math.pi * swings * phase)
        painter.put(look, float(x), float(y), size * growth**phase, float(angle + turn * (phase - 0.5)))

    nuisance = draw_nuisance(rng, sprites, layout.frames, layout.duration_s)
    times = np.arange(layout.frames) / (layout.frames - 1)
    frames = paint_frames(rng, sprites, nuisance, paint, times, times)
    return flipped_at_random(rng, label, frames, UNCHANGED, UNCHANGED)


def _stretched(rng: Rng, outline: Shape) -> Shape:
    """The outline a little wider or higher and sheared; drawn at most as large as before."""
    stretch = np.array([[rng.uniform(0.8, 1.0), rng.uniform(-0.12, 0.12)], [0.0, rng.uniform(0.8, 1.0)]])
    contours = [contour @ stretch.T for contour in outline.outline]
    largest = max(float(np.abs(contour).max()) for contour in contours)
    return Shape(outline.name, 1, tuple(contour / max(largest, 1.0) for contour in contours))
