"""Files with bad or missing timestamps: planned decoding, full decoding and windows give the same times."""

from __future__ import annotations

import io
import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from service.clip.decoding.clips import decode_video
from service.clip.decoding.windows import decode_windows
from service.clip.sampling import uniform_indices
from service.clip.spec import ClipSpec
from service.clip.video import DecodedVideo
from service.clip.windowing import WindowRule
from tests.service.clip.decoding.exactness import ALL
from tests.service.clip.decoding.test_windows import SPEC as WINDOW_SPEC
from tests.service.clip.decoding.test_windows import Collected, assert_windows
from tests.support.clips import numbered_clip, read_numbers

SPEC = ClipSpec(8, ALL)
MS = Fraction(1, 1000)
SLOW = tuple(230 * number for number in range(21))


def browser_recording(times: tuple[int, ...] = SLOW) -> bytes:
    """A WebM of VP8 frames at a slow, varying rate, without durations."""
    return numbered_clip(
        frames=len(times),
        times=times,
        time_base=MS,
        container="webm",
        codec="libvpx",
        options={"lag-in-frames": "0"},
    )


def same_in_windows(data: bytes) -> None:
    rule = WindowRule.of(2, 2)
    sink = Collected()
    assert_windows(data, sink, decode_windows(data, WINDOW_SPEC, rule, sink), rule)


def assert_even(clip: DecodedVideo, frames: int, rate: float) -> None:
    assert clip.indices == (uniform_indices(frames, 8),)
    assert clip.video.frames == frames
    assert clip.video.fps == pytest.approx(rate, rel=0.01)
    assert clip.video.duration_s == pytest.approx(frames / rate, rel=0.01)
    assert clip.timestamps_s[0] == pytest.approx([index / rate for index in clip.indices[0]], abs=0.005)
    assert read_numbers(clip.inputs["frames"][0]) == list(clip.indices[0])


def test_a_recording_appended_to_another_follows_it() -> None:
    one = browser_recording()
    clip = decode_video(one + one, SPEC)
    assert clip.video.frames == 42
    assert clip.video.duration_s == pytest.approx(41.5 * 0.23, rel=0.02)
    assert clip.timestamps_s[0] == pytest.approx([index * 0.23 for index in clip.indices[0]], abs=0.005)
    assert clip.video.timestamps == "estimated"
    same_in_windows(one + one)


def flv_with_outlier(frame: int, milliseconds: int) -> bytes:
    """An FLV in which one frame has another timestamp."""
    data = bytearray(numbered_clip(frames=80, container="flv", options={"bf": "0"}))
    position, seen = 13, 0
    while position < len(data):
        kind, size = data[position], int.from_bytes(data[position + 1 : position + 4])
        if kind == 9 and data[position + 12] == 1:  # a video tag that holds a frame
            if seen == frame:
                data[position + 4 : position + 7] = (milliseconds & 0xFFFFFF).to_bytes(3)
                data[position + 7] = milliseconds >> 24
            seen += 1
        position += 11 + size + 4
    assert seen == 80
    return bytes(data)


@pytest.mark.parametrize("frame", [0, 33, 79])
def test_a_frame_stamped_hours_ahead_gets_the_time_between_its_neighbours(frame: int) -> None:
    data = flv_with_outlier(frame, 37_600_000)
    clip = decode_video(data, SPEC)
    assert_even(clip, 80, 25)
    assert clip.video.timestamps == "estimated"
    same_in_windows(data)


def avi_with_b_frames(folder: Path) -> bytes:
    """H.264 with B-frames copied into AVI, which stores no presentation times."""
    source, copy = folder / "source.mp4", folder / "copy.avi"
    source.write_bytes(numbered_clip(frames=60, options={"bf": "2", "b_strategy": "0", "qp": "4"}))
    subprocess.run(["ffmpeg", "-v", "error", "-i", source, "-c", "copy", copy], check=True)
    return copy.read_bytes()


def test_h264_with_b_frames_in_avi_keeps_its_rate(tmp_path: Path) -> None:
    data = avi_with_b_frames(tmp_path)
    clip = decode_video(data, SPEC)
    assert_even(clip, 60, 25)
    assert clip.video.duration_s == pytest.approx(2.4)
    same_in_windows(data)


def gif_whose_last_frame_stays() -> bytes:
    from PIL import Image

    images = [Image.fromarray(np.full((64, 96, 3), 60 * number, np.uint8)) for number in range(4)]
    file = io.BytesIO()
    images[0].save(
        file, "GIF", save_all=True, append_images=images[1:], duration=[120, 420, 120, 2420], loop=0
    )
    return file.getvalue()


def test_the_last_frame_of_a_gif_lasts_as_long_as_it_says() -> None:
    data = gif_whose_last_frame_stays()
    assert decode_video(data, SPEC).video.duration_s == pytest.approx(3.08)
    same_in_windows(data)


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [
        ("mpeg1video", "mpeg1video", 24),
        ("h264", "libx264", 50),
        ("hevc", "libx265", 30),
        ("m4v", "mpeg4", 30),
    ],
)
def test_raw_streams_have_the_rate_of_their_header(container: str, codec: str, rate: int) -> None:
    data = numbered_clip(frames=48, container=container, codec=codec, rate=rate)
    video = decode_video(data, SPEC).video
    assert (video.frames, video.fps) == (48, rate)
    assert video.duration_s == pytest.approx(48 / rate)
    assert video.timestamps == "estimated"
    same_in_windows(data)
