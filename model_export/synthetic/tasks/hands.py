"""The motions under hard conditions, in which single objects are hands with arms that reach out of the frame.

So a video may look like a gesture before a head-worn camera. Labels that need other objects are drawn as in
the task `motions`.
"""

from __future__ import annotations

from typing import Final

from model_export.synthetic.appearance import Colour, SpriteFactory
from model_export.synthetic.drawing.painting import Sprite
from model_export.synthetic.drawing.shapes import Shape
from model_export.synthetic.drawing.textures import Rng
from model_export.synthetic.formats import VideoFormat
from model_export.synthetic.labels import FORWARD, HOLDING, PAIRS, SHAKING, Split
from model_export.synthetic.tasks.motions import render_hard, render_with
from model_export.synthetic.tasks.scene import Frames

_APPROACHING: Final = PAIRS[2][0]
# Forward labels that show a single object: moving right, up and closer, still, and shaking.
SINGLE: Final = (PAIRS[0][0], PAIRS[1][0], _APPROACHING, HOLDING, SHAKING)
_REACH: Final = 1.5  # from the hand to the end of its arm, in units: beyond the frame
_GROWTH: Final = 3.0  # of the arm of an approaching hand, which is drawn smaller at first
_STEEPEST_DEG: Final = 60.0  # most of the arms come from below
_POINTING: Final = 0.7  # share of hands with one finger


def render_hands(rng: Rng, label: str, split: Split, layout: VideoFormat) -> Frames:
    """Render a motion of a hand, or as in the task `motions` where the label needs other objects."""
    forward = FORWARD[label]
    if forward not in SINGLE:
        return render_hard(rng, label, split, layout)
    zoom = rng.uniform(0.8, 1.3)
    return render_with(hands_of(forward), rng, label, split, layout, zoom)


def hands_of(forward: str) -> type[Hands]:
    """The hands that make a forward motion."""
    return HandsFromFar if forward == _APPROACHING else Hands


class Hands(SpriteFactory):
    """Hands with long arms in place of objects whose shape and colour the motion leaves open."""

    reach = _REACH

    def thing(self, size: float, shape: Shape | None = None, colour: Colour | None = None) -> Sprite:
        """Make a hand, or what is asked for where a motion prescribes the shape or the colour."""
        if shape is not None or colour is not None:  # a distractor has a colour
            return super().thing(size, shape, colour)
        tilt = float(self.rng.uniform(-_STEEPEST_DEG, _STEEPEST_DEG))
        return self.reaching_hand(size, self.reach, tilt, pointing=self.rng.random() < _POINTING)


class HandsFromFar(Hands):
    """Hands with longer arms, because a hand that approaches is drawn smaller at first."""

    reach = _REACH * _GROWTH
