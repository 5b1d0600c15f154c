"""Wrong values in mp4 and mov: sizes, tables, boxes, edit lists."""

from __future__ import annotations

import operator
import struct
import zlib
from collections.abc import Iterator
from functools import partial

from tests.hostile.boxes import box, find, patched, replaced, within
from tests.hostile.item import FRAMES, SIZE, Item, base


def lies() -> Iterator[Item]:
    """Headers with wrong values."""
    data = base()
    entry = find(data, b"stsd") + 16
    for width, height in ((32767, 32767), (65535, 65535), (0, 0), (1, 65535), (65535, 1), (16384, 16384)):
        yield Item(
            "lie",
            f"sample-entry-{width}x{height}",
            patched(data, entry + 32, struct.pack(">HH", width, height)),
        )
        at = find(data, b"tkhd") + 84
        lied = patched(data, at, struct.pack(">II", width << 16, height << 16))
        yield Item("lie", f"track-{width}x{height}", lied)
    for kind, offset in ((b"mvhd", 20), (b"mvhd", 24), (b"mdhd", 20), (b"mdhd", 24), (b"tkhd", 28)):
        for value in (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
            name = f"{kind.decode()}-{offset}-{value:x}"
            yield Item("lie", name, within(data, kind, offset, struct.pack(">I", value)))
    for kind in (b"stts", b"stsc", b"stsz", b"stco", b"stss", b"ctts"):
        for value in (0, 2**31 - 1, 2**31, 2**32 - 1):
            spot = 16 if kind == b"stsz" else 12
            try:
                yield Item(
                    "lie", f"{kind.decode()}-{value:x}", within(data, kind, spot, struct.pack(">I", value))
                )
            except StopIteration:
                continue
    yield Item("lie", "stts-ten-years", within(data, b"stts", 20, struct.pack(">I", 0x7FFFFFFF)))
    yield Item("lie", "sample-size-2g", within(data, b"stsz", 12, struct.pack(">II", 2**31 - 1, FRAMES)))
    yield Item("lie", "all-samples-of-no-size", within(data, b"stsz", 20, bytes(4 * FRAMES)))
    yield Item(
        "lie", "ten-million-frames-of-a-byte", within(data, b"stsz", 12, struct.pack(">II", 1, 10_000_000))
    )
    yield Item("lie", "offset-past-the-end", within(data, b"stco", 16, b"\xff\xff\xff\xf0"))
    for tag in (
        b"hvc1",
        b"vvc1",
        b"av01",
        b"mp4v",
        b"jpeg",
        b"png ",
        b"raw ",
        b"XXXX",
        b"encv",
        b"text",
        b"dvh1",
    ):
        yield Item("lie", f"tag-{tag.decode().strip()}", patched(data, find(data, b"stsd") + 20, tag))
    config = data.index(b"avcC")
    for name, new in (("no-sps", b"\x01\x64\x00\x0a\xff\xe0\x00"), ("many-sps", b"\x01\x64\x00\x0a\xff\xff"),
                      ("version", b"\x77"), ("sps-size", b"\x01\x64\x00\x0a\xff\xe1\xff\xff"),
                      ("zeros", bytes(30)), ("ones", b"\xff" * 30)):  # fmt: skip
        yield Item("lie", f"avcc-{name}", patched(data, config + 4, new))
    hevc = base("mp4", "libx265")
    config = hevc.index(b"hvcC")
    for name, new in (("arrays", bytes(22) + b"\xff"), ("zeros", bytes(40)), ("ones", b"\xff" * 40)):
        yield Item("lie", f"hvcc-{name}", patched(hevc, config + 4, new))


def atoms() -> Iterator[Item]:
    """Boxes with invalid sizes."""
    data = base()
    for kind in (b"ftyp", b"moov", b"trak", b"mdia", b"stbl", b"stsd", b"stts", b"mdat"):
        for claim in (0, 1, 7, 9, 0x7FFFFFFF, 0xFFFFFFFF):
            yield Item(
                "atom", f"{kind.decode()}-size-{claim:x}", within(data, kind, 0, struct.pack(">I", claim))
            )
    for claim in (0, 8, 15, 2**31, 2**62, 2**63 - 1, 2**63, 2**64 - 1):
        large = struct.pack(">I4sQ", 1, b"free", claim)
        yield Item("atom", f"large-size-{claim:x}", large + data)
        yield Item(
            "atom", f"large-size-in-moov-{claim:x}", replaced(data, b"mvhd", partial(operator.add, large))
        )
    for depth in (100, 5000):
        for kind in (b"moov", b"udta", b"trak"):
            nested = b""
            for _ in range(depth):
                nested = box(kind, nested)
            yield Item("atom", f"{kind.decode()}-nested-{depth}", box(b"ftyp", b"isom\0\0\2\0isom") + nested)
    yield Item("atom", "a-hundred-thousand-boxes", data + box(b"free") * 100_000)
    yield Item("atom", "moov-twice", data + data[find(data, b"moov") :])
    yield Item("atom", "no-moov", data[: find(data, b"moov")])
    yield Item("atom", "moov-alone", data[find(data, b"moov") :])
    yield Item("atom", "ftyp-alone", box(b"ftyp", b"isom\0\0\2\0isom"))
    small = zlib.compress(bytes(50_000_000), 9)
    cmov = box(b"cmov", box(b"dcom", b"zlib"), box(b"cmvd", struct.pack(">I", 50_000_000), small))
    yield Item("atom", "cmov-bomb", box(b"ftyp", b"qt  \0\0\2\0qt  ") + box(b"moov", cmov))
    liar = box(
        b"cmov", box(b"dcom", b"zlib"), box(b"cmvd", struct.pack(">I", 2**31 - 1), zlib.compress(b"x"))
    )
    yield Item("atom", "cmov-says-2g", box(b"ftyp", b"qt  \0\0\2\0qt  ") + box(b"moov", liar))
    tag = box(
        b"udta",
        box(b"meta", bytes(4), box(b"ilst", box(b"\xa9nam", box(b"data", bytes(8), b"A" * 1_500_000)))),
    )
    yield Item("atom", "metadata-2m", replaced(data, b"mvhd", lambda old: old + tag), FRAMES, SIZE)


def edit_lists() -> Iterator[Item]:
    """Edit lists that repeat, skip, reverse and overflow."""
    data = base()

    def edited(*entries: tuple[int, int, int]) -> bytes:
        rows = b"".join(struct.pack(">IiI", *entry) for entry in entries)
        return replaced(
            data, b"elst", lambda _: box(b"elst", bytes(4), struct.pack(">I", len(entries)), rows)
        )

    normal = (480, 0, 0x10000)
    for count in (900, 20_000, 100_000):
        yield Item("edit", f"repeats-{count}", edited(*[normal] * count))
    yield Item("edit", "none", edited())
    yield Item("edit", "empty-first", edited((500, -1, 0x10000), normal))
    yield Item("edit", "before-the-start", edited((480, -(2**31), 0x10000)))
    yield Item("edit", "behind-the-end", edited((480, 2**31 - 1, 0x10000)))
    yield Item("edit", "no-rate", edited((480, 0, 0)))
    yield Item("edit", "no-length", edited((0, 0, 0x10000)))
    yield Item("edit", "endless", edited((2**32 - 1, 0, 0x10000)))
    yield Item("edit", "backwards", edited(*((40, at, 0x10000) for at in range(9000, 0, -500))))
    yield Item("edit", "count-lies", within(data, b"elst", 12, b"\xff\xff\xff\xff"))
