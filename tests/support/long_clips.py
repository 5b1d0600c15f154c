"""A small video that is quick to encode but takes seconds to decode."""

from __future__ import annotations

import io
from fractions import Fraction
from functools import cache

import av

WIDTH, HEIGHT = 4096, 2304
RATE = 25


@cache
def long_clip(frames: int = 1500) -> bytes:
    """A grey 4K video of one image and many empty inter frames: about 10 ms per frame and thread."""
    key, unchanged = _coded_pictures()
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(frames):
            packet = av.Packet(unchanged if number else key)
            packet.pts = packet.dts = number
            packet.time_base = Fraction(1, RATE)
            packet.stream = stream
            packet.is_keyframe = number == 0
            container.mux(packet)
    return file.getvalue()


def _coded_pictures() -> list[bytes]:
    encoder = av.VideoCodecContext.create("mpeg4", "w")
    encoder.width, encoder.height, encoder.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    encoder.time_base = Fraction(1, RATE)
    packets = []
    for number in range(2):
        frame = av.VideoFrame(WIDTH, HEIGHT, "yuv420p")
        for plane in frame.planes:
            plane.update(bytes([128]) * plane.buffer_size)
        frame.pts = number
        packets += encoder.encode(frame)
    return [bytes(packet) for packet in [*packets, *encoder.encode(None)]]
