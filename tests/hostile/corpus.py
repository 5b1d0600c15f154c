"""The corpus: every file with its category, its name and what is true of it.

Nothing is stored and nothing is random: the same files come every time. An address and a path are written into
those that try to make the service fetch or open something.
"""

from __future__ import annotations

import operator
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain

import av

from tests.clips import audio_clip, numbered_clip, png_picture, remuxed
from tests.hostile.boxes import box, boxes, chunk, ebml, find, number, patched, replaced, within

FRAMES = 12
SIZE = (96, 64)


@dataclass(frozen=True)
class Lure:
    """What the files name: an address with a listener, and the path of a secret file."""

    url: str
    path: str


@dataclass(frozen=True)
class Item:
    """A file. A valid one has its true number of frames and its size as coded."""

    category: str
    name: str
    data: bytes
    frames: int | None = None
    size: tuple[int, int] | None = None
    file_name: str | None = None


@cache
def base(container: str = "mp4", codec: str = "libx264", frames: int = FRAMES, **options: str) -> bytes:
    """A small sound clip to spoil."""
    return numbered_clip(frames=frames, container=container, codec=codec, options=options)


def corpus(lure: Lure) -> Iterator[Item]:
    """All files, the valid ones first."""
    makers: tuple[Callable[[], Iterator[Item]], ...] = (
        valid, lies, atoms, edit_lists, structure, matroska, riff_and_others, bombs, streams, not_media,
        truncated, flipped, damaged_packets,
    )  # fmt: skip
    return chain(*(maker() for maker in makers), fetching(lure), names(lure))


def valid() -> Iterator[Item]:
    """Unusual, and right: each with its true number of frames."""
    kinds = {
        "mp4-h264": ("mp4", "libx264"), "mov-h264": ("mov", "libx264"), "mkv-h264": ("mkv", "libx264"),
        "ts-h264": ("ts", "libx264"), "flv-h264": ("flv", "libx264"), "avi-mpeg4": ("avi", "mpeg4"),
        "mp4-hevc": ("mp4", "libx265"), "mkv-hevc": ("mkv", "libx265"), "webm-vp8": ("webm", "libvpx"),
        "webm-vp9": ("webm", "libvpx-vp9"), "mp4-av1": ("mp4", "libsvtav1"), "mkv-av1": ("mkv", "libsvtav1"),
        "mpg-mpeg1": ("mpeg", "mpeg1video"), "ts-mpeg2": ("ts", "mpeg2video"), "mkv-ffv1": ("mkv", "ffv1"),
        "mkv-theora-none": ("mkv", "mpeg4"), "3gp-h264": ("3gp", "libx264"), "ogg-none": ("mkv", "libvpx"),
    }  # fmt: skip
    for name, (container, codec) in kinds.items():
        yield Item("valid", name, base(container, codec), FRAMES, SIZE)
    for codec, container, pix_fmt in (("mjpeg", "avi", "yuvj420p"), ("prores_ks", "mov", "yuv422p10le"),
                                      ("gif", "gif", "rgb8")):  # fmt: skip
        data = numbered_clip(frames=FRAMES, container=container, codec=codec, pix_fmt=pix_fmt, options={})
        yield Item("valid", f"{container}-{codec}", data, FRAMES, SIZE)
    for frames in (1, 2, 3):
        yield Item("valid", f"frames-{frames}", base(frames=frames), frames, SIZE)
    yield Item("valid", "rotated", numbered_clip(frames=5, rotation=90), 5, SIZE)
    yield Item("valid", "odd-size", numbered_clip(frames=5, width=98, height=66), 5, (98, 66))
    yield Item("valid", "tiny", numbered_clip(frames=5, width=16, height=16), 5, (16, 16))
    yield Item("valid", "long-and-thin", numbered_clip(frames=3, width=1024, height=32), 3, (1024, 32))
    yield Item("valid", "variable-rate", numbered_clip(frames=6, times=(0, 1, 5, 6, 30, 31)), 6, SIZE)
    yield Item(
        "valid", "late-start", numbered_clip(frames=6, times=tuple(range(900, 906)), container="mkv"), 6, SIZE
    )
    yield Item("valid", "fragmented", _flags("frag_keyframe+empty_moov+default_base_moof"), FRAMES, SIZE)
    yield Item("valid", "index-first", _flags("faststart"), FRAMES, SIZE)
    yield Item("valid", "one-frame-fragments", _flags("frag_every_frame+empty_moov"), FRAMES, SIZE)
    data = base()
    yield Item("valid", "rubbish-behind", data + b"\xa5" * 5000, FRAMES, SIZE)
    yield Item("valid", "free-box-behind", data + box(b"free", bytes(3000)), FRAMES, SIZE)
    yield Item("valid", "unknown-box-behind", data + box(b"wxyz", b"\xff" * 999), FRAMES, SIZE)
    yield Item("valid", "zero-behind-ts", base("ts") + bytes(188 * 3), FRAMES, SIZE)
    yield Item("valid", "xml-in-uuid", data + box(b"uuid", bytes(16), b"<!DOCTYPE x>"), FRAMES, SIZE)
    late = numbered_clip(
        frames=12,
        container="ts",
        container_options={
            "mpegts_start_pid": "768",
            "mpegts_pmt_start_pid": "1234",
            "mpegts_service_id": "9",
        },
    )
    yield Item("valid", "ts-another-stream-later", base("ts") * 5 + late, 5 * FRAMES, SIZE)
    yield Item("valid", "all-intra", base(g="1"), FRAMES, SIZE)
    yield Item("valid", "b-frames", base(bf="3"), FRAMES, SIZE)


def _flags(movflags: str) -> bytes:
    return numbered_clip(frames=FRAMES, container_options={"movflags": movflags})


def lies() -> Iterator[Item]:
    """Headers that claim what is not so."""
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
    """Boxes whose size is none."""
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
    """Edit lists that repeat, leave out, reverse and overflow."""
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


def structure() -> Iterator[Item]:
    """Many tracks, many attachments, many programmes."""
    data = base()
    trak = data[find(data, b"trak") :]
    trak = trak[: int.from_bytes(trak[:4])]
    for count in (63, 65, 900, 3000):
        many = replaced(data, b"trak", partial(operator.mul, count))
        yield Item("structure", f"tracks-{count}", many)
    track = ebml(
        "AE", ebml("D7", number(1)) + ebml("73C5", number(1)) + ebml("83", number(2)) + ebml("86", b"A_AAC")
    )
    for count in (60, 5000):
        yield Item("structure", f"mkv-tracks-{count}", _mkv(ebml("1654AE6B", track * count)))
    attached = ebml(
        "61A7",
        ebml("466E", b"font.ttf")
        + ebml("4660", b"font/ttf")
        + ebml("465C", b"x" * 10)
        + ebml("46AE", number(7)),
    )
    yield Item("structure", "mkv-attachments-1000", _spliced(ebml("1941A469", attached * 1000)))
    tags = ebml("1254C367", ebml("7373", ebml("67C8", ebml("45A3", b"K") + ebml("4487", b"V" * 50))) * 5000)
    yield Item("structure", "mkv-tags-5000", _spliced(tags))
    chapter = ebml("B6", ebml("73C4", number(1)) + ebml("91", number(0)))
    yield Item("structure", "mkv-chapters-5000", _spliced(ebml("1043A770", ebml("45B9", chapter * 5000))))
    pat = b"\x00\xb0\xfd\x00\x01\xc1\x00\x00" + b"".join(
        struct.pack(">HH", n, 0xE000 | (100 + n)) for n in range(1, 43)
    )
    packet = (b"\x47\x40\x00\x10\x00" + pat).ljust(188, b"\xff")
    yield Item("structure", "ts-programmes", (packet + base("ts")) * 4)
    pids = b"".join(
        (struct.pack(">BHB", 0x47, 0x4000 | pid, 0x10) + b"\x00\x00\x01\xe0").ljust(188, b"\0")
        for pid in range(32, 2500)
    )
    yield Item("structure", "ts-pids-2500", pids)


def _mkv(*segment: bytes, unknown: bool = False) -> bytes:
    head = ebml("1A45DFA3", ebml("4282", b"matroska") + ebml("4287", number(4)) + ebml("4285", number(2)))
    return head + ebml("18538067", b"".join(segment), unknown=unknown)


def _spliced(element: bytes) -> bytes:
    """A sound Matroska file with an element more in front of its first cluster; its index is then off."""
    data = base("mkv")
    at = data.index(bytes.fromhex("1F43B675"))
    return data[:at] + element + data[at:]


def matroska() -> Iterator[Item]:
    """EBML of all sizes."""
    data = base("mkv")
    cluster = data.index(bytes.fromhex("1F43B675"))
    segment = data.index(bytes.fromhex("18538067"))
    for name, at in (("segment", segment + 4), ("cluster", cluster + 4)):
        for claim in (b"\x01" + b"\xff" * 7, b"\x01" + bytes(7), b"\x01\x7f" + b"\xff" * 6, b"\x00" * 8):
            yield Item("matroska", f"{name}-size-{claim.hex()}", patched(data, at, claim))
    nested = b""
    for _ in range(3000):
        nested = ebml("AE", nested)
    yield Item("matroska", "nested-3000", _mkv(ebml("1654AE6B", nested)))
    endless = _mkv(unknown=True) + ebml("1F43B675", unknown=True) * 2000
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
        _mkv(ebml("1654AE6B", entry), ebml("1F43B675", ebml("E7", number(0)) + ebml("A3", lace) * 500)),
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
                _mkv(ebml("1654AE6B", track), ebml("1F43B675", ebml("E7", number(0)) + block)),
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
        _mkv(
            ebml("1654AE6B", track),
            ebml("1F43B675", ebml("E7", number(0)) + ebml("A3", b"\x81\0\0\x80" + bomb) * 20),
        ),
    )


def riff_and_others() -> Iterator[Item]:
    """AVI, FLV, Ogg, GIF and programme streams that lie."""
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


def bombs() -> Iterator[Item]:
    """Little files, many pixels."""
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
    """A WebM whose third key frame (or the first) says that it is much larger; RFC 6386, section 9.1."""

    def grow(index: int, body: bytearray) -> bytearray:
        if body[3:6] == b"\x9d\x01\x2a" and (index == 0) == first:
            body[6:10] = struct.pack("<HH", side, side)
        return body

    return remuxed(base("webm", "libvpx", g="4", keyint_min="4"), grow, "webm")


def _repeated(data: bytes, count: int) -> bytes:
    """A Matroska file whose one packet comes `count` times, as key frames."""
    body: list[bytes] = []

    def keep(_: int, content: bytearray) -> bytearray:
        body.append(bytes(content))
        return content

    remuxed(data, keep, "matroska")
    start = data.index(bytes.fromhex("1F43B675"))
    # One block for each: a cluster of its own, so that the times fit. A packet that is large is cut short.
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


def streams() -> Iterator[Item]:
    """Files that hold no video, or hide it."""
    for container, codec in (("mp4", "aac"), ("matroska", "aac"), ("flv", "aac")):
        yield Item("no-video", f"audio-{container}-{codec}", audio_clip(container, codec))
    sound = audio_clip()
    yield Item("no-video", "sound-called-video", within(sound, b"hdlr", 16, b"vide"))
    video = base()
    for handler in (b"soun", b"text", b"hint", b"meta", b"clcp", b"auxv", b"\0\0\0\0"):
        yield Item(
            "no-video",
            f"video-called-{handler.decode().strip(chr(0)) or 'nothing'}",
            within(video, b"hdlr", 16, handler),
        )
    for empty in (0, 1):
        data = numbered_clip(frames=1 + empty)
        yield Item("no-video", f"no-samples-{empty}", within(data, b"stsz", 16, bytes(4)))


def not_media() -> Iterator[Item]:
    """What is no video at all."""
    yield Item("not-media", "nothing", b"")
    for size in (1, 2, 3, 4, 7, 8, 12, 100, 5000):
        yield Item("not-media", f"zeros-{size}", bytes(size))
        yield Item("not-media", f"ones-{size}", b"\xff" * size)
    yield Item("not-media", "megabyte-of-zeros", bytes(1_500_000))
    yield Item("not-media", "random", random.Random(5).randbytes(300_000))
    yield Item("not-media", "png", png_picture())
    yield Item("not-media", "png-16000", _png_claim(16_000))
    texts = {
        "text": b"The quick brown fox jumps over the lazy dog.\n" * 200,
        "ansi-art": b"\x1b[2J\x1b[31mred\x1b[0m\r\n" * 500,
        "svg": b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        "json": b'{"a": [1, 2, 3]}', "html": b"<!DOCTYPE html><video src=x>", "elf": b"\x7fELF\x02\x01\x01" + bytes(200),
        "zip": b"PK\x03\x04" + bytes(200), "gzip": b"\x1f\x8b\x08" + bytes(200), "pdf": b"%PDF-1.7\n" + bytes(200),
        "xbin": b"XBIN\x1a" + struct.pack("<HHBB", 80, 25, 16, 0) + b"A\x07" * 2000,
        "y4m": b"YUV4MPEG2 W16 H16 F25:1 C420\n" + (b"FRAME\n" + bytes(384)) * 5,
        "srt": b"1\n00:00:00,000 --> 00:00:01,000\nhello\n", "mp3": b"\xff\xfb\x90\x00" + bytes(417),
        "wav": chunk(b"RIFF", b"WAVE" + chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, 8000, 8000, 1, 8)) + chunk(b"data", bytes(800))),
        "jpeg": b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(100), "webp": chunk(b"RIFF", b"WEBPVP8 " + bytes(50)),
        "h264-bare": b"\x00\x00\x00\x01\x67\x42\x00\x0a" + bytes(100), "ivf": b"DKIF\0\0 \0VP80" + bytes(100),
        "mxf": bytes.fromhex("060e2b34020501010d0102010102") + bytes(200), "asf": bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + bytes(200),
        "rm": b".RMF" + bytes(200), "nut": b"nut/multimedia container\0" + bytes(100), "dv": bytes.fromhex("1f07003f") + bytes(120_000),
        "ffmetadata": b";FFMETADATA1\ntitle=x\n", "lavfi": b"testsrc=size=10x10:rate=1",
    }  # fmt: skip
    for name, data in texts.items():
        yield Item("not-media", name, data)


def _png_claim(side: int) -> bytes:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    ihdr = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return b"\x89PNG\r\n\x1a\n" + ihdr


SPOILT = (("mp4", "libx264"), ("mkv", "libx264"), ("webm", "libvpx-vp9"), ("avi", "mpeg4"), ("ts", "libx264"),
          ("flv", "libx264"), ("mp4", "libx265"), ("mkv", "libsvtav1"), ("webm", "libvpx"))  # fmt: skip


def truncated() -> Iterator[Item]:
    """Cut off at every structure of an mp4, and at places of others."""
    data = base(bf="2")
    for start, end, kind in boxes(data):
        name = kind.decode("latin-1")
        yield Item("truncated", f"mp4-in-{name}-{start}", data[: (start + end) // 2])
        yield Item("truncated", f"mp4-behind-{name}-{end}", data[:end])
    for container, codec in SPOILT[1:]:
        data = base(container, codec)
        for part in (1, 5, 20, 50, 90, 99):
            yield Item("truncated", f"{container}-{codec}-{part}", data[: len(data) * part // 100])
    front = _flags("faststart")
    for part in (60, 80, 95):
        yield Item("truncated", f"index-first-{part}", front[: len(front) * part // 100])


def flipped() -> Iterator[Item]:
    """A few bytes changed here and there."""
    for container, codec in SPOILT:
        for seed in range(8):
            generator = random.Random(seed)
            data = bytearray(base(container, codec))
            for _ in range(2**seed):
                data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
            yield Item("flipped", f"{container}-{codec}-{2**seed}", bytes(data))


def damaged_packets() -> Iterator[Item]:
    """A sound container around packets that are not."""
    for container, codec in (
        ("mkv", "libx264"),
        ("mkv", "libx265"),
        ("webm", "libvpx"),
        ("webm", "libvpx-vp9"),
        ("mkv", "mpeg4"),
        ("mkv", "ffv1"),
    ):
        data, muxer = base(container, codec), {"mkv": "matroska"}.get(container, container)
        changes: dict[str, Callable[[int, bytearray], bytearray | None]] = {
            "empty": lambda index, body: body if index % 2 else body[:1],
            "zeros": lambda index, body: body if index % 3 else bytearray(len(body)),
            "ones": lambda index, body: body if index % 3 else bytearray(b"\xff" * len(body)),
            "halves": lambda _, body: body[: len(body) // 2 + 1],
            "doubled": lambda _, body: body + body,
            "first-missing": lambda index, body: body if index else None,
            "last-only": lambda index, body: body if index == FRAMES - 1 else None,
        }
        for name, change in changes.items():
            with suppress(av.FFmpegError):  # a muxer that reads what it writes refuses some
                yield Item("packets", f"{codec}-{name}", remuxed(data, change, muxer))


def _instead(new: bytes, _old: bytes) -> bytes:
    return new


def fetching(lure: Lure) -> Iterator[Item]:
    """Files that name others: an address with a listener, a secret on the disk."""
    url, path = lure.url, f"file://{lure.path}"
    for target_name, target in (("http", f"{url}/hls.ts"), ("file", path), ("relative", "canary.mp4"), ("concat", f"concat:{url}/a|{path}"),
                                ("subfile", f"subfile,,start,0,end,99,,:{lure.path}"), ("crypto", f"crypto+{url}/x"), ("data", "data:video/mp4;base64,AAAA"),
                                ("tcp", url.replace("http", "tcp")), ("gopher", url.replace("http", "gopher"))):  # fmt: skip
        playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:9.0,\n{target}\n#EXT-X-ENDLIST\n".encode()
        for suffix in ("m3u8", "mp4", "M3U8"):
            yield Item("fetch", f"hls-{target_name}-{suffix}", playlist, file_name=f"x.{suffix}")
        concat = f"ffconcat version 1.0\nfile '{target}'\nduration 5\n".encode()
        yield Item("fetch", f"concat-{target_name}", concat, file_name="x.ffconcat")
        yield Item("fetch", f"m3u-{target_name}", f"#EXTM3U\n{target}\n".encode(), file_name="x.m3u")
    key = f'#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXT-X-KEY:METHOD=AES-128,URI="{url}/key"\n#EXT-X-MAP:URI="{url}/init"\n#EXTINF:9,\n{url}/a.ts\n'
    yield Item("fetch", "hls-key", key.encode(), file_name="x.m3u8")
    master = f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{url}/low.m3u8\n"
    yield Item("fetch", "hls-master", master.encode(), file_name="x.m3u8")
    host, _, port = url.removeprefix("http://").partition(":")
    sdp = f"v=0\no=- 0 0 IN IP4 {host}\ns=x\nc=IN IP4 {host}\nt=0 0\nm=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n"
    yield Item("fetch", "sdp", sdp.encode(), file_name="x.sdp")
    yield Item(
        "fetch", "rtsp-link", f"RTSP/1.0 302 Moved\r\nLocation: {url}\r\n\r\n".encode(), file_name="x.rtsp"
    )
    mpd = f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet><Representation id="1"><BaseURL>{url}/x.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>'
    yield Item("fetch", "dash", mpd.encode(), file_name="x.mpd")
    entity = f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "{path}">]><MPD>&x;</MPD>'
    yield Item("fetch", "xml-entity", entity.encode(), file_name="x.mpd")
    yield Item("fetch", "smil", f'<smil><body><video src="{url}/x.mp4"/></body></smil>'.encode())
    yield Item("fetch", "asx", f'<asx version="3.0"><entry><ref href="{url}/x"/></entry></asx>'.encode())
    yield Item("fetch", "pls", f"[playlist]\nFile1={url}/x.mp3\nNumberOfEntries=1\n".encode())
    yield Item("fetch", "image2-pattern", b"/etc/%d.png", file_name="%d.png")
    data = base()
    for name, kind in (("url", b"url "), ("urn", b"urn "), ("alis", b"alis"), ("rsrc", b"rsrc")):
        for target_name, target in (("http", f"{url}/ref.mov"), ("file", lure.path)):
            reference = box(kind, bytes(4), target.encode(), b"\0")
            table = box(b"dref", bytes(4), struct.pack(">I", 1), reference)
            yield Item(
                "fetch",
                f"dref-{name}-{target_name}",
                replaced(data, b"dref", partial(_instead, table)),
            )
    rmra = box(
        b"moov",
        box(
            b"rmra", box(b"rmda", box(b"rdrf", bytes(4), b"url ", struct.pack(">I", len(url)), url.encode()))
        ),
    )
    yield Item("fetch", "reference-movie", box(b"ftyp", b"qt  \0\0\2\0qt  ") + rmra)
    gab2 = (
        b"GAB2\0\x02\0\x08\0\0\0h\0l\0s\0\0\0\x04\0"
        + struct.pack("<I", len(url))
        + f"#EXTM3U\n#EXTINF:1,\n{url}/a\n".encode()
    )
    avi = base("avi", "mpeg4")
    at = avi.index(b"movi") + 4
    yield Item("fetch", "gab2", avi[:at] + chunk(b"00tx", gab2) + avi[at:])


def names(lure: Lure) -> Iterator[Item]:
    """Sound clips with names that are not."""
    data = base()
    file_names = (
        "../../etc/passwd", "/etc/passwd", "C:\\boot.ini", "a\0b.mp4", "a\r\nX-Injected: 1.mp4", "a\nb", '"quoted".mp4', "a;b=c.mp4",
        "x" * 4000, "\u202egnp.mp4", "\ud7ff\U0001f4a9.mp4", f"{lure.url}/x.mp4", f"concat:{lure.path}", f"subfile,,start,0,end,9,,:{lure.path}",
        f"file://{lure.path}", "pipe:0", "fd:", "cache:x", "x.m3u8", "x.ffconcat", "%d.png", "-", "--help", "$(id)", "`id`", "", ".", "..", "nul", "lavfi:testsrc",
    )  # fmt: skip
    for index, name in enumerate(file_names):
        yield Item("name", f"name-{index}", data, FRAMES, SIZE, file_name=name)
