"""Folders of pictures are read like videos: the same frames and pixels; bad ones are refused."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from model_export.datasets import Example
from model_export.datasets.reading import read_views
from service.clip.decoding.clips import decode_video
from service.clip.spec import ClipSpec, Frames, InputSpec, Sampling
from service.errors import BlvnetError, InvalidParameter
from tests.support.clips import jpeg_picture, numbered_clip, numbered_pictures, read_numbers

INPUTS = (InputSpec("little", Frames.EVEN, 48, 50), InputSpec("big", Frames.ODD, 24, 25))
SPEC = ClipSpec(frames=4, inputs=INPUTS)


def motion_jpeg(folder: Path) -> bytes:
    """A video of the pictures of a folder, without encoding them again."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("mjpeg", rate=12, width=176, height=100, pix_fmt="yuvj420p")
        for index, path in enumerate(sorted(folder.iterdir())):
            packet = av.Packet(path.read_bytes())
            packet.stream, packet.time_base = stream, Fraction(1, 12)
            packet.pts = packet.dts = index
            packet.is_keyframe = True
            container.mux(packet)
    return file.getvalue()


@pytest.mark.parametrize(("clips", "crops"), [(1, 1), (3, 10)])
def test_pictures_give_the_pixels_of_the_video_that_they_make(tmp_path: Path, clips: int, crops: int) -> None:
    noise = np.random.default_rng(1)
    for index in range(9):
        image = noise.integers(0, 255, (100, 176, 3), np.uint8)
        (tmp_path / f"{index + 1:05d}.jpg").write_bytes(jpeg_picture(image))
    decoded = decode_video(motion_jpeg(tmp_path), SPEC, clips=clips, crops=crops)
    inputs = read_views(Example(tmp_path, 0), SPEC, clips=clips, crops=crops)
    assert decoded.video.codec == "mjpeg"
    for name, frames in decoded.inputs.items():
        np.testing.assert_array_equal(inputs[name], frames)


def test_hidden_pictures_are_not_part_of_the_video(tmp_path: Path) -> None:
    numbered_pictures(tmp_path, range(8))
    (tmp_path / "._00001.jpg").write_bytes(b"what macOS writes")
    inputs = read_views(Example(tmp_path, 0, (1, 4)), SPEC)
    assert read_numbers(inputs["little"][0]) == [0, 2]


def test_dense_sampling_of_pictures(tmp_path: Path) -> None:
    spec = ClipSpec(4, (InputSpec("frames", Frames.ALL, 48, 48),), Sampling.DENSE, stride=2)
    folder = numbered_pictures(tmp_path / "clip", range(12))
    assert read_numbers(read_views(Example(folder, 0), spec)["frames"][0]) == [2, 4, 6, 8]
    assert read_numbers(read_views(Example(folder, 0, (3, 6)), spec)["frames"][0]) == [2, 4, 2, 4]


def test_video_is_decoded_as_the_service_does(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(numbered_clip(frames=9))
    inputs = read_views(Example(path, 0), SPEC, clips=2, crops=3)
    for name, frames in decode_video(path, SPEC, clips=2, crops=3).inputs.items():
        np.testing.assert_array_equal(inputs[name], frames)


def test_one_of_several_clips_is_read_alone(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(numbered_clip(frames=12))
    for clip in (Example(path, 0), Example(numbered_pictures(tmp_path / "pictures", range(12)), 0)):
        everything = read_views(clip, SPEC, clips=3, crops=3)
        one = read_views(clip, SPEC, clips=3, crops=3, only=1)
        for name, frames in everything.items():
            np.testing.assert_array_equal(one[name], frames[3:6])
    with pytest.raises(InvalidParameter, match="there is no clip 3 of 3"):
        read_views(Example(path, 0), SPEC, clips=3, only=3)


def test_part_of_a_video_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(numbered_clip(frames=9))
    with pytest.raises(BlvnetError, match="a start and an end need a folder of pictures"):
        read_views(Example(path, 0, (1, 4)), SPEC)


@pytest.mark.parametrize(
    ("content", "span", "message"),
    [
        (None, None, "the folder contains no JPEG pictures"),
        (b"no picture", None, "00001.jpg is not a JPEG picture, or is cut off"),
        (b"\xff\xd8\xff\xd9", None, "00001.jpg"),
        (
            jpeg_picture(np.zeros((32, 32, 3), np.uint8)),
            (1, 2),
            "the folder contains 1 pictures, the list says 2",
        ),
    ],
)
def test_bad_folder_is_refused(
    tmp_path: Path, content: bytes | None, span: tuple[int, int] | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "00001.jpg").write_bytes(content)
    with pytest.raises(BlvnetError, match=message):
        read_views(Example(tmp_path, 0, span), SPEC)


def test_truncated_or_damaged_picture_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (100, 176, 3), np.uint8)
    whole = jpeg_picture(noise)
    for content, message in ((whole[:-100], "cut off"), (whole[:5000] + whole[-2:], "damaged")):
        (tmp_path / "00001.jpg").write_bytes(content)
        with pytest.raises(BlvnetError, match=message):
            read_views(Example(tmp_path, 0), SPEC)
