"""The appearance of a video: the bank of its split, and backgrounds and sprites whose colours stand out.

Each split has a bank of shapes, texture fields, colours and hands. Banks depend on the split alone, not on a
seed, and share nothing but plain colour as a texture: a test video shows nothing that training has seen.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from model_export.synthetic.drawing.painting import FrameSize, Image, Sprite, fill_mask, sprite
from model_export.synthetic.drawing.shapes import SHAPES, Contour, Outline, Shape
from model_export.synthetic.drawing.textures import BACKGROUND_FIELDS, THING_FIELDS, FieldMaker, Rng, flat
from model_export.synthetic.labels import SPLITS, Split

Colour = npt.NDArray[np.float32]  # (3,) RGB, 0..255

# Pure colours, which people use most: they are in the training split.
_PURE: Final = (
    (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255),
    (255, 255, 255), (0, 0, 0), (128, 128, 128), (255, 128, 0), (128, 0, 128), (0, 128, 0), (0, 0, 128),
)  # fmt: skip
_PALETTE_SIZE: Final[dict[Split, int]] = {"train": 190, "val": 60, "test": 120}
_HANDS: Final[dict[Split, int]] = {"train": 16, "val": 6, "test": 12}
_MAX_ARM_PX: Final = 900  # side of the sprite of a hand with a long arm
_SKIN: Final = ((236, 188, 160), (214, 160, 125), (178, 120, 86), (124, 78, 54), (84, 52, 38))


# Distance in CIE L*a*b* at which two areas are easy to tell apart, even if small and noisy.
_CLEAR: Final = 42.0
_TRIES: Final = 24


@dataclass(frozen=True)
class Hand:
    """A hand that reaches down; lengths are fractions of the palm's width."""

    fingers: int
    finger_length: float
    finger_width: float
    spread: float
    arm_width: float
    colour: tuple[int, int, int]


@dataclass(frozen=True)
class Bank:
    """The content that the videos of a split may show. `palette` is float32 `(colours, 3)`, RGB 0..255."""

    split: Split
    shapes: tuple[Shape, ...]
    thing_fields: tuple[FieldMaker, ...]
    background_fields: tuple[FieldMaker, ...]
    palette: npt.NDArray[np.float32]
    hands: tuple[Hand, ...]


@cache
def bank(split: Split) -> Bank:
    """Make the bank of a split."""
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
    """Distinct colours for each split; the pure ones are in the training split."""
    rng = np.random.default_rng(40961)
    total = sum(_PALETTE_SIZE.values())
    colours: dict[tuple[int, int, int], None] = dict.fromkeys(_PURE)
    while len(colours) < total:
        colours[_colour(rng)] = None
    dealt = iter(colours)
    return {split: list(islice(dealt, _PALETTE_SIZE[split])) for split in SPLITS}


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    """A random colour: any hue or grey, from dark to light."""
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


def _lab(colours: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """CIE L*a*b* of RGB 0..255, both `(n, 3)`."""
    rgb = (np.asarray(colours, dtype=np.float32) / np.float32(255)).reshape(1, -1, 3)
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2Lab), dtype=np.float32).reshape(-1, 3)


def _mix(first: Colour, second: Colour, field: npt.NDArray[np.float32]) -> Image:
    return first + field[..., None] * (second - first)


class SpriteFactory:
    """Makes background and sprites of one video from its split's bank, in colours that stand out."""

    def __init__(self, rng: Rng, bank: Bank, frame_size: FrameSize, margin_px: int) -> None:
        self.rng = rng
        self.bank = bank
        self.frame_size = frame_size
        self.background = self._background(
            frame_size.height + 2 * margin_px, frame_size.width + 2 * margin_px
        )
        self._taken = [_lab(self._seen_colours())]

    def colour(self, keep: bool = True) -> Colour:
        """Draw a colour far from the background and from the colours kept before."""
        picks = self.bank.palette[self.rng.choice(len(self.bank.palette), size=_TRIES, replace=False)]
        clearance = np.min([self._clearance(picks, group) for group in self._taken], axis=0)
        clear = np.flatnonzero(clearance >= _CLEAR)
        colour: Colour = picks[clear[0] if len(clear) else int(np.argmax(clearance))]
        if keep:
            self._taken.append(_lab(colour[None]))
        return colour

    def shape(self, fits: Callable[[Shape], bool] = lambda _: True) -> Shape:
        """Draw a shape from the bank; at most a quarter are blobs, which have a larger share of the bank."""
        shapes = [shape for shape in self.bank.shapes if fits(shape)]
        named = [shape for shape in shapes if not shape.name.startswith("blob")]
        pool = named if named and self.rng.random() < 0.75 else shapes
        return pool[self.rng.integers(len(pool))]

    def thing(self, size: float, shape: Shape | None = None, colour: Colour | None = None) -> Sprite:
        """Make an object that is drawn at most `size` units long."""
        outline = list((shape or self.shape()).outline)
        mask = fill_mask(outline, self._pixels(size), union=(shape is not None and _is_cells(shape)))
        return self._finish(mask, self.colour() if colour is None else colour)

    def panel(self, width: float, height: float, colour: Colour | None = None) -> Image:
        """Make a textured rectangle, RGBA, for `width` x `height` units."""
        base = self.colour() if colour is None else colour
        image = self._texture(base, self._pixels(height), self._pixels(width))
        return np.dstack([image, np.ones(image.shape[:2], dtype=np.float32)])

    def plain(self, colour: Colour) -> Image:
        """Make a rectangle of one colour, RGBA."""
        return np.dstack([np.full((4, 4, 3), colour, dtype=np.float32), np.ones((4, 4), dtype=np.float32)])

    def hand(self, length: float, pointing: bool = False) -> Sprite:
        """Make a hand with its arm, `length` units long, in a colour that stands out.

        A pointing hand has one finger.
        """
        hand = self._hand(pointing)
        colour = self._hand_colour(hand)
        mask = fill_mask(hand_outline(hand), self._pixels(length), union=True)
        light = np.broadcast_to(np.linspace(1, 0.8, len(mask), dtype=np.float32)[:, None], mask.shape)
        image = np.asarray(colour * light[..., None])
        return sprite(_rimmed(image, mask, colour * np.float32(0.55), 0.012), mask)

    def reaching_hand(self, size: float, reach: float, tilt_deg: float, pointing: bool) -> Sprite:
        """Make a hand with its fingers up, `size` units long, whose arm continues for `reach` units.

        The hand is in the centre of the sprite, whose side is 2 `reach`; drawn with `size`, it has that size.
        The arm points down, turned by `tilt_deg` degrees.
        """
        hand = self._hand(pointing)
        colour = self._hand_colour(hand)
        pixels = min(self._pixels(2 * reach), _MAX_ARM_PX)
        scale = size / reach  # from a hand that is one long to the sprite's square, whose half is `reach`
        turn = math.radians(tilt_deg)
        rotation = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
        flipped = np.array([1.0, -1.0])
        outline = [
            (contour - (0.0, 0.5)) * flipped * scale @ rotation
            for contour in hand_outline(hand, arm=0.5 - 1.5 / scale)
        ]
        mask = fill_mask(outline, pixels, union=True)
        image = np.broadcast_to(colour * np.float32(self.rng.uniform(0.85, 1.0)), (*mask.shape, 3))
        arm = sprite(_rimmed(image, mask, colour * np.float32(0.6), 0.03 * scale), mask)
        return replace(arm, side=arm.side * size / (2 * reach))

    def _hand(self, pointing: bool) -> Hand:
        hand = self.bank.hands[self.rng.integers(len(self.bank.hands))]
        return replace(hand, fingers=1) if pointing else hand

    def _hand_colour(self, hand: Hand) -> Colour:
        """The colour of a hand, or another one if it does not stand out."""
        colour = np.array(hand.colour, dtype=np.float32)
        return colour if self.stands_out(colour, 0.8) else self.colour()

    def stands_out(self, colour: Colour, share: float) -> bool:
        """Whether a colour has a share of the clear distance from the background and the colours kept."""
        return all(self._clearance(colour[None], group)[0] >= _CLEAR * share for group in self._taken)

    def marked(self, look: Shape, size: float) -> Sprite:
        """Make an object with a bold mark off its centre, which shows its rotation for any outline."""
        pixels = self._pixels(size)
        mask = fill_mask(list(look.outline), pixels, union=_is_cells(look))
        image = self._texture(self.colour(), mask.shape[0], mask.shape[0], soft=True)
        mark = fill_mask([_mark(self.rng)], pixels)[..., None]
        image = image * (1 - mark) + self.colour() * mark
        return sprite(image.astype(np.float32), mask)

    def _pixels(self, size: float) -> int:
        return max(4, round(size * self.frame_size.unit))

    def _finish(self, mask: npt.NDArray[np.float32], colour: Colour) -> Sprite:
        image = self._texture(colour, mask.shape[0], mask.shape[1])
        if self.rng.random() < 0.3:
            rim = (
                colour * np.float32(0.35)
                if self.rng.random() < 0.6
                else 255 - (255 - colour) * np.float32(0.35)
            )
            image = _rimmed(image, mask, rim, self.rng.uniform(0.02, 0.05))
        return sprite(image, mask)

    def _texture(self, colour: Colour, height: int, width: int, soft: bool = False) -> Image:
        """A texture of the colour and a similar one, both distinct from the background."""
        maker: FieldMaker = flat
        if self.rng.random() < 0.6:
            maker = self.bank.thing_fields[self.rng.integers(len(self.bank.thing_fields))]
        grain = max(2.0, max(height, width) * self.rng.uniform(0.1, 0.28))
        return _mix(
            colour, self._companion(colour, 45 if soft else 120), maker(self.rng, height, width, grain)
        )

    def _companion(self, colour: Colour, most: float) -> Colour:
        offsets = self.rng.uniform(-1, 1, size=(_TRIES, 3)) + self.rng.uniform(-1, 1, size=(_TRIES, 1))
        picks = np.clip(colour + offsets * most * self.rng.uniform(0.4, 1.0), 0, 255).astype(np.float32)
        clearance = self._clearance(picks, self._taken[0])
        clear = np.flatnonzero(clearance >= _CLEAR * 0.8)
        companion: Colour = picks[clear[0] if len(clear) else int(np.argmax(clearance))]
        return companion

    def _clearance(
        self, colours: npt.NDArray[np.floating], group: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """Distance of each colour from a group of colours: the 10th percentile."""
        distance = np.linalg.norm(_lab(colours)[:, None] - group[None], axis=-1)
        return np.asarray(np.percentile(distance, 10, axis=1), dtype=np.float32)

    def _seen_colours(self) -> npt.NDArray[np.float32]:
        """Colours of the background's centre square, `(64, 3)`."""
        height, width = self.background.shape[:2]
        half = min(height, width) // 2
        square = self.background[
            height // 2 - half : height // 2 + half, width // 2 - half : width // 2 + half
        ]
        small = cv2.resize(square, (8, 8), interpolation=cv2.INTER_AREA)
        return np.asarray(small, dtype=np.float32).reshape(-1, 3)

    def _background(self, height: int, width: int) -> Image:
        rng = self.rng
        base = self.bank.palette[rng.integers(len(self.bank.palette))]
        if rng.random() < 0.25:
            return np.ascontiguousarray(np.broadcast_to(base, (height, width, 3)), dtype=np.float32)
        maker = self.bank.background_fields[rng.integers(len(self.bank.background_fields))]
        grain = self.frame_size.unit * rng.uniform(0.07, 0.22)
        towards = rng.choice([-1.0, 1.0]) * rng.uniform(0.3, 1.0) + rng.uniform(-0.5, 0.5, size=3)
        second = np.clip(base + towards * rng.uniform(30, 110), 0, 255).astype(np.float32)
        image = _mix(base, second, maker(rng, height, width, grain))
        if rng.random() < 0.35:
            image += self._grit(height, width)
        return np.clip(image, 0, 255)

    def _grit(self, height: int, width: int) -> Image:
        """Fine coloured noise that moves with the background, as in a photograph."""
        rng = self.rng
        rows, columns = max(2, height // 4), max(2, width // 4)
        coarse = rng.standard_normal((rows, columns, 3), dtype=np.float32) * np.float32(rng.uniform(4, 14))
        return np.asarray(cv2.resize(coarse, (width, height)), dtype=np.float32)


def _is_cells(shape: Shape) -> bool:
    return shape.name.startswith("cells")


def _rimmed(image: Image, mask: npt.NDArray[np.float32], rim: Colour, width: float) -> Image:
    """Add a rim along the mask's edge; `width` is a fraction of the image's side."""
    reach = 2 * max(1, round(width * mask.shape[0])) + 1
    core = np.asarray(cv2.erode(mask, np.ones((reach, reach), np.uint8)), dtype=np.float32)[..., None]
    return np.asarray(image * core + rim * (1 - core), dtype=np.float32)


def _mark(rng: Rng) -> Contour:
    """A disc, a bar or a half plane off the centre."""
    turn = rng.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    angle = np.linspace(0, 2 * np.pi, 24)
    disc = np.stack([np.cos(angle), np.sin(angle)], axis=-1) * rng.uniform(0.24, 0.34) + (0.5, 0.0)
    bar = np.array([(-0.1, -0.17), (1.5, -0.17), (1.5, 0.17), (-0.1, 0.17)])
    half = np.array([(0.05, -1.5), (1.5, -1.5), (1.5, 1.5), (0.05, 1.5)])
    return np.asarray((disc, bar, half)[rng.integers(3)] @ rotation, dtype=np.float64)


def hand_outline(hand: Hand, arm: float = -1.0) -> Outline:
    """Outline a hand with its fingers down to y = 1, a palm 0.5 wide, and an arm that begins at y = `arm`."""
    palm = 0.5
    finger, long = hand.finger_width * palm, hand.finger_length * palm
    base = 1.0 - long
    contours: Outline = [_capsule(0.0, arm, 0.0, base - 0.3, hand.arm_width * palm / 2)]
    contours.append(_capsule(0.0, base - 0.3, 0.0, base - 0.12, palm / 2))
    for place in np.linspace(-1, 1, hand.fingers):
        root, tip = place * (palm / 2 - finger / 2), place * hand.spread * (palm / 2)
        drop = 1.0 - finger / 2 - 0.12 * abs(place) * long
        contours.append(_capsule(root, base - 0.15, tip, drop, finger / 2))
    return contours


def _capsule(x0: float, y0: float, x1: float, y1: float, radius: float) -> Contour:
    """Outline a thick line with round ends."""
    turn = np.arctan2(y1 - y0, x1 - x0)
    half = np.linspace(-np.pi / 2, np.pi / 2, 12) + turn
    end = np.stack([x1 + radius * np.cos(half), y1 + radius * np.sin(half)], axis=-1)
    start = np.stack([x0 - radius * np.cos(half), y0 - radius * np.sin(half)], axis=-1)
    return np.concatenate([end, start])
