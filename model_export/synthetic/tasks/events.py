"""The order of four short events, which only a network that relates distant moments can tell.

A video has four parts of equal length. In each part the same object rises, slides aside, swells or vanishes,
and returns to its place, low in the middle of the frame. The label is the order of the four, so there are 24
labels.

For a seed the four parts are the same frames for every label, in another order. Each part starts and ends at
rest: everything else that changes (camera, light, other objects) also returns within the part, in the same
way in all four. So only the order differs between labels:

- the frames that a network samples uniformly are the same set for every label, where T is a multiple of 4;
- the pairs of frames that bLVNet fuses are the same set, where T is a multiple of 8;
- the motion of any stretch shorter than the rest between two events is the same.

A motion that lasts for its whole part does not work: at its ends it meets the motion before or after it, so
short stretches show which follows which.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Final

import numpy as np
import numpy.typing as npt

from model_export.synthetic.appearance import SpriteFactory, bank
from model_export.synthetic.drawing.nuisance import MAX_CAMERA, draw_nuisance
from model_export.synthetic.drawing.painting import Painter, Sprite
from model_export.synthetic.drawing.textures import Rng
from model_export.synthetic.formats import VideoFormat
from model_export.synthetic.labels import Split
from model_export.synthetic.motions import Paint
from model_export.synthetic.tasks.scene import Frames, margin_px, paint_frames

KINDS: Final = ("rise", "slide", "swell", "vanish")
PARTS: Final = len(KINDS)
ORDERS: Final = tuple(permutations(range(PARTS)))
LABELS: Final = tuple(", ".join(KINDS[kind] for kind in order) for order in ORDERS)
MIRRORED: Final = {label: label for label in LABELS}
REVERSED: Final = {label: ", ".join(reversed(label.split(", "))) for label in LABELS}

_REST: Final = 0.06  # least share of a part that is at rest, at each end
_REACH: Final = 0.34  # how far the object rises or slides, in units
_SWOLLEN: Final = 2.0


def render_events(rng: Rng, label: str, split: Split, layout: VideoFormat) -> Frames:
    """Render the four events of a seed in the order of a label; frames beyond a multiple of 4 are dropped."""
    parts = render_parts(rng, split, layout)
    return np.concatenate([parts[kind] for kind in ORDERS[LABELS.index(label)]])


def format_of_events(layout: VideoFormat) -> VideoFormat:
    """The format with a keyframe at the start of each part, so that the codec carries nothing over."""
    length = layout.frames // PARTS
    return replace(layout, frames=length * PARTS, encoding=replace(layout.encoding, gop=length, b_frames=0))


def render_parts(rng: Rng, split: Split, layout: VideoFormat) -> Frames:
    """Render the parts of a seed, one for each of `KINDS`: uint8 `(4, frames / 4, H, W, 3)`."""
    length = layout.frames // PARTS
    sprites = SpriteFactory(rng, bank(split), layout.frame_size, margin_px(layout.frame_size, MAX_CAMERA))
    size = rng.uniform(0.34, 0.42)
    thing = _Thing(
        look=sprites.thing(size),
        size=size,
        angle=float(rng.uniform(-180, 180)),
        # At rest it is always in the same place, so that a frame shows its event, and only the order is hard.
        x=float(rng.uniform(-0.03, 0.03)),
        y=float(rng.uniform(0.12, 0.18)),
    )
    drawn = draw_nuisance(rng, sprites, length, layout.duration_s / PARTS)
    time = (np.arange(length) + 0.5) / length
    there_and_back = np.sin(math.pi * time) ** 2
    middle = length // 2
    nuisance = replace(
        drawn,
        camera=np.outer(there_and_back, drawn.camera[middle]),
        gain=1 + (drawn.gain[middle] - 1) * there_and_back,
    )
    side = rng.choice((-1.0, 1.0))
    mirror = rng.random() < 0.5
    parts = np.stack(
        [
            paint_frames(rng, sprites, nuisance, event(kind, thing, side), course(rng, time), there_and_back)
            for kind in KINDS
        ]
    )
    return parts[:, :, :, ::-1] if mirror else parts


@dataclass(frozen=True)
class _Thing:
    """An object and its resting place."""

    look: Sprite
    size: float
    angle: float
    x: float
    y: float


def course(rng: Rng, time: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Draw how far an event has gone at each time of its part (0 to 1): from 0 to 1 and back to 0."""
    # Shorter ones fall between the frames of T = 8 too often for any network to learn.
    length = rng.uniform(0.45, 0.75)
    start = rng.uniform(_REST, 1 - _REST - length)
    inside = np.clip((time - start) / length, 0, 1)
    return np.minimum(1.5 * np.sin(math.pi * inside), 1.0)


def event(kind: str, thing: _Thing, side: float) -> Paint:
    """The object's event in a part; its phase is how far it has gone, and `side` is where it slides to."""

    def paint(painter: Painter, far: float) -> None:
        x = thing.x + (side * _REACH * far if kind == "slide" else 0.0)
        y = thing.y - (_REACH * far if kind == "rise" else 0.0)
        size = thing.size * (_SWOLLEN**far if kind == "swell" else 1.0)
        alpha = 1.0 - (far if kind == "vanish" else 0.0)
        painter.put(thing.look, x, y, size, thing.angle, alpha)

    return paint
