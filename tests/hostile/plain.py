"""WMV, MXF, DV, APNG and raw streams: wrong values, large demands, and damage."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterator
from functools import cache
from typing import Any

from tests.hostile.boxes import patched
from tests.hostile.item import FRAMES, Item
from tests.support.clips import numbered_clip

MADE: dict[str, tuple[str, dict[str, Any]]] = {
    "asf": ("wmv2", {}), "mxf": ("mpeg2video", {"pix_fmt": "yuv422p"}), "apng": ("apng", {"pix_fmt": "rgb24"}),
    "yuv4mpegpipe": ("rawvideo", {"width": 32, "height": 16}), "ivf": ("libvpx", {}), "obu": ("libsvtav1", {}),
    "h264": ("libx264", {}), "hevc": ("libx265", {}), "mpegvideo": ("mpeg2video", {}), "m4v": ("mpeg4", {}),
    "ogg": ("libvpx", {}), "gif": ("gif", {"pix_fmt": "rgb8"}),
}  # fmt: skip
# In AVI and mov.
CODED: dict[str, tuple[str, dict[str, Any]]] = {
    "huffyuv": ("avi", {"pix_fmt": "rgb24"}), "ffvhuff": ("avi", {}), "utvideo": ("avi", {}),
    "qtrle": ("mov", {"pix_fmt": "rgb24"}), "png": ("mov", {"pix_fmt": "rgba"}), "v210": ("mov", {"pix_fmt": "yuv422p10le"}),
    "wmv1": ("asf", {}), "msmpeg4v2": ("avi", {}), "prores_ks": ("mov", {"pix_fmt": "yuv422p10le"}),
    "dnxhd": ("mov", {"width": 320, "height": 240, "pix_fmt": "yuv422p", "options": {"profile": "dnxhr_lb"}}),
}  # fmt: skip


@cache
def made(container: str) -> bytes:
    """A small valid video."""
    codec, changes = MADE[container]
    muxer = "mpeg2video" if container == "mpegvideo" else container
    return numbered_clip(frames=FRAMES, container=muxer, codec=codec, **changes)


def plain_damaged() -> Iterator[Item]:
    """Truncated, with flipped bits, or with a missing part."""
    sound = {name: made(name) for name in MADE}
    for codec, (container, changes) in CODED.items():
        sound[codec] = numbered_clip(frames=5, container=container, codec=codec, **changes)
    for name, data in sound.items():
        for part in (10, 50):
            yield Item("plain", f"{name}-cut-{part}", data[: len(data) * part // 100])
        for bits in (8, 512):
            generator = random.Random(bits)
            spoilt = bytearray(data)
            for _ in range(bits):
                spoilt[generator.randrange(len(spoilt))] ^= 1 << generator.randrange(8)
            yield Item("plain", f"{name}-bits-{bits}", bytes(spoilt))
        half, third = len(data) // 2, len(data) // 3
        yield Item("plain", f"{name}-middle-missing", data[:third] + data[half:])


def plain_lies() -> Iterator[Item]:
    """Headers with wrong values."""
    for width, height in ((0, 0), (65_535, 65_535), (30_000, 30_000), (2**31 - 1, 1), (8192, 4320)):
        head = f"YUV4MPEG2 W{width} H{height} F25:1 C420jpeg\n".encode()
        yield Item("plain", f"y4m-{width}x{height}", head + b"FRAME\n" + bytes(5000))
    for name, rest in (
        ("endless-line", b"A" * 200_000), ("rate-0", b"W16 H16 F0:0\n"), ("rate-overflows", b"W16 H16 F4294967295:1\n"),
        ("minus", b"W-16 H-16 F25:1\n"), ("colours", b"W16 H16 F25:1 C444p16XYZ\n"), ("aspect", b"W16 H16 F25:1 A0:0\n"),
    ):  # fmt: skip
        yield Item("plain", f"y4m-{name}", b"YUV4MPEG2 " + rest + b"FRAME\n" + bytes(400))
    ivf = made("ivf")
    for place, size, what in ((6, "<H", "header"), (12, "<H", "width"), (14, "<H", "height"), (16, "<I", "rate"), (20, "<I", "scale"), (24, "<I", "frames"), (32, "<I", "first-size")):  # fmt: skip
        for value in (0, 1, 2 ** (8 * struct.calcsize(size)) - 1):
            yield Item("plain", f"ivf-{what}-{value:x}", patched(ivf, place, struct.pack(size, value)))
    asf = made("asf")
    for place in (16, 24, *range(30, 480, 36)):
        yield Item("plain", f"asf-{place}-ones", patched(asf, place, b"\xff" * 8))
        yield Item("plain", f"asf-{place}-zeros", patched(asf, place, bytes(8)))
    mxf = made("mxf")
    for place in (16, 24, 32, 40, 48, 56, 64, 72, 80):
        yield Item("plain", f"mxf-{place}-ones", patched(mxf, place, b"\xff" * 8))
        yield Item("plain", f"mxf-{place}-zeros", patched(mxf, place, bytes(8)))
    key = mxf[:13]
    starts = [at for at in range(len(mxf) - 16) if mxf[at : at + 4] == key[:4]]
    for number, at in enumerate(starts[:: max(1, len(starts) // 12)]):
        for length in (b"\x88" + b"\xff" * 8, b"\x83\xff\xff\xff", b"\x80"):
            yield Item("plain", f"mxf-length-{number}-{length[:1].hex()}", patched(mxf, at + 16, length))
    for container in ("h264", "hevc", "m4v", "mpegvideo", "obu"):
        data = made(container)
        for place in range(4, 40, 6):
            yield Item("plain", f"{container}-head-{place}", patched(data, place, b"\xff\xff"))


def plain_bombs() -> Iterator[Item]:
    """Small files with many pixels or many images."""
    for side in (16_000, 65_535, 2**31 - 1):
        control = struct.pack(">IIIIIHHBB", 0, side % 2**31, side % 2**31, 0, 0, 1, 25, 0, 0)
        picture = (
            _png(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0))
            + _png(b"acTL", struct.pack(">II", 2, 0))
            + _png(b"fcTL", control)
            + _png(b"IDAT", zlib.compress(bytes(4_000_000), 9))
        )
        yield Item("bomb", f"apng-{side}", b"\x89PNG\r\n\x1a\n" + picture + _png(b"IEND", b""))
    apng = made("apng")
    at = apng.index(b"acTL") + 4
    for value in (0, 1, 2**31 - 1, 2**32 - 1):
        yield Item("bomb", f"apng-frames-{value:x}", patched(apng, at, struct.pack(">II", value, value)))
    # A sequence parameter set of 16384x16384 before small pictures: ITU-T H.264, 7.3.2.1.1.
    yield Item("bomb", "h264-16384", _baseline(1024) + made("h264"))
    yield Item("bomb", "h264-8192x4320", _baseline(512, 270) + made("h264"))
    for side in (16_000, 65_535):
        for container, codec in (("avi", "mjpeg"), ("mov", "png")):
            small = numbered_clip(
                frames=3,
                container=container,
                codec=codec,
                pix_fmt="yuvj420p" if codec == "mjpeg" else "rgb24",
            )
            yield Item("bomb", f"{codec}-{side}", _claiming(small, codec, side))
    tiny = made("yuv4mpegpipe")
    frames = b"YUV4MPEG2 W4096 H2304 F25:1 Cmono\n" + b"FRAME\n" * 500_000
    yield Item("bomb", "y4m-frames-of-nothing", frames)
    yield Item("bomb", "y4m-one-pixel", b"YUV4MPEG2 W1 H1 F25:1 Cmono\n" + b"FRAME\n\0" * 100_000)
    yield Item("bomb", "y4m-thousand-headers", tiny * 1000)
    ivf = made("ivf")
    yield Item("bomb", "ivf-empty-frames", ivf + bytes(12) * 200_000)
    for container in ("h264", "hevc", "mpegvideo", "m4v"):
        yield Item("bomb", f"{container}-start-codes", made(container) + b"\0\0\1" * 500_000)
    yield Item("bomb", "obu-delimiters", made("obu") + b"\x12\0" * 500_000)
    yield Item("bomb", "asf-again-and-again", made("asf") * 200)


def _png(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _baseline(width: int, height: int | None = None) -> bytes:
    """A baseline profile parameter set; sizes are in macroblocks."""
    bits = (
        f"{66:08b}{0:08b}{51:08b}"
        + "".join(_golomb(value) for value in (0, 0, 0, 0, 1))
        + "0"
        + _golomb(width - 1)
        + _golomb((height or width) - 1)
        + "1"
        + "1"
        + "0"
        + "0"
        + "1"
    )
    bits += "0" * (-len(bits) % 8)
    return b"\0\0\0\1\x67" + int(bits, 2).to_bytes(len(bits) // 8)


def _golomb(value: int) -> str:
    code = f"{value + 1:b}"
    return "0" * (len(code) - 1) + code


def _claiming(data: bytes, codec: str, side: int) -> bytes:
    """Images whose header (JPEG frame header, PNG IHDR) contradicts the container's size."""
    if codec == "mjpeg":
        at = data.index(b"\xff\xc0\x00\x11\x08") + 5
        marker, new = data[at : at + 4], struct.pack(">HH", side, side)
        return data.replace(b"\xff\xc0\x00\x11\x08" + marker, b"\xff\xc0\x00\x11\x08" + new)
    at = data.index(b"IHDR") + 4
    return data.replace(b"IHDR" + data[at : at + 8], b"IHDR" + struct.pack(">II", side, side))
