"""Damaged files: what is counted, which frames replace damaged ones, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from service.clip.decoding import clips as decode
from service.clip.decoding.clips import decode_video
from service.clip.decoding.parallelism import Parallelism
from service.clip.sampling import uniform_indices
from service.clip.spec import ClipSpec
from service.errors import Undecodable
from tests.service.clip.decoding.exactness import ALL
from tests.support.clips import numbered_clip, read_numbers, remuxed

SPEC = ClipSpec(8, ALL)
INTRA = {"g": "1", "preset": "veryfast", "qp": "4", "x264-params": "slices=1"}
PREDICTED = {"bf": "2", "g": "20", "qp": "4", "x264-params": "slices=1"}


def damaged(broken: set[int], change: Callable[[bytearray], None], frames: int = 40) -> bytes:
    """A clip of intra-coded pictures with some changed packets."""

    def touch(index: int, packet: bytearray) -> bytearray:
        if index in broken:
            change(packet)
        return packet

    return remuxed(numbered_clip(frames=frames, options=INTRA, container="mkv"), touch, "matroska")


def scramble(packet: bytearray) -> None:
    """Overwrite the second half of the picture, but not its header."""
    half = len(packet) // 2
    packet[half:] = bytes(value ^ 0x5A for value in packet[half:])


def behead(packet: bytearray) -> None:
    """Make the picture refer to parameters that do not exist."""
    packet[5:9] = b"\xff\xff\xff\xff"


def test_damaged_frame_is_replaced_by_the_nearest_intact_one() -> None:
    wanted = uniform_indices(40, 8)
    assert wanted[3] == 17
    clip = decode_video(damaged({17, 16}, scramble), SPEC)
    assert clip.video.frames == 40
    assert clip.video.broken_packets == 2
    assert clip.indices[0] == (*wanted[:3], 18, *wanted[4:])
    assert tuple(read_numbers(clip.inputs["frames"][0])) == clip.indices[0]
    assert clip.timestamps_s[0][3] == pytest.approx(18 / 25, abs=0.002)


def test_of_two_equally_near_frames_the_earlier_is_taken() -> None:
    clip = decode_video(damaged({17}, scramble), SPEC)
    assert clip.indices[0][3] == 16
    assert clip.video.broken_packets == 1


def test_damage_outside_the_wanted_frames_is_not_decoded() -> None:
    clip = decode_video(damaged({15, 16}, scramble), SPEC)
    assert clip.effort.full_because is None
    assert clip.video.broken_packets == 0
    assert clip.indices == (uniform_indices(40, 8),)


def test_refused_packets_are_counted_and_their_frames_are_not() -> None:
    clip = decode_video(damaged({3, 4, 5, 17}, behead), SPEC)
    assert (clip.video.frames, clip.video.broken_packets) == (36, 4)
    assert clip.indices == (uniform_indices(36, 8),)
    left = [number for number in range(40) if number not in {3, 4, 5, 17}]
    assert read_numbers(clip.inputs["frames"][0]) == [left[index] for index in clip.indices[0]]


def test_mostly_broken_video_is_refused() -> None:
    with pytest.raises(Undecodable, match="more of the video is broken than whole"):
        decode_video(damaged(set(range(40)) - {2, 3, 4}, scramble), SPEC)
    assert decode_video(damaged(set(range(15)), scramble), SPEC).video.broken_packets == 15


def check_same_result(data: bytes, monkeypatch: pytest.MonkeyPatch, *choices: Parallelism) -> None:
    """Compare the frames of a video, decoded in each of these ways, with those of one thread."""
    one = decode_video(data, SPEC)
    for spread in choices:
        monkeypatch.setattr(decode, "choose_parallelism", lambda *_: spread)  # noqa: B023 - called in this round only
        other = decode_video(data, SPEC)
        assert (other.video, other.indices) == (one.video, one.indices)
        assert np.array_equal(other.inputs["frames"], one.inputs["frames"])


def test_damage_looks_the_same_whatever_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = numbered_clip(frames=60, options=PREDICTED, container="mkv", width=192, height=128)

    def touch(index: int, packet: bytearray) -> bytearray:
        if index % 7 == 3:
            scramble(packet)
        return packet

    data = remuxed(whole, touch, "matroska")
    assert decode_video(data, SPEC).video.broken_packets
    check_same_result(
        data, monkeypatch, Parallelism(threads=4), Parallelism(decoders=2), Parallelism(scaling_thread=True)
    )


def test_concealed_damage_in_vp8_looks_the_same_on_any_number_of_cores() -> None:
    whole = numbered_clip(frames=60, container="webm", codec="libvpx", width=192, height=128)

    def touch(index: int, packet: bytearray) -> bytearray:
        if index % 7 == 3:  # near the start: what `scramble` changes looks the same with any threads
            packet[20:60] = bytes(value ^ 0x5A for value in packet[20:60])
        return packet

    data = remuxed(whole, touch, "webm")
    one, *others = (decode_video(data, SPEC, threads=cores) for cores in (1, 2, 4))
    assert not one.video.broken_packets
    assert not np.array_equal(one.inputs["frames"], decode_video(whole, SPEC).inputs["frames"])
    for other in others:
        assert np.array_equal(other.inputs["frames"], one.inputs["frames"])


@pytest.mark.parametrize("empty", [55, 56, 57, 58])
def test_frames_after_a_dropped_packet_are_found_whatever_the_threads(
    empty: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FFmpeg drops a packet with an empty NAL unit, and with frame threads the last frames too."""

    def touch(index: int, packet: bytearray) -> bytearray:
        return bytearray(4) + packet if index == empty else packet

    data = remuxed(numbered_clip(frames=60, options=PREDICTED), touch, "mp4")
    check_same_result(data, monkeypatch, *(Parallelism(threads=threads) for threads in (2, 3, 4)))
