"""Scaled size, crops and orientation of frames. Pure functions on integers.

A coded frame is scaled as a whole, then rotated upright, then cropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

CROP_COUNTS = (1, 3, 5, 10)


@dataclass(frozen=True)
class Crop:
    """Position of a square crop in an upright frame, in pixels; mirrored horizontally after cropping."""

    left: int
    top: int
    mirrored: bool = False


@dataclass(frozen=True)
class Orientation:
    """How to make a coded frame upright: first mirror it horizontally, then rotate it clockwise.

    `rotation` is 0, 90, 180 or 270 degrees.
    """

    rotation: int = 0
    mirrored: bool = False


UPRIGHT = Orientation()


def scaled_size(width: int, height: int, scale: int) -> tuple[int, int]:
    """Return width and height after scaling the shorter side to `scale` pixels; the longer side rounds down.

    torchvision's Resize, with which the published models were evaluated, rounds down.
    """
    if width <= height:
        return scale, max(scale, scale * height // width)
    return max(scale, scale * width // height), scale


def crop_boxes(width: int, height: int, size: int, crops: int) -> tuple[Crop, ...]:
    """Return the crops of `size` x `size` pixels of a scaled, upright frame.

    One crop is the centre; three are evenly spaced along the longer side; five are the four corners (top
    left, top right, bottom left, bottom right) and the centre; ten are those five, then their mirror images.

    Raises:
        ValueError: `crops` is not in `CROP_COUNTS`, or the frame is smaller than the crop.
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
            raise ValueError(f"crops must be one of {CROP_COUNTS}, not {crops}")


def orientation_of(matrix: Sequence[int]) -> Orientation:
    """Return the orientation of a display matrix, rounded to quarter turns.

    `matrix` is the 3x3 matrix of ISO/IEC 14496-12 in row order `(a, b, u, c, d, v, x, y, w)`: a point (p, q)
    of the coded frame, with q pointing down, is displayed at (a p + c q, b p + d q). A matrix without a
    direction (all zeros) means upright.
    """
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    mirrored = a * d - b * c < 0
    if mirrored:  # remove the mirroring, which comes first, so that a pure rotation remains
        a, b = -a, -b
    cosine, sine = a + d, b - c
    if abs(cosine) >= abs(sine):
        return Orientation(180 if cosine < 0 else 0, mirrored)
    return Orientation(90 if sine > 0 else 270, mirrored)


def _half(distance: int) -> int:
    """Half of `distance`, with ties to even like torchvision's CenterCrop, which published results use."""
    return round(distance / 2)
