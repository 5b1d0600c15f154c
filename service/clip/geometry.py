"""Where the pixels of an input come from: scaled size, crops, orientation. Pure functions on integers.

A frame is scaled whole as it is coded, then turned upright, then cropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

CROP_COUNTS = (1, 3, 5, 10)


@dataclass(frozen=True)
class Crop:
    """Where a square is cut out of an upright frame, in pixels; mirrored left to right after cutting."""

    left: int
    top: int
    mirrored: bool = False


@dataclass(frozen=True)
class Orientation:
    """How a coded frame is brought upright: mirrored left to right first, then turned clockwise.

    `rotation` is 0, 90, 180 or 270 degrees.
    """

    rotation: int = 0
    mirrored: bool = False


UPRIGHT = Orientation()


def scaled_size(width: int, height: int, scale: int) -> tuple[int, int]:
    """Width and height after scaling the shorter side to `scale` pixels; the longer side rounds down.

    Rounding down is what torchvision's Resize does, which the published models were evaluated with.
    """
    if width <= height:
        return scale, max(scale, scale * height // width)
    return max(scale, scale * width // height), scale


def crop_boxes(width: int, height: int, size: int, crops: int) -> tuple[Crop, ...]:
    """The crops of `size` x `size` pixels that are taken of a scaled, upright frame.

    1 is the centre; 3 are evenly spaced along the longer side; 5 are the four corners (top left, top right,
    bottom left, bottom right) and the centre; 10 are those five, then their mirror images.

    Raises:
        ValueError: `crops` is another number, or the frame is smaller than the crop.
    """
    if width < size or height < size:
        raise ValueError(f"a crop of {size} does not fit into {width}x{height}")
    right, bottom = width - size, height - size
    centre = Crop(_half(right), _half(bottom))
    five = (Crop(0, 0), Crop(right, 0), Crop(0, bottom), Crop(right, bottom), centre)
    match crops:
        case 1:
            return (centre,)
        case 3 if width >= height:
            return Crop(0, centre.top), centre, Crop(right, centre.top)
        case 3:
            return Crop(centre.left, 0), centre, Crop(centre.left, bottom)
        case 5:
            return five
        case 10:
            return five + tuple(Crop(crop.left, crop.top, mirrored=True) for crop in five)
        case _:
            raise ValueError(f"crops must be one of {CROP_COUNTS}, it is {crops}")


def orientation_of(matrix: Sequence[int]) -> Orientation:
    """The orientation that a display matrix asks for, to the nearest quarter turn.

    `matrix` is the 3x3 matrix of ISO/IEC 14496-12 in row order `(a, b, u, c, d, v, x, y, w)`: a point (p, q)
    of the coded frame, q counting downwards, is shown at (a p + c q, b p + d q). A matrix without a
    direction (all zeros) counts as upright.
    """
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    mirrored = a * d - b * c < 0
    if mirrored:  # undo the mirror, which comes first, so that a pure rotation is left
        a, b = -a, -b
    cosine, sine = a + d, b - c
    if abs(cosine) >= abs(sine):
        return Orientation(180 if cosine < 0 else 0, mirrored)
    return Orientation(90 if sine > 0 else 270, mirrored)


def _half(distance: int) -> int:
    """Half of it, ties to even: torchvision's CenterCrop rounds so, and published figures rest on it."""
    return round(distance / 2)
