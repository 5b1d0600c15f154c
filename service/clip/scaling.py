"""Converts decoded frames to RGB at the network's sizes, in one pass of swscale."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import numpy as np
from av.error import FFmpegError
from av.sidedata.sidedata import SideData, SideDataContainer, Type
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from service.clip.geometry import UPRIGHT, Crop, Orientation, orientation_of, scaled_size
from service.errors import Undecodable

# A triangle filter that widens when shrinking, like PIL's antialiased BILINEAR, with interpolated chroma.
FILTER = Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND
# The output format of swscale. With interpolated chroma swscale writes planes with vector instructions, but
# packed RGB pixel by pixel: scaling 427x240 to 398x224 takes 0.14 ms plus 0.04 ms for packing a crop, instead
# of 0.48 ms. The values are identical when shrinking; when enlarging, one in 500 differs by one level.
PLANAR = "gbrp"

# AVColorSpace of a frame -> swscale's number of the matrix.
UNSPECIFIED = 2
MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}
# Larger frames count as high definition if the stream does not state its matrix. This is mpv's rule; other
# players differ only between 577 and 720 lines.
SD_WIDTH, SD_HEIGHT = 1279, 576


@dataclass(frozen=True)
class ScaledFrame:
    """A scaled, upright frame.

    Attributes:
        planes: red, green and blue, `(H, W)` each; views of swscale's output, not always contiguous.
    """

    planes: tuple[NDArray[np.uint8], ...]

    @property
    def width(self) -> int:
        """The width in pixels."""
        return len(self.planes[0][0])

    @property
    def height(self) -> int:
        """The height in pixels."""
        return len(self.planes[0])

    def copy_crop(self, crop: Crop, target: NDArray[np.uint8]) -> None:
        """Copy a crop into `target`, `(h, w, 3)` RGB; only cropped pixels are packed."""
        height, width, _ = target.shape
        for channel, plane in enumerate(self.planes):
            cut = plane[crop.top : crop.top + height, crop.left : crop.left + width]
            target[..., channel] = cut[:, ::-1] if crop.mirrored else cut

    def image(self) -> NDArray[np.uint8]:
        """The whole frame as RGB `(H, W, 3)`."""
        return np.stack(self.planes, axis=-1)


class Scaler:
    """Scales frames to one size and reuses swscale's tables."""

    def __init__(self, scale: int) -> None:
        self._scale = scale
        self._reformatter = VideoReformatter()

    def scaled(self, frame: VideoFrame) -> ScaledFrame:
        """Scale the shorter side of a frame to `scale` pixels.

        Raises:
            Undecodable: swscale does not support the pixel format.
        """
        return self.resized(frame, *scaled_size(frame.width, frame.height, self._scale))

    def resized(self, frame: VideoFrame, width: int, height: int) -> ScaledFrame:
        """Scale a coded frame to a width and height, which its orientation may swap afterwards.

        Raises:
            Undecodable: swscale does not support the pixel format.
        """
        try:
            planar = self._reformatter.reformat(
                without_interlacing(frame) if frame.interlaced_frame else frame,
                width=width,
                height=height,
                format=PLANAR,
                src_colorspace=colour_matrix(frame.colorspace, frame.width, frame.height),
                interpolation=FILTER,
                threads=1,  # deterministic, and this worker's share is one core
            )
        except FFmpegError as exc:
            raise Undecodable("the video's pixel format cannot be converted") from exc
        orientation = frame_orientation(frame)
        return ScaledFrame(tuple(turned(plane, orientation) for plane in rgb_planes(planar)))


def colour_matrix(colorspace: int, width: int, height: int) -> Colorspace:
    """The YUV matrix of a frame; by default BT.709 for high definition and BT.601 otherwise."""
    stated = MATRICES.get(colorspace)
    if stated is not None:
        return stated
    return Colorspace.ITU709 if width > SD_WIDTH or height > SD_HEIGHT else Colorspace.ITU601


def frame_orientation(frame: VideoFrame) -> Orientation:
    """The orientation in the display matrix of a frame."""
    try:
        # `frame.side_data` would create a reference cycle, so that 14 MB of a 4K frame would wait for garbage
        # collection. PyAV's stub lacks this constructor and declares the elements as str; they are SideData.
        side_data = cast("Iterable[SideData]", SideDataContainer(frame))  # type: ignore[call-arg]
    except ValueError:
        # PyAV fails to list side data if it does not know one of the types, such as Exif in Motion JPEG.
        # `rotation` still has the angle, counter-clockwise; mirroring is lost.
        return Orientation(-round(frame.rotation / 90) % 4 * 90)
    for item in side_data:
        if item.type is Type.DISPLAYMATRIX:
            return orientation_of(np.frombuffer(memoryview(item), dtype=np.int32).tolist())
    return UPRIGHT


def turned(plane: NDArray[np.uint8], orientation: Orientation) -> NDArray[np.uint8]:
    """A view of a plane `(H, W)`, mirrored horizontally if necessary, then rotated clockwise."""
    if orientation.mirrored:
        plane = plane[:, ::-1]
    return np.rot90(plane, -orientation.rotation // 90)


def without_interlacing(frame: VideoFrame) -> VideoFrame:
    """Copy an interlaced frame into a frame that is not marked as interlaced.

    swscale scales the fields of an interlaced frame separately, which differs by four levels of 255 from a
    frame that was extracted with ffmpeg and scaled by PIL. PyAV cannot remove the mark.
    """
    copy = VideoFrame(frame.width, frame.height, frame.format.name)
    for source, target in zip(frame.planes, copy.planes, strict=True):
        if not source.line_size:  # a palette, which has no rows
            target.update(bytes(source))
            continue
        used = min(source.line_size, target.line_size)
        _rows(target)[:, :used] = _rows(source)[:, :used]
    copy.colorspace, copy.color_range = frame.colorspace, frame.color_range
    return copy


def rgb_planes(frame: VideoFrame) -> tuple[NDArray[np.uint8], ...]:
    """Red, green and blue planes `(H, W)` of a frame in `PLANAR`, without row padding."""
    green, blue, red = (_rows(plane)[:, : frame.width] for plane in frame.planes)
    return red, green, blue


def _rows(plane: VideoPlane) -> NDArray[np.uint8]:
    return np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(plane.height, plane.line_size)
