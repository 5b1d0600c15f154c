"""Unusual videos, which no encoder writes, shared by several test modules."""

from __future__ import annotations

import io
import struct
from fractions import Fraction

import av

from tests.support.clips import numbered_clip, remuxed


def tracks(count: int, container: str) -> bytes:
    """Write a file of `count` video tracks with one frame each."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        streams = [output.add_stream("mpeg4", rate=25) for _ in range(count)]
        for stream in streams:
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
            stream.codec_context.thread_count = 1
        for stream in streams:
            assert isinstance(stream, av.VideoStream)
            output.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
            output.mux(stream.encode(None))
    return file.getvalue()


def repeated_by_edit_list(data: bytes, times: int) -> bytes:
    """Repeat the only edit of an mp4, so that the same frames play `times` times."""
    at = data.find(b"elst") - 4
    size = int.from_bytes(data[at : at + 4], "big")
    entry = data[at + 16 : at + 28]
    edits = struct.pack(">I4sII", 16 + 12 * times, b"elst", 0, times) + entry * times
    grown = bytearray(data[:at] + edits + data[at + size :])
    for box in (b"moov", b"trak", b"edts"):
        start = grown.find(box) - 4
        length = int.from_bytes(grown[start : start + 4], "big") + len(edits) - size
        grown[start : start + 4] = length.to_bytes(4, "big")
    return bytes(grown)


def joined_midway() -> bytes:
    """Write a transport stream whose first packets refer to a missing keyframe."""
    whole = numbered_clip(frames=40, container="ts", options={"g": "12"})
    return remuxed(whole, lambda index, packet: packet if index >= 7 else None, "mpegts")


def hidden_vp8() -> bytes:
    """Write VP8 in which every fifth frame is marked as hidden."""

    def hide(index: int, packet: bytearray) -> bytearray:
        if index % 5 == 3:
            packet[0] &= ~0x10
        return packet

    return remuxed(numbered_clip(container="webm", codec="libvpx"), hide, "webm")


def trimmed() -> bytes:
    """Write an mp4 whose edit list cuts off the first ten frames."""
    return numbered_clip(
        times=tuple(range(-10, 30)),
        time_base=Fraction(1, 25),
        container_options={"avoid_negative_ts": "disabled", "use_editlist": "1"},
    )


def superframes() -> bytes:
    """Write VP9 with two frames per packet: 20 packets, 40 frames."""
    waiting: list[bytes] = []

    def pack(_index: int, packet: bytearray) -> bytearray | None:
        waiting.append(bytes(packet))
        if len(waiting) < 2:
            return None
        marker = bytes([0b11000000 | 3 << 3 | 1])  # sizes of four bytes, two frames (VP9 bitstream, annex B)
        sizes = b"".join(len(frame).to_bytes(4, "little") for frame in waiting)
        packed = bytearray(b"".join(waiting) + marker + sizes + marker)
        waiting.clear()
        return packed

    single = {"auto-alt-ref": "0", "lag-in-frames": "0"}  # so that no packet is a superframe yet
    return remuxed(numbered_clip(container="webm", codec="libvpx-vp9", options=single), pack, "webm")
