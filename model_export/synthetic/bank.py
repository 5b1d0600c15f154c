"""What each split draws its looks from: shapes, texture fields, colours and hands.

The banks are fixed: they depend on the split alone, never on a seed, and share no shape, no texture field
(but plain colour), no colour and no hand. So a test clip shows things that training has not seen.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Final

import numpy as np
import numpy.typing as npt

from model_export.synthetic.fields import BACKGROUND_FIELDS, THING_FIELDS, FieldMaker
from model_export.synthetic.shapes import SHAPES, Shape
from model_export.synthetic.split import SPLITS, Split

Colour = npt.NDArray[np.float32]  # (3,) RGB, 0..255

# Colours that people reach for first; training should know them.
_PURE: Final = (
    (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255),
    (255, 255, 255), (0, 0, 0), (128, 128, 128), (255, 128, 0), (128, 0, 128), (0, 128, 0), (0, 0, 128),
)  # fmt: skip
_PALETTE_SIZE: Final[dict[Split, int]] = {"train": 190, "val": 60, "test": 120}
_HANDS: Final[dict[Split, int]] = {"train": 16, "val": 6, "test": 12}
_SKIN: Final = ((236, 188, 160), (214, 160, 125), (178, 120, 86), (124, 78, 54), (84, 52, 38))


@dataclass(frozen=True)
class Hand:
    """A hand reaching down; lengths are fractions of the palm's width."""

    fingers: int
    finger_length: float
    finger_width: float
    spread: float
    arm_width: float
    colour: tuple[int, int, int]


@dataclass(frozen=True)
class Bank:
    """All that a split's clips may show. `palette` is float32 `(colours, 3)`, RGB 0..255."""

    split: Split
    shapes: tuple[Shape, ...]
    thing_fields: tuple[FieldMaker, ...]
    background_fields: tuple[FieldMaker, ...]
    palette: npt.NDArray[np.float32]
    hands: tuple[Hand, ...]


@cache
def bank(split: Split) -> Bank:
    """The bank of a split."""
    rng = np.random.default_rng([40961, SPLITS.index(split)])
    palette = np.array(_palettes()[split], dtype=np.float32)
    return Bank(
        split=split,
        shapes=tuple(SHAPES[split]()),
        thing_fields=THING_FIELDS[split],
        background_fields=BACKGROUND_FIELDS[split],
        palette=palette,
        hands=tuple(_hand(rng, palette) for _ in range(_HANDS[split])),
    )


@cache
def _palettes() -> dict[Split, list[tuple[int, int, int]]]:
    """One list of distinct colours, dealt out to the splits; the pure ones go to training."""
    rng = np.random.default_rng(40961)
    total = sum(_PALETTE_SIZE.values())
    colours: dict[tuple[int, int, int], None] = dict.fromkeys(_PURE)
    while len(colours) < total:
        colours[_colour(rng)] = None
    dealt = iter(colours)
    return {split: list(islice(dealt, _PALETTE_SIZE[split])) for split in SPLITS}


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    """Any hue, greys too, from dark to light."""
    saturation = 0.0 if rng.random() < 0.15 else rng.uniform(0.25, 1.0)
    red, green, blue = colorsys.hsv_to_rgb(rng.random(), saturation, rng.uniform(0.12, 1.0))
    return round(red * 255), round(green * 255), round(blue * 255)


def _hand(rng: np.random.Generator, palette: npt.NDArray[np.float32]) -> Hand:
    skin = np.array(_SKIN[rng.integers(len(_SKIN))]) + rng.integers(-14, 15, size=3)
    glove = palette[rng.integers(len(palette))]
    red, green, blue = (int(value) for value in np.clip(skin if rng.random() < 0.6 else glove, 0, 255))
    return Hand(
        fingers=int(rng.integers(2, 5)),
        finger_length=float(rng.uniform(0.55, 0.95)),
        finger_width=float(rng.uniform(0.18, 0.26)),
        spread=float(rng.uniform(0.8, 1.25)),
        arm_width=float(rng.uniform(0.5, 0.85)),
        colour=(red, green, blue),
    )
