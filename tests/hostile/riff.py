"""AVI, FLV, Ogg and MPEG files with wrong values."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tests.hostile.boxes import chunk, patched
from tests.hostile.item import Item, base


def riff_and_others() -> Iterator[Item]:
    """AVI, FLV, Ogg, GIF and program streams with wrong values."""
    avi = base("avi", "mpeg4")
    for kind, offset, name in (
        (b"avih", 24, "frames"),
        (b"avih", 32, "streams"),
        (b"strh", 40, "length"),
        (b"strh", 28, "scale"),
        (b"strh", 32, "rate"),
        (b"strf", 12, "width"),
    ):
        at = avi.index(kind) + offset
        for value in (0, 0xFFFFFFFF, 0x7FFFFFFF):
            yield Item("riff", f"{name}-{value:x}", patched(avi, at, struct.pack("<I", value)))
    movi = avi.index(b"movi")
    for value in (0, 3, 0x7FFFFFFF, 0xFFFFFFFF):
        yield Item("riff", f"movi-size-{value:x}", patched(avi, movi - 4, struct.pack("<I", value)))
    yield Item("riff", "ten-thousand-empty-frames", avi[: movi + 4] + chunk(b"00dc", b"") * 10_000)
    yield Item("riff", "a-million-empty-frames", avi[: movi + 4] + b"00dc\0\0\0\0" * 150_000)
    index = chunk(b"idx1", b"".join(struct.pack("<4sIII", b"00dc", 16, 4, 2**31) for _ in range(50_000)))
    yield Item("riff", "index-lies", avi[: avi.index(b"idx1")] + index)
    flv = base("flv")
    for at in (4, 5, 9, 13, 14, 17):
        yield Item("flv", f"byte-{at}-ff", patched(flv, at, b"\xff\xff\xff"))
    script = b"\x12\x00\xff\xff" + bytes(7) + b"\x02\x00\x0aonMetaData" + b"\x0a\x00\x00\x00\x01" * 13_000
    yield Item("flv", "arrays-in-arrays", flv[:13] + script)
    yield Item("ogg", "pages-of-nothing", (b"OggS\0\2" + bytes(20) + b"\0") * 5000)
    yield Item("ogg", "all-segments", b"OggS\0\2" + bytes(20) + b"\xff" + b"\xff" * 255 + bytes(65025))
    yield Item("mpeg", "pack-headers", b"\x00\x00\x01\xba\x44\x00\x04\x00\x04\x01\x00\x00\x03\xf8" * 20_000)
    yield Item("mpeg", "start-codes", b"\x00\x00\x01\xb3" + bytes(range(256)) * 100)
    ts = base("ts")
    yield Item("ts", "one-packet-many-times", ts[:188] * 5000)
    yield Item("ts", "zeros-as-ts", (b"\x47" + bytes(187)) * 5000)
    yield Item("ts", "adaptation-fields", (b"\x47\x01\x00\x30\xff" + b"\xff" * 183) * 3000)
