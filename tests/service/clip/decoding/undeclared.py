"""H.264 whose parameter sets do not declare a reorder depth, as Apple's encoders write it.

No encoder here can leave the declaration out, so the VUI parameters are cut from the sequence parameter sets.
"""

from __future__ import annotations

import io
import re
from fractions import Fraction

import av

SPS = 7  # nal_unit_type
WITH_CHROMA = {100, 110, 122, 244}  # profile_idc of x264's profiles that state the chroma format
RATE = 25


def without_reorder_depth(*parts: bytes, container: str) -> bytes:
    """Remux transport streams of x264 into one sequence, without VUI parameters."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as target:
        stream: av.VideoStream | None = None
        first_frame = index = 0
        for part in parts:
            with av.open(io.BytesIO(part), "r") as source:
                template = source.streams.video[0]
                packets = [packet for packet in source.demux(template) if packet.size]
                if stream is None:
                    stream = target.add_stream_from_template(template)
                    stream.codec_context.extradata = _without_vui(template.codec_context.extradata or b"")
                start = min(packet.pts or 0 for packet in packets)
                for packet in packets:
                    copy = av.Packet(_without_vui(bytes(packet)))
                    copy.stream, copy.time_base = stream, Fraction(1, RATE)
                    shown = ((packet.pts or 0) - start) * (packet.time_base or Fraction(1)) * RATE
                    copy.pts, copy.dts = first_frame + round(shown), index - 3
                    copy.is_keyframe = packet.is_keyframe
                    target.mux(copy)
                    index += 1
            first_frame = index
    return file.getvalue()


def _without_vui(data: bytes) -> bytes:
    """The NAL units between start codes, sequence parameter sets without their VUI parameters."""
    units = [unit.rstrip(b"\0") for unit in re.split(b"\0\0\1", data)]
    return b"".join(b"\0\0\0\1" + (_cut(unit) if unit[0] & 31 == SPS else unit) for unit in units if unit)


def _cut(sps: bytes) -> bytes:
    payload = sps[1:].replace(b"\0\0\3", b"\0\0")
    bits = "".join(f"{byte:08b}" for byte in payload)
    position = 24

    def number() -> int:
        nonlocal position
        zeros = bits.index("1", position) - position
        start, position = position + zeros, position + 2 * zeros + 1
        return int(bits[start:position], 2) - 1

    number()
    if payload[0] in WITH_CHROMA:
        assert number() != 3
        number(), number()
        assert bits[position + 1] == "0", "a scaling matrix"
        position += 2
    number()
    if number() == 0:  # pic_order_cnt_type
        number()
    number()
    position += 1
    number(), number()
    position += 2 if bits[position] == "1" else 3
    has_crop = bits[position] == "1"
    position += 1
    for _ in range(4 * has_crop):
        number()
    assert bits[position] == "1", "no VUI parameters"
    cut = bits[:position] + "01"
    cut += "0" * (-len(cut) % 8)
    escaped = re.sub(rb"\0\0(?=[\0-\3])", lambda _: b"\0\0\3", int(cut, 2).to_bytes(len(cut) // 8, "big"))
    return sps[:1] + escaped
