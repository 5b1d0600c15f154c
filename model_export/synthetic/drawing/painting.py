"""Sprites, and the painter that draws them on a frame.

Lengths are in units of the frame's shorter side; the origin is the frame's centre, x to the right, y down. So
the square that a network crops from the centre spans -0.5 to 0.5 in both directions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from model_export.synthetic.drawing.shapes import Outline

Image = npt.NDArray[np.float32]  # (H, W, 3) RGB 0..255, or (H, W, 4) with premultiplied colour and alpha 0..1

_SUPERSAMPLE: Final = 3
_MARGIN_PX: Final = 2  # transparent border of a sprite, for smooth edges when it is turned


@dataclass(frozen=True)
class FrameSize:
    """A frame's size in pixels."""

    width: int
    height: int

    @property
    def unit(self) -> int:
        """Pixels in one unit of length: the shorter side."""
        return min(self.width, self.height)

    @property
    def reach_x(self) -> float:
        """Half the frame's width, in units."""
        return self.width / self.unit / 2

    @property
    def reach_y(self) -> float:
        """Half the frame's height, in units."""
        return self.height / self.unit / 2


@dataclass(frozen=True)
class Sprite:
    """An image pyramid: premultiplied RGBA at full size and repeatedly halved, each `(n, n, 4)`.

    `side` is the length of the object's longer side at full size, in pixels.
    """

    levels: tuple[Image, ...]
    side: float

    def level_for(self, size_px: float) -> tuple[Image, float]:
        """The smallest level that is at least as large as needed, and the scale to draw it at."""
        scale = size_px / self.side
        index = min(max(0, math.floor(-math.log2(max(scale, 1e-3)))), len(self.levels) - 1)
        return self.levels[index], scale * 2**index


def fill_mask(outline: Outline, side_px: int, union: bool = False) -> npt.NDArray[np.float32]:
    """Rasterize an outline whose longer side is `side_px` to coverage in 0..1, with a small margin.

    Contours are filled by the even-odd rule, or as a `union`.
    """
    big = (side_px + 2 * _MARGIN_PX) * _SUPERSAMPLE
    mask = np.zeros((big, big), dtype=np.uint8)
    scale = side_px * _SUPERSAMPLE / 2
    contours = [np.round(contour * scale + big / 2).astype(np.int32) for contour in outline]
    for group in [[contour] for contour in contours] if union else [contours]:
        cv2.fillPoly(mask, group, 255)
    small = cv2.resize(mask, (big // _SUPERSAMPLE, big // _SUPERSAMPLE), interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.float32) / np.float32(255)


def sprite(colour: Image, mask: npt.NDArray[np.float32]) -> Sprite:
    """Make a sprite of colours `(n, n, 3)` and coverage `(n, n)`."""
    level = np.dstack([colour * mask[..., None], mask]).astype(np.float32)
    levels = [level]
    while level.shape[0] >= 24:
        level = np.asarray(cv2.resize(level, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
        levels.append(level)
    return Sprite(tuple(levels), float(mask.shape[0] - 2 * _MARGIN_PX))


class Painter:
    """Draws on one frame, float32 `(H, W, 3)`, with the camera displaced by `(camera_x, camera_y)`.

    `zoom` scales what is drawn about the frame's centre.
    """

    def __init__(
        self,
        canvas: Image,
        frame_size: FrameSize,
        camera_x: float = 0.0,
        camera_y: float = 0.0,
        zoom: float = 1.0,
    ) -> None:
        self.canvas = canvas
        self.frame_size = frame_size
        self._origin = np.array([frame_size.width / 2, frame_size.height / 2])
        self._camera = np.array([camera_x, camera_y])
        self._zoom = zoom

    def put(
        self, look: Sprite, x: float, y: float, size: float, angle: float = 0.0, alpha: float = 1.0
    ) -> None:
        """Draw a sprite centred at `(x, y)` with longer side `size`, turned clockwise by `angle` degrees."""
        level, scale = look.level_for(size * self._zoom * self.frame_size.unit)
        centre = self._to_pixels(np.array([x, y]))
        turn, middle = math.radians(angle), (level.shape[0] - 1) / 2
        cos, sin = scale * math.cos(turn), scale * math.sin(turn)
        linear = np.array([[cos, -sin], [sin, cos]])
        matrix = np.column_stack([linear, centre - 0.5 - linear @ np.array([middle, middle])])
        reach = scale * level.shape[0] * math.sqrt(0.5)
        window = self._window(centre[0] - reach, centre[1] - reach, centre[0] + reach, centre[1] + reach)
        if window is None:
            return
        x0, y0, x1, y1 = window
        matrix[:, 2] -= (x0, y0)
        self._blend(np.asarray(cv2.warpAffine(level, matrix, (x1 - x0, y1 - y0)), np.float32), x0, y0, alpha)

    def quad(self, image: Image, corners: Sequence[tuple[float, float]]) -> None:
        """Draw an RGBA image warped to four corners, given clockwise from its top left."""
        target = np.array([self._to_pixels(np.array(corner)) for corner in corners])
        window = self._window(*target.min(axis=0) - 1, *target.max(axis=0) + 1)
        if window is None or _area(target) < 1.0:
            return
        x0, y0, x1, y1 = window
        height, width = image.shape[:2]
        source = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float32) - 0.5
        matrix = cv2.getPerspectiveTransform(source, (target - 0.5 - (x0, y0)).astype(np.float32))
        self._blend(
            np.asarray(cv2.warpPerspective(image, matrix, (x1 - x0, y1 - y0)), np.float32), x0, y0, 1.0
        )

    def _to_pixels(self, point: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray((point * self._zoom + self._camera) * self.frame_size.unit + self._origin)

    def _window(self, x0: float, y0: float, x1: float, y1: float) -> tuple[int, int, int, int] | None:
        """The pixels of the frame that a box touches; None if it is outside."""
        left, top = max(0, math.floor(x0)), max(0, math.floor(y0))
        right, bottom = min(self.frame_size.width, math.ceil(x1)), min(self.frame_size.height, math.ceil(y1))
        return (left, top, right, bottom) if left < right and top < bottom else None

    def _blend(self, layer: Image, x: int, y: int, alpha: float) -> None:
        area = self.canvas[y : y + layer.shape[0], x : x + layer.shape[1]]
        area *= 1.0 - layer[..., 3:] * np.float32(alpha)
        area += layer[..., :3] * np.float32(alpha)


def _area(corners: npt.NDArray[np.float64]) -> float:
    x, y = corners[:, 0], corners[:, 1]
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2
