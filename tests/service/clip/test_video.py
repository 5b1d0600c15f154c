from __future__ import annotations

from collections.abc import Callable

import pytest

from service.clip.video import DECODER_PADDING, MIN_DECODER_PIXELS, DecodeLimits, Effort, VideoInfo
from service.errors import OverLimit

LIMITS = DecodeLimits(
    max_pixels=1000,
    max_duration_s=10.0,
    max_frames=20,
    max_decoded_pixels=5000,
    max_aspect_ratio=4.0,
    max_windows=3,
)


@pytest.mark.parametrize(
    ("check", "most", "field"),
    [
        (lambda limits, value: limits.check_size(value, 20), 50, "pixels"),
        (lambda limits, value: limits.check_size(20, value), 50, "pixels"),
        (lambda limits, value: limits.check_size(value, 5), 20, "aspect_ratio"),
        (lambda limits, value: limits.check_size(5, value), 20, "aspect_ratio"),
        (DecodeLimits.check_frames, 20, "frames"),
        (DecodeLimits.check_decoded_pixels, 5000, "decoded_pixels"),
        (DecodeLimits.check_windows, 3, "windows"),
        (DecodeLimits.check_duration, 10, "duration_s"),
    ],
)
def test_limits_are_inclusive_and_named(
    check: Callable[[DecodeLimits, int], None], most: int, field: str
) -> None:
    check(LIMITS, most)
    with pytest.raises(OverLimit, match=f"^{field} is "):
        check(LIMITS, most + 1)


def test_a_frame_without_a_side_is_as_elongated_as_its_other_side() -> None:
    LIMITS.check_size(0, 4)
    with pytest.raises(OverLimit, match=r"^aspect_ratio is 5, the limit is 4"):
        LIMITS.check_size(0, 5)


def test_decoder_limit_has_room_for_the_padding_of_the_most_elongated_frame() -> None:
    # 2000 x 500: the longest side that 1,000,000 pixels with an aspect ratio of 4 allow.
    padded = DecodeLimits(max_pixels=1_000_000, max_aspect_ratio=4.0).padded_pixels
    assert padded == 1_000_000 + 2 * DECODER_PADDING * 2000 + DECODER_PADDING**2
    assert padded >= (2000 + DECODER_PADDING) * (500 + DECODER_PADDING)
    assert DecodeLimits(max_pixels=16, max_aspect_ratio=1.0).padded_pixels == MIN_DECODER_PIXELS


def test_default_limits_take_uhd_and_ten_minutes_at_60_frames_a_second() -> None:
    limits = DecodeLimits()
    assert limits == DecodeLimits(
        max_pixels=9_437_184,
        max_duration_s=600.0,
        max_frames=600 * 60,
        max_decoded_pixels=20_000_000_000,
        max_streams=64,
        max_edits=1000,
        max_aspect_ratio=64.0,
        max_windows=3600,
        probe_bytes=5_000_000,
    )
    limits.check_size(4096, 2160)


def test_videos_are_intact_and_decoded_by_a_plan_unless_stated_otherwise() -> None:
    info = VideoInfo("mp4", "h264", 64, 48, 0, 10, 25.0, 0.4)
    assert (info.broken_packets, info.timestamps, info.track) == (0, "exact", 0)
    assert Effort(10, 4).full_because is None
