"""Decoded frames to RGB at the network's sizes, by one pass of swscale from the decoder's own format."""

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

# The triangle filter, widened by the scale when shrinking (as PIL's antialiased BILINEAR), with chroma
# interpolated and not repeated.
FILTER = Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND
# What swscale is asked for. With chroma interpolated it writes planes by vector instructions and packed RGB
# pixel by pixel: a frame of 427x240 takes 0.14 ms to 398x224, and 0.04 more to pack a crop, and not 0.48.
# The values are the same when shrinking; when enlarging one in 500 is another, by one level.
PLANAR = "gbrp"

# AVColorSpace, as frames carry it -> the matrix as swscale numbers it.
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
# Larger than standard definition in either direction: mpv's rule for streams that do not say, and other
# players differ only between 577 and 720 lines.
SD_WIDTH, SD_HEIGHT = 1279, 576


@dataclass(frozen=True)
class ScaledFrame:
    """A frame at the size of a network, upright.

    Attributes:
        planes: Red, green and blue, `(H, W)` each; views of what swscale wrote, not always contiguous.
    """

    planes: tuple[NDArray[np.uint8], ...]

    @property
    def width(self) -> int:
        """In pixels."""
        return len(self.planes[0][0])

    @property
    def height(self) -> int:
        """In pixels."""
        return len(self.planes[0])

    def copy_crop(self, crop: Crop, target: NDArray[np.uint8]) -> None:
        """Put what lies at `crop` into `(h, w, 3)` RGB; what no crop wants is never packed."""
        height, width, _ = target.shape
        for channel, plane in enumerate(self.planes):
            cut = plane[crop.top : crop.top + height, crop.left : crop.left + width]
            target[..., channel] = cut[:, ::-1] if crop.mirrored else cut

    def image(self) -> NDArray[np.uint8]:
        """All of it, `(H, W, 3)` RGB."""
        return np.stack(self.planes, axis=-1)


class Scaler:
    """Scales frames to one size; keeps swscale's tables from frame to frame."""

    def __init__(self, scale: int) -> None:
        self._scale = scale
        self._reformatter = VideoReformatter()

    def scaled(self, frame: VideoFrame) -> ScaledFrame:
        """The frame with its shorter side `scale` long.

        Raises:
            Undecodable: swscale does not know the pixel format.
        """
        width, height = scaled_size(frame.width, frame.height, self._scale)
        try:
            planar = self._reformatter.reformat(
                woven(frame) if frame.interlaced_frame else frame,
                width=width,
                height=height,
                format=PLANAR,
                src_colorspace=colour_matrix(frame.colorspace, frame.width, frame.height),
                interpolation=FILTER,
                threads=1,  # bit-identical from run to run, and one core is this worker's share
            )
        except FFmpegError as exc:
            raise Undecodable("the video's pixel format cannot be converted") from exc
        orientation = frame_orientation(frame)
        return ScaledFrame(tuple(turned(plane, orientation) for plane in rgb_planes(planar)))


def colour_matrix(colorspace: int, width: int, height: int) -> Colorspace:
    """The YUV matrix of a frame; where the stream does not say, BT.709 for high definition, else BT.601."""
    stated = MATRICES.get(colorspace)
    if stated is not None:
        return stated
    return Colorspace.ITU709 if width > SD_WIDTH or height > SD_HEIGHT else Colorspace.ITU601


def frame_orientation(frame: VideoFrame) -> Orientation:
    """How the frame's display matrix wants it shown."""
    try:
        # Not `frame.side_data`, which the frame would keep: the two refer to one another, and a frame of 4K
        # is 14 MB that wait for the collector of garbage. PyAV's stub knows no such call, and calls the
        # elements str; at run time they are SideData.
        side_data = cast("Iterable[SideData]", SideDataContainer(frame))  # type: ignore[call-arg]
    except ValueError:
        # PyAV knows fewer kinds than its FFmpeg makes (Exif in Motion JPEG, for one), and then lists none at
        # all. The angle it has a way of its own to, counter-clockwise; a mirror is lost.
        return Orientation(-round(frame.rotation / 90) % 4 * 90)
    for item in side_data:
        if item.type is Type.DISPLAYMATRIX:
            return orientation_of(np.frombuffer(memoryview(item), dtype=np.int32).tolist())
    return UPRIGHT


def turned(plane: NDArray[np.uint8], orientation: Orientation) -> NDArray[np.uint8]:
    """A view of `(H, W)` mirrored left to right if asked, then turned clockwise."""
    if orientation.mirrored:
        plane = plane[:, ::-1]
    return np.rot90(plane, -orientation.rotation // 90)


def woven(frame: VideoFrame) -> VideoFrame:
    """A copy of an interlaced frame that passes for one picture.

    swscale scales the fields of a frame so marked each by itself and puts them back line by line, combs and
    all: four levels of 255 away from a frame that was extracted with ffmpeg and scaled by PIL. PyAV has no
    way to take the mark off.
    """
    copy = VideoFrame(frame.width, frame.height, frame.format.name)
    for source, target in zip(frame.planes, copy.planes, strict=True):
        used = min(source.line_size, target.line_size)
        _rows(target)[:, :used] = _rows(source)[:, :used]
    copy.colorspace, copy.color_range = frame.colorspace, frame.color_range
    return copy


def rgb_planes(frame: VideoFrame) -> tuple[NDArray[np.uint8], ...]:
    """Red, green and blue of a frame in `PLANAR`, `(H, W)` each, without the padding at the end of rows."""
    green, blue, red = (_rows(plane)[:, : frame.width] for plane in frame.planes)
    return red, green, blue


def _rows(plane: VideoPlane) -> NDArray[np.uint8]:
    return np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(plane.height, plane.line_size)
