"""The motions of `labels`, in the first data set (`render_simple`) and in a harder one (`render_hard`).

Harder means: the motion takes as little as half of the video, objects are smaller, the camera travels, other
objects cross the frame, the light changes or flashes, and in a third of the videos a hand replaces the
object.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from model_export.synthetic.appearance import Colour, SpriteFactory, bank
from model_export.synthetic.drawing.nuisance import MAX_CAMERA, Nuisance, draw_nuisance
from model_export.synthetic.drawing.painting import FrameSize, Painter, Sprite
from model_export.synthetic.drawing.shapes import Shape
from model_export.synthetic.drawing.textures import Rng
from model_export.synthetic.formats import VideoFormat
from model_export.synthetic.labels import FORWARD, MIRRORED, REVERSED, Split
from model_export.synthetic.motions import MOTIONS
from model_export.synthetic.tasks.scene import Frames, flipped_at_random, margin_px, paint_frames
from model_export.synthetic.timing import MotionTiming, draw_timing

FARTHEST: Final = 0.16  # largest displacement of the travelling camera, in units
_HAND: Final = 0.35  # share of objects that are hands
_SHORTEST: Final = 0.5  # smallest share of the video that a motion takes


def render_simple(rng: Rng, label: str, split: Split, layout: VideoFormat) -> Frames:
    """Render a motion of the data set that `blvnet synth` makes by default."""
    forward = FORWARD[label]
    sprites = SpriteFactory(rng, bank(split), layout.frame_size, margin_px(layout.frame_size, MAX_CAMERA))
    timing = draw_timing(rng, layout.frames)
    paint = MOTIONS[forward](rng, sprites, timing)
    nuisance = draw_nuisance(rng, sprites, layout.frames, layout.duration_s)
    times = np.arange(layout.frames) / (layout.frames - 1)
    return _directed(rng, label, paint_frames(rng, sprites, nuisance, paint, timing.phase, times))


def render_hard(rng: Rng, label: str, split: Split, layout: VideoFormat) -> Frames:
    """Render a motion of the harder data set."""
    return render_with(_SpritesAndHands, rng, label, split, layout)


def render_with(
    factory: type[SpriteFactory],
    rng: Rng,
    label: str,
    split: Split,
    layout: VideoFormat,
    zoom: float | None = None,
    light: Callable[[Rng, Nuisance, FrameSize], Nuisance] | None = None,
    exposures: int = 1,
) -> Frames:
    """Render a motion under hard conditions with the sprites of `factory`; without a `zoom`, draw one.

    `light` changes the nuisance further; each frame shows the mean of `exposures` moments.
    """
    forward = FORWARD[label]
    sprites = factory(
        rng, bank(split), layout.frame_size, margin_px(layout.frame_size, FARTHEST + MAX_CAMERA)
    )
    timing = draw_short_timing(rng, layout.frames)
    paint = MOTIONS[forward](rng, sprites, timing)
    nuisance = with_hard_nuisance(rng, sprites, draw_nuisance(rng, sprites, layout.frames, layout.duration_s))
    if light is not None:
        nuisance = light(rng, nuisance, layout.frame_size)
    times = np.arange(layout.frames) / (layout.frames - 1)
    scale = rng.uniform(0.55, 1.0) if zoom is None else zoom
    return _directed(
        rng, label, paint_frames(rng, sprites, nuisance, paint, timing.phase, times, scale, exposures)
    )


def _directed(rng: Rng, label: str, frames: Frames) -> Frames:
    """Flip the frames of a forward motion at random as its label allows; reverse them for its opposite."""
    forward = FORWARD[label]
    frames = flipped_at_random(rng, forward, frames, MIRRORED, REVERSED)
    return frames if label == forward else frames[::-1]


class _SpritesAndHands(SpriteFactory):
    """Sprites, some of them hands that reach in from any side; half of the hands point."""

    def thing(self, size: float, shape: Shape | None = None, colour: Colour | None = None) -> Sprite:
        if shape is not None or self.rng.random() >= _HAND:
            return super().thing(size, shape, colour)
        larger = self.rng.uniform(1.0, 2.2)  # with its arm, which is only partly in the frame
        hand = self.hand(size * larger, pointing=self.rng.random() < 0.5)
        return replace(hand, side=hand.side / larger)


def draw_short_timing(rng: Rng, frames: int) -> MotionTiming:
    """A motion that takes half of the video or more, anywhere in it."""
    length = rng.uniform(_SHORTEST, 1.0)
    start = rng.uniform(0, 1 - length)
    inner = draw_timing(rng, frames).phase
    time = (np.linspace(0, 1, frames) - start) / length
    return MotionTiming(np.interp(np.clip(time, 0, 1), np.linspace(0, 1, frames), inner))


def with_hard_nuisance(rng: Rng, sprites: SpriteFactory, nuisance: Nuisance) -> Nuisance:
    """Add to the nuisance a travelling camera, objects that cross the frame, and changes of light."""
    count = len(nuisance.gain)
    line = np.linspace(-1, 1, count)
    travel = rng.uniform(-FARTHEST, FARTHEST, size=2) * (rng.random() < 0.6)
    crossing = [draw_crossing(rng, sprites) for _ in range(rng.choice(3, p=[0.45, 0.35, 0.2]))]

    def behind(painter: Painter, time: float) -> None:
        nuisance.behind(painter, time)
        for look, size, start, stop in crossing:
            x, y = start + (stop - start) * time
            painter.put(look, float(x), float(y), size)

    return replace(
        nuisance,
        camera=nuisance.camera + line[:, None] * travel,
        gain=nuisance.gain * draw_light(rng, count),
        behind=behind,
    )


def draw_crossing(
    rng: Rng, sprites: SpriteFactory
) -> tuple[Sprite, float, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """A small object with its size, and where it starts and stops, at most half of the frame apart."""
    size = rng.uniform(0.06, 0.14)
    look = sprites.thing(size, sprites.shape(), sprites.colour(keep=False))
    start = rng.uniform(-0.6, 0.6, size=2)
    return look, size, start, start + rng.uniform(-0.5, 0.5, size=2)


def draw_light(rng: Rng, frames: int) -> npt.NDArray[np.float64]:
    """Factors of the brightness: dark or light throughout, rising or falling, with a flash in some videos."""
    time = np.linspace(-1, 1, frames)
    level = rng.uniform(0.35, 1.15) if rng.random() < 0.5 else 1.0
    slope = rng.uniform(-0.3, 0.3) if rng.random() < 0.4 else 0.0
    light = level * (1 + slope * time)
    if rng.random() < 0.25:
        flash = np.exp(-(((time - rng.uniform(-1, 1)) / rng.uniform(0.05, 0.2)) ** 2))
        light = light * (1 + rng.uniform(0.4, 1.5) * flash)
    return np.asarray(light)
