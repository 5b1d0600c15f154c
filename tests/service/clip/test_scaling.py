from __future__ import annotations

import gc
import io

import av
import numpy as np
import pytest
from av.video.reformatter import Colorspace

from benchmarks.scaler_fidelity import FILTERS, REFERENCES, difference, generated_frames
from service.clip.geometry import Crop, Orientation
from service.clip.scaling import (
    FILTER,
    ScaledFrame,
    Scaler,
    colour_matrix,
    rgb_planes,
    turned,
    without_interlacing,
)
from tests.support.clips import numbered_clip

LIMITED, FULL = 1, 2
BT709, BT601, BT2020, UNSPECIFIED = 1, 6, 9, 2

# Levels by which the pixels of a 224 or 112 pixel frame may differ from PIL's on average. swscale's fast
# conversion, which does not round, is 1.1 levels too dark, so its bound is wider.
LARGEST_MEAN = {"accurate": 0.75, "fast": 1.75}


@pytest.mark.parametrize(("width", "height"), [(427, 240), (340, 256), (1920, 1080)])
def test_scaler_is_near_to_pil(width: int, height: int) -> None:
    frames = generated_frames(width, height, count=1)
    for scale in (224, 112):
        for name, largest in LARGEST_MEAN.items():
            assert difference(frames, scale, FILTER, REFERENCES[name]).mean < largest


def test_measure_detects_a_filter_without_antialiasing() -> None:
    frames = generated_frames(340, 256, count=1)
    assert difference(frames, 112, FILTERS["fast bilinear"], REFERENCES["accurate"]).mean > 5


def flat(y: int, u: int, v: int, colorspace: int, color_range: int, size: int = 64) -> av.VideoFrame:
    frame = av.VideoFrame(size, size, "yuv420p")
    for plane, value in zip(frame.planes, (y, u, v), strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    frame.colorspace, frame.color_range = colorspace, color_range
    return frame


@pytest.mark.parametrize(
    ("yuv", "colorspace", "color_range", "rgb"),
    [
        ((16, 128, 128), BT601, LIMITED, (0, 0, 0)),
        ((235, 128, 128), BT601, LIMITED, (255, 255, 255)),
        ((126, 128, 128), BT709, LIMITED, (128, 128, 128)),
        ((0, 128, 128), BT601, FULL, (0, 0, 0)),
        ((255, 128, 128), BT601, FULL, (255, 255, 255)),
        ((128, 128, 128), BT709, FULL, (128, 128, 128)),
        ((81, 90, 240), BT601, LIMITED, (255, 0, 0)),  # pure red in each matrix
        ((63, 102, 240), BT709, LIMITED, (255, 0, 0)),
        ((74, 97, 240), BT2020, LIMITED, (255, 0, 0)),
        ((76, 85, 255), BT601, FULL, (255, 0, 0)),
        ((173, 42, 26), BT709, LIMITED, (0, 255, 0)),
        ((145, 54, 34), BT601, LIMITED, (0, 255, 0)),
        ((81, 90, 240), UNSPECIFIED, LIMITED, (255, 0, 0)),  # small and unspecified: BT.601
        ((81, 90, 240), UNSPECIFIED, 0, (255, 0, 0)),  # no range either: limited
    ],
)
def test_colours_follow_the_streams_matrix_and_range(
    yuv: tuple[int, int, int], colorspace: int, color_range: int, rgb: tuple[int, int, int]
) -> None:
    image = Scaler(32).scaled(flat(*yuv, colorspace, color_range)).image()
    assert np.abs(image.reshape(-1, 3).astype(int) - rgb).max() <= 2


def test_large_frame_without_a_matrix_is_converted_as_high_definition() -> None:
    image = Scaler(32).scaled(flat(63, 102, 240, UNSPECIFIED, LIMITED, size=720)).image()
    assert np.abs(image.reshape(-1, 3).astype(int) - (255, 0, 0)).max() <= 2


@pytest.mark.parametrize(
    ("colorspace", "width", "height", "expected"),
    [
        (UNSPECIFIED, 720, 480, Colorspace.ITU601),
        (UNSPECIFIED, 720, 576, Colorspace.ITU601),
        (UNSPECIFIED, 1280, 720, Colorspace.ITU709),
        (UNSPECIFIED, 720, 1280, Colorspace.ITU709),
        (UNSPECIFIED, 1280, 544, Colorspace.ITU709),
        (BT709, 320, 240, Colorspace.ITU709),
        (BT601, 1920, 1080, Colorspace.ITU601),
        (BT2020, 3840, 2160, Colorspace.BT2020),
        (99, 320, 240, Colorspace.ITU601),  # an unknown number counts as unspecified
    ],
)
def test_streams_without_a_matrix_get_that_of_players(
    colorspace: int, width: int, height: int, expected: Colorspace
) -> None:
    assert colour_matrix(colorspace, width, height) is expected


def test_one_scaler_takes_frames_of_changing_size_and_format() -> None:
    scaler = Scaler(32)
    for width, height, pix_fmt in (
        (64, 48, "yuv420p"),
        (33, 97, "rgb24"),
        (64, 64, "yuv422p10le"),
        (1, 1, "gray"),
    ):
        image = scaler.scaled(av.VideoFrame(width, height, pix_fmt))
        assert min(image.width, image.height) == 32


def test_interlaced_frames_are_scaled_as_one_picture() -> None:
    """Fields that are scaled separately would differ by whole levels from the picture without interlacing."""
    frame = interlaced_frame()
    assert frame.interlaced_frame
    copy = without_interlacing(frame)
    assert not copy.interlaced_frame
    assert np.array_equal(frame.to_ndarray(), copy.to_ndarray())
    for scale in (64, 40):
        assert np.array_equal(Scaler(scale).scaled(frame).image(), Scaler(scale).scaled(copy).image())


def test_interlaced_frame_with_a_palette_keeps_its_colours() -> None:
    frame = interlaced_frame_with_a_palette()
    assert frame.interlaced_frame
    copy = without_interlacing(frame)
    assert not copy.interlaced_frame
    assert [bytes(plane) for plane in copy.planes] == [bytes(plane) for plane in frame.planes]
    image = Scaler(64).scaled(frame).image()
    assert image[::2].min() > 250
    assert image[1::2].max() < 5


def interlaced_frame() -> av.VideoFrame:
    """A frame of 96x64 whose two fields are different pictures, marked as interlaced by the encoder."""
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[::2] = 255
    options = {"flags": "+ildct+ilme"}
    return coded(av.VideoFrame.from_ndarray(picture, format="rgb24"), "mpegts", "mpeg2video", options)


def interlaced_frame_with_a_palette() -> av.VideoFrame:
    """The same pictures as indices into a palette of black and white."""
    frame = av.VideoFrame(96, 64, "pal8")
    indices, palette = frame.planes
    rows = np.zeros((64, indices.line_size), np.uint8)
    rows[::2] = 1
    indices.update(rows.tobytes())
    colours = np.array([0xFF000000, 0xFFFFFFFF, *[0] * 254], np.uint32)
    palette.update(colours.tobytes())
    return coded(frame, "mov", "rawvideo", {"field_order": "tt"}, "pal8")


def coded(
    frame: av.VideoFrame, container_format: str, codec: str, options: dict[str, str], pix_fmt: str = "yuv420p"
) -> av.VideoFrame:
    """A frame after coding and decoding."""
    file = io.BytesIO()
    with av.open(file, "w", format=container_format) as container:
        stream = container.add_stream(codec, rate=25, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, pix_fmt
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file, "r") as container:
        return next(container.decode(video=0))


def test_scaling_is_reproducible() -> None:
    frame = generated_frames(427, 240, count=1)[0]
    assert np.array_equal(Scaler(224).scaled(frame).image(), Scaler(224).scaled(frame).image())


def test_planes_are_red_green_and_blue_without_the_padding_of_rows() -> None:
    image = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    frame = av.VideoFrame.from_ndarray(image, format="gbrp")
    assert frame.planes[0].line_size > 7
    assert np.array_equal(ScaledFrame(rgb_planes(frame)).image(), image)


def test_a_crop_is_cut_out_and_mirrored() -> None:
    image = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    scaled = ScaledFrame(tuple(np.moveaxis(image, -1, 0)))
    for mirrored in (False, True):
        target = np.empty((2, 3, 3), np.uint8)
        scaled.copy_crop(Crop(left=4, top=1, mirrored=mirrored), target)
        cut = image[1:3, 4:7]
        assert np.array_equal(target, cut[:, ::-1] if mirrored else cut)


@pytest.mark.parametrize(("width", "height"), [(427, 240), (340, 256), (1920, 1080)])
def test_planes_equal_packed_pixels(width: int, height: int) -> None:
    (frame,) = generated_frames(width, height, count=1)
    for scale in (224, 112):
        ours = Scaler(scale).scaled(frame).image()
        rgb = frame.reformat(
            width=ours.shape[1],
            height=ours.shape[0],
            format="rgb24",
            src_colorspace=colour_matrix(frame.colorspace, width, height),
            interpolation=FILTER,
            threads=1,
        )
        assert np.array_equal(ours, rgb.to_ndarray())


CORNERS = np.array([[1, 2], [3, 4], [5, 6]], np.uint8)  # 2 wide, 3 high


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (Orientation(0), [[1, 2], [3, 4], [5, 6]]),
        (Orientation(90), [[5, 3, 1], [6, 4, 2]]),
        (Orientation(180), [[6, 5], [4, 3], [2, 1]]),
        (Orientation(270), [[2, 4, 6], [1, 3, 5]]),
        (Orientation(0, mirrored=True), [[2, 1], [4, 3], [6, 5]]),
        (Orientation(90, mirrored=True), [[6, 4, 2], [5, 3, 1]]),
    ],
)
def test_turning_is_clockwise_and_after_mirroring(
    orientation: Orientation, expected: list[list[int]]
) -> None:
    assert turned(CORNERS, orientation).tolist() == expected


def test_scaled_frame_is_freed_with_its_last_reference() -> None:
    with av.open(io.BytesIO(numbered_clip(frames=12, rotation=90)), "r") as container:
        frames = container.decode(video=0)
        gc.collect()
        gc.disable()
        try:
            for frame in frames:
                Scaler(32).scaled(frame)
            del frame
            assert not [item for item in gc.get_objects() if type(item) is av.VideoFrame and item.width]
        finally:
            gc.enable()
