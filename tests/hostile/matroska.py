"""Matroska files with wrong values."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from tests.hostile.boxes import ebml, number, patched
from tests.hostile.item import Item, base


def mkv_of(*segment: bytes, unknown: bool = False) -> bytes:
    head = ebml("1A45DFA3", ebml("4282", b"matroska") + ebml("4287", number(4)) + ebml("4285", number(2)))
    return head + ebml("18538067", b"".join(segment), unknown=unknown)


def spliced(element: bytes) -> bytes:
    """A valid Matroska file with an extra element before its first cluster, which shifts the index."""
    data = base("mkv")
    at = data.index(bytes.fromhex("1F43B675"))
    return data[:at] + element + data[at:]


def matroska() -> Iterator[Item]:
    """EBML elements of all sizes."""
    data = base("mkv")
    cluster = data.index(bytes.fromhex("1F43B675"))
    segment = data.index(bytes.fromhex("18538067"))
    for name, at in (("segment", segment + 4), ("cluster", cluster + 4)):
        for claim in (b"\x01" + b"\xff" * 7, b"\x01" + bytes(7), b"\x01\x7f" + b"\xff" * 6, b"\x00" * 8):
            yield Item("matroska", f"{name}-size-{claim.hex()}", patched(data, at, claim))
    nested = b""
    for _ in range(3000):
        nested = ebml("AE", nested)
    yield Item("matroska", "nested-3000", mkv_of(ebml("1654AE6B", nested)))
    endless = mkv_of(unknown=True) + ebml("1F43B675", unknown=True) * 2000
    yield Item("matroska", "unknown-sizes-2000", endless)
    yield Item("matroska", "void-1m", data[:cluster] + ebml("EC", bytes(1_000_000)) + data[cluster:])
    lace = b"\x81\x00\x00\x06\xff" + b"\xff" * 300
    entry = ebml(
        "AE",
        ebml("D7", number(1))
        + ebml("73C5", number(1))
        + ebml("83", number(1))
        + ebml("86", b"V_VP8")
        + ebml("E0", ebml("B0", number(64)) + ebml("BA", number(64))),
    )
    yield Item(
        "matroska",
        "laces",
        mkv_of(ebml("1654AE6B", entry), ebml("1F43B675", ebml("E7", number(0)) + ebml("A3", lace) * 500)),
    )
    for scale in (0, 1, 2**63, 2**64 - 1):
        yield Item(
            "matroska",
            f"time-scale-{scale:x}",
            patched(
                data,
                data.index(bytes.fromhex("2AD7B1")),
                bytes.fromhex("2AD7B188")[:3] + b"\x83" + scale.to_bytes(8)[-3:],
            ),
        )
    at = data.index(bytes.fromhex("4489"))
    for name, value in (("nan", float("nan")), ("inf", float("inf")), ("minus", -1e300)):
        yield Item("matroska", f"duration-{name}", patched(data, at + 3, struct.pack(">d", value)))
    for width in (0, 2**16, 2**31, 2**63):
        video = ebml("E0", ebml("B0", number(width)) + ebml("BA", number(width)))
        for codec in (
            b"V_VP8",
            b"V_UNCOMPRESSED",
            b"V_MPEG4/ISO/AVC",
            b"V_AV1",
            b"V_QUICKTIME",
            b"V_MS/VFW/FOURCC",
        ):
            track = ebml(
                "AE",
                ebml("D7", number(1))
                + ebml("73C5", number(1))
                + ebml("83", number(1))
                + ebml("86", codec)
                + video,
            )
            block = ebml("A3", b"\x81\0\0\x80" + bytes(100))
            name = f"{codec.decode().replace('/', '-')}-{width:x}"
            yield Item(
                "matroska",
                name,
                mkv_of(ebml("1654AE6B", track), ebml("1F43B675", ebml("E7", number(0)) + block)),
            )
    packed = ebml("6D80", ebml("6240", ebml("5031", number(0)) + ebml("5034", ebml("4254", number(0)))))
    bomb = zlib.compress(bytes(40_000_000), 9)
    track = ebml(
        "AE",
        ebml("D7", number(1))
        + ebml("73C5", number(1))
        + ebml("83", number(1))
        + ebml("86", b"V_VP8")
        + packed,
    )
    yield Item(
        "matroska",
        "zlib-bomb",
        mkv_of(
            ebml("1654AE6B", track),
            ebml("1F43B675", ebml("E7", number(0)) + ebml("A3", b"\x81\0\0\x80" + bomb) * 20),
        ),
    )
