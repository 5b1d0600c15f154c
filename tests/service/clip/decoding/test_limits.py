"""Limits of videos, and the errors when they are exceeded."""

from __future__ import annotations

import io
import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from service.clip.decoding.clips import decode_video
from service.clip.decoding.container import open_video
from service.clip.spec import ClipSpec, Frames, InputSpec
from service.clip.video import DecodeLimits
from service.errors import OverLimit, Undecodable
from tests.service.clip.decoding.odd_clips import repeated_by_edit_list, superframes, tracks
from tests.support.clips import numbered_clip

SPEC = ClipSpec(4, (InputSpec("frames", Frames.ALL, size=32, scale=32),))


@pytest.mark.parametrize(("container", "seen"), [("mp4", 9), ("matroska", 6), ("mpegts", 6)])
def test_number_of_tracks_is_limited(container: str, seen: int) -> None:
    """FFmpeg itself stops making streams one past the limit; those of an mp4 are counted by hand."""
    limits = DecodeLimits(max_streams=5)
    assert decode_video(tracks(5, container), SPEC, limits).video.frames == 1
    with pytest.raises(OverLimit) as caught:
        decode_video(tracks(9, container), SPEC, limits)
    assert (caught.value.limit, caught.value.value, caught.value.maximum) == ("streams", seen, 5)


def test_false_header_is_not_reported_as_too_many_streams() -> None:
    data = bytearray(numbered_clip())
    at = data.find(b"stts") + 8
    data[at : at + 4] = struct.pack(">I", 2**31 - 1)
    with pytest.raises(Undecodable, match="memory"):
        decode_video(bytes(data), SPEC)


@pytest.mark.parametrize(
    ("limits", "name", "value"),
    [
        (DecodeLimits(max_pixels=96 * 64 - 1), "pixels", 96 * 64),
        (DecodeLimits(max_aspect_ratio=1.4), "aspect_ratio", 1.5),
        (DecodeLimits(max_frames=39), "frames", 40),
        (DecodeLimits(max_duration_s=1.5), "duration_s", 39 / 25),
    ],
)
@pytest.mark.parametrize("container", ["mp4", "mkv", "ts"])
def test_each_limit_is_reported_by_name_and_value(
    container: str, limits: DecodeLimits, name: str, value: float
) -> None:
    with pytest.raises(OverLimit) as caught:
        decode_video(numbered_clip(frames=40, container=container), SPEC, limits)
    assert caught.value.limit == name
    assert caught.value.value == pytest.approx(value, rel=1e-3)


def test_limits_allow_what_is_exactly_at_them() -> None:
    limits = DecodeLimits(
        max_pixels=96 * 64, max_aspect_ratio=1.5, max_frames=40, max_duration_s=1.561, max_streams=1
    )
    assert decode_video(numbered_clip(frames=40), SPEC, limits).video.frames == 40


@pytest.mark.parametrize(("width", "height"), [(16, 16), (16, 1024), (98, 66), (352, 288), (1920, 1080)])
@pytest.mark.parametrize("codec", ["libx264", "libvpx-vp9", "mpeg4"])
def test_limit_of_the_decoder_passes_every_allowed_frame(width: int, height: int, codec: str) -> None:
    data = numbered_clip(frames=1, width=width, height=height, codec=codec, container="mkv")
    limits = DecodeLimits(max_pixels=width * height)
    assert decode_video(data, SPEC, limits).video.frames == 1


def test_frames_that_grow_beyond_the_limit_are_refused() -> None:
    small = numbered_clip(frames=20, container="ts")
    large = numbered_clip(frames=20, container="ts", width=256, height=256)
    with pytest.raises(OverLimit) as caught:
        decode_video(small + large, SPEC, DecodeLimits(max_pixels=96 * 64))
    assert (caught.value.limit, caught.value.value) == ("pixels", 256 * 256)


def test_frames_that_grow_beyond_all_bounds_are_never_decoded() -> None:
    small = numbered_clip(frames=20, container="ts")
    huge = numbered_clip(frames=2, container="ts", width=1024, height=1024)
    with pytest.raises(OverLimit) as caught:
        decode_video(small + huge, SPEC, DecodeLimits(max_pixels=96 * 64))
    assert (caught.value.limit, caught.value.maximum) == ("pixels", 96 * 64)


@pytest.mark.parametrize(
    "data", [numbered_clip(frames=20), numbered_clip(frames=20, container="flv", codec="flv1")]
)
def test_work_beyond_the_limit_is_refused_in_advance(data: bytes) -> None:
    assert decode_video(data, SPEC, DecodeLimits(max_decoded_pixels=20 * 96 * 64)).video.frames == 20
    with pytest.raises(OverLimit) as caught:
        decode_video(data, SPEC, DecodeLimits(max_decoded_pixels=8 * 96 * 64))
    assert caught.value.limit == "decoded_pixels"
    assert caught.value.value > caught.value.maximum == 8 * 96 * 64


def video_behind_sound(seconds: int = 30) -> bytes:
    """A transport stream that announces video, whose only picture comes after the sound has ended."""
    file = io.BytesIO()
    with av.open(file, "w", format="mpegts") as output:
        sound, video = output.add_stream("mp2", rate=48_000), output.add_stream("mpeg2video", rate=25)
        assert isinstance(sound, av.AudioStream)
        assert isinstance(video, av.VideoStream)
        sound.bit_rate = 384_000
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        for start in range(0, seconds * 48_000, 1152):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 2304), np.int16), format="s16", layout="stereo")
            silence.sample_rate, silence.pts, silence.time_base = 48_000, start, Fraction(1, 48_000)
            output.mux(sound.encode(silence))
        picture = av.VideoFrame(64, 64, "yuv420p")
        picture.pts = seconds * 25
        output.mux([*video.encode(picture), *video.encode(None)])
    return file.getvalue()


class CountingFile(io.BytesIO):
    """Counts the bytes that are read from it."""

    read_bytes = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.read_bytes += len(data)
        return data


def test_search_for_tracks_is_limited() -> None:
    def read_to_open(probe_bytes: int) -> int:
        file = CountingFile(clip)
        with open_video(file, DecodeLimits(probe_bytes=probe_bytes), peek=False):
            return file.read_bytes

    clip = video_behind_sound()
    assert read_to_open(100_000) + 200_000 < read_to_open(1_000_000)


def test_a_picture_larger_than_the_header_says_is_not_decoded() -> None:
    """The pixel limit holds inside the decoder, where only the coded size counts."""
    data = numbered_clip(frames=4, width=768, height=768, codec="mpeg4", container="avi")
    lying = data.replace(struct.pack("<ii", 768, 768), struct.pack("<ii", 64, 64))
    assert lying != data
    with pytest.raises((OverLimit, Undecodable)):
        decode_video(lying, SPEC, DecodeLimits(max_pixels=64 * 64))


def test_a_huge_gif_is_refused_by_its_header() -> None:
    header = struct.pack("<HHBBB", 16_000, 16_000, 0x80, 0, 0)
    picture = struct.pack("<BHHHHB", 0x2C, 0, 0, 16_000, 16_000, 0)
    data = b"GIF89a" + header + bytes(6) + picture + b"\x02\x02\x44\x01\x00\x3b"
    with pytest.raises(OverLimit) as caught:
        decode_video(data, SPEC)
    assert caught.value.value == 16_000 * 16_000


def test_an_edit_list_that_repeats_frames_counts_them_each_time() -> None:
    data = numbered_clip(frames=20)
    assert decode_video(repeated_by_edit_list(data, 3), SPEC).video.frames == 60
    with pytest.raises(OverLimit) as caught:
        decode_video(repeated_by_edit_list(data, 20_000), SPEC)
    assert (caught.value.limit, caught.value.value, caught.value.maximum) == ("edits", 20_000, 1000)
    with pytest.raises(OverLimit) as caught:
        decode_video(repeated_by_edit_list(data, 20_000), SPEC, DecodeLimits(max_edits=20_000))
    assert caught.value.limit == "frames"


def test_frames_are_limited_however_they_are_packed() -> None:
    assert decode_video(superframes(), SPEC).video.frames == 40
    with pytest.raises(OverLimit) as caught:
        decode_video(superframes(), SPEC, DecodeLimits(max_frames=30))
    assert (caught.value.limit, caught.value.value) == ("frames", 31)
