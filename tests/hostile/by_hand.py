"""Valid files that the available muxers do not write."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from fractions import Fraction

import av

from tests.hostile.boxes import ebml, find, number, patched
from tests.hostile.item import FRAMES, SIZE, Item, base
from tests.hostile.matroska import mkv_of
from tests.hostile.sound import with_flags
from tests.support.clips import numbered_clip

VOP = b"\0\0\1\xb6"
# ISO/IEC 14496-2: a predicted picture at time 0 that is not coded.
NOTHING = VOP + b"\x50\0\0"
PACKED = b"\0\0\1\xb2DivX503b1393p\0"
B_VOP = 2


def by_hand() -> Iterator[Item]:
    """Valid files with their number of frames and size."""
    data, front = base(), with_flags("faststart")
    at = find(data, b"mdat")
    size = int.from_bytes(data[at : at + 4])
    large = data[:at] + struct.pack(">I4sQ", 1, b"mdat", size + 8) + data[at + 8 :]
    table = large.index(b"stco") + 12
    offset = int.from_bytes(large[table : table + 4]) + 8
    yield Item("valid", "mdat-of-64-bits", patched(large, table, struct.pack(">I", offset)), FRAMES, SIZE)
    at = find(front, b"mdat")
    yield Item("valid", "mdat-to-the-end", patched(front, at, bytes(4)), FRAMES, SIZE)
    for kind in (b"free", b"wide"):
        yield Item("valid", f"no-ftyp-but-{kind.decode()}", patched(data, 4, kind), FRAMES, SIZE)
    ts = base("ts")
    padded = b"".join(ts[start : start + 188] + bytes(16) for start in range(0, len(ts), 188))
    yield Item("valid", "ts-of-204-bytes", padded, FRAMES, SIZE)
    yield Item("valid", "mkv-headers-stripped", _encoded(3, b"\0\0", lambda body: body[2:]), FRAMES, SIZE)
    yield Item("valid", "mkv-zlib", _encoded(0, b"", zlib.compress), FRAMES, SIZE)
    yield Item("valid", "avi-packed-b-frames", packed(20), 20, SIZE)


def _encoded(algorithm: int, settings: bytes, encode: Callable[[bytes], bytes]) -> bytes:
    """A Matroska file whose blocks are compressed; RFC 9559, section 5.1.4.1.31."""
    with av.open(io.BytesIO(base("mkv")), "r") as source:
        stream = source.streams.video[0]
        header = stream.codec_context.extradata or b""
        packets = [(bytes(packet), packet.is_keyframe) for packet in source.demux(stream) if packet.size]
    assert all(body.startswith(b"\0\0") for body, _ in packets)
    compression = ebml("4254", number(algorithm)) + (ebml("4255", settings) if settings else b"")
    encoding = ebml("5031", number(0)) + ebml("5032", number(1)) + ebml("5033", number(0))
    picture = ebml("E0", ebml("B0", number(SIZE[0])) + ebml("BA", number(SIZE[1])))
    kind = ebml("83", number(1)) + ebml("86", b"V_MPEG4/ISO/AVC") + ebml("63A2", header)
    encodings = ebml("6D80", ebml("6240", encoding + ebml("5034", compression)))
    track = ebml("D7", number(1)) + ebml("73C5", number(1)) + kind + picture + encodings
    blocks = b"".join(
        ebml("A3", b"\x81" + struct.pack(">hB", 40 * index, 0x80 * key) + encode(body))
        for index, (body, key) in enumerate(packets)
    )
    times = ebml("1549A966", ebml("2AD7B1", number(1_000_000)))
    cluster = ebml("1F43B675", ebml("E7", number(0)) + blocks)
    return mkv_of(times, ebml("1654AE6B", ebml("AE", track)), cluster)


def packed(frames: int) -> bytes:
    """MPEG-4 in AVI as packed by DivX: a B-frame shares the previous packet, followed by an empty frame."""
    data = numbered_clip(frames=frames, container="avi", codec="mpeg4", options={"bf": "1", "g": "12"})
    file = io.BytesIO()
    with av.open(io.BytesIO(data), "r") as source, av.open(file, "w", format="avi") as target:
        template = source.streams.video[0]
        stream = target.add_stream_from_template(template)
        bodies = [(bytes(packet), packet.is_keyframe) for packet in source.demux(template) if packet.size]
        written: list[tuple[bytes, bool]] = []
        for body, key in bodies:
            at = body.index(VOP)
            if body[at + 4] >> 6 == B_VOP:
                before, was_key = written.pop()
                written += [(before + body, was_key), (NOTHING, False)]
            else:
                written.append((body[:at] + PACKED + body[at:] if key else body, key))
        for index, (body, key) in enumerate(written):
            packet = av.Packet(body)
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 25), key
            packet.pts = packet.dts = index
            target.mux(packet)
    return file.getvalue()
