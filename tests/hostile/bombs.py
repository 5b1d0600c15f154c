"""Small files that demand large resources."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tests.hostile.boxes import chunk, ebml, number
from tests.hostile.item import Item, base
from tests.support.clips import numbered_clip, remuxed


def bombs() -> Iterator[Item]:
    """Small files with many pixels."""
    for side in (16_000, 65_535, 4000):
        screen = struct.pack("<HHBBB", side, side, 0x80, 0, 0) + bytes(6)
        image = b"\x2c" + struct.pack("<HHHHB", 0, 0, side, side, 0) + b"\x02\x02\x44\x01\x00"
        control = b"\x21\xf9\x04\x00\x0a\x00\x00\x00"
        yield Item("bomb", f"gif-{side}", b"GIF89a" + screen + control + image + b";")
        yield Item("bomb", f"gif-{side}-2000-frames", b"GIF89a" + screen + (control + image) * 2000 + b";")
    small = struct.pack("<HHBBB", 8, 8, 0x80, 0, 0) + bytes(6)
    image = b"\x2c" + struct.pack("<HHHHB", 0, 0, 8, 8, 0) + b"\x02\x02\x44\x01\x00"
    yield Item(
        "bomb", "gif-40000-frames", b"GIF89a" + small + (b"\x21\xf9\x04\0\1\0\0\0" + image) * 40_000 + b";"
    )
    yield Item(
        "bomb",
        "gif-image-past-screen",
        b"GIF89a"
        + small
        + b"\x2c"
        + struct.pack("<HHHHB", 60000, 60000, 65535, 65535, 0)
        + b"\x02\x02\x44\x01\x00;",
    )
    for side in (16_383, 8192):
        yield Item("bomb", f"vp8-{side}", _vp8_growing(side, first=True))
        yield Item("bomb", f"vp8-grows-to-{side}", _vp8_growing(side, first=False))
    key = numbered_clip(frames=1, width=3840, height=2160, container="mkv", codec="mpeg4")
    for count in (3000, 12_000, 40_000):
        yield Item("bomb", f"4k-{count}-frames", _repeated(key, count))
    yield Item(
        "bomb",
        "vp9-many-4k",
        _repeated(
            numbered_clip(frames=1, width=3840, height=2160, container="mkv", codec="libvpx-vp9"), 9000
        ),
    )
    yield Item("bomb", "raw-header-alone", _raw_avi(30_000, 30_000, b""))
    yield Item("bomb", "raw-tiny-frames", _raw_avi(2, 2, bytes(16), 50_000))
    sps = base("mkv")
    sei = b"\x00\x00\x40\x00" + b"\x06\x05" + b"\xff" * 60 + bytes(16_384 - 62)
    yield Item("bomb", "huge-sei", remuxed(sps, lambda _, body: bytearray(sei * 20) + body, "matroska"))


def _vp8_growing(side: int, first: bool) -> bytes:
    """A WebM whose first or third key frame declares a much larger size; RFC 6386, section 9.1."""

    def grow(index: int, body: bytearray) -> bytearray:
        if body[3:6] == b"\x9d\x01\x2a" and (index == 0) == first:
            body[6:10] = struct.pack("<HH", side, side)
        return body

    return remuxed(base("webm", "libvpx", g="4", keyint_min="4"), grow, "webm")


def _repeated(data: bytes, count: int) -> bytes:
    """A Matroska file that repeats one packet `count` times as key frames."""
    body: list[bytes] = []

    def keep(_: int, content: bytearray) -> bytearray:
        body.append(bytes(content))
        return content

    remuxed(data, keep, "matroska")
    start = data.index(bytes.fromhex("1F43B675"))
    # Each block has its own cluster because of the range of relative times. Large packets are truncated.
    packet = body[0][: max(16, 12_000_000 // count // 4)]
    clusters = b"".join(
        ebml("1F43B675", ebml("E7", number(n * 40)) + ebml("A3", b"\x81\0\0\x80" + packet))
        for n in range(count)
    )
    head = bytearray(data[:start])
    segment = head.index(bytes.fromhex("18538067"))
    head[segment + 4 : segment + 12] = b"\x01" + b"\xff" * 7
    return bytes(head) + clusters


def _raw_avi(width: int, height: int, frame: bytes, count: int = 1) -> bytes:
    header = struct.pack("<IIIIIIIIII", 40000, 0, 0, 0x10, count, 0, 1, 0, width, height) + bytes(16)
    stream = b"vidsDIB " + struct.pack("<IHHIIIIIIII", 0, 0, 0, 0, 1, 25, 0, count, 0, 0, 0) + bytes(8)
    picture = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    strl = chunk(b"LIST", b"strl" + chunk(b"strh", stream) + chunk(b"strf", picture))
    hdrl = chunk(b"LIST", b"hdrl" + chunk(b"avih", header) + strl)
    movi = chunk(b"LIST", b"movi" + chunk(b"00db", frame) * count)
    return chunk(b"RIFF", b"AVI " + hdrl + movi)
