"""Files without video, or with hidden video."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterator

from tests.hostile.boxes import box, chunk, within
from tests.hostile.item import Item, base
from tests.support.clips import audio_clip, numbered_clip, png_picture


def streams() -> Iterator[Item]:
    """Containers without a video track."""
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


def photographs() -> Iterator[Item]:
    """Still images, which are not videos."""
    for muxer, codec, pix_fmt in (
        ("mjpeg", "mjpeg", "yuvj420p"), ("image2pipe", "bmp", "bgr24"), ("image2pipe", "tiff", "rgb24"),
        ("image2pipe", "targa", "bgr24"), ("image2pipe", "jpeg2000", "rgb24"), ("webp", "libwebp", "yuv420p"),
        ("avif", "libsvtav1", "yuv420p"), ("ico", "bmp", "bgra"),
    ):  # fmt: skip
        data = numbered_clip(frames=1, container=muxer, codec=codec, pix_fmt=pix_fmt)
        yield Item("photograph", f"{muxer}-{codec}", data)
    motion = numbered_clip(frames=1, container="mjpeg", codec="mjpeg", pix_fmt="yuvj420p") + base()
    yield Item("photograph", "with-a-video-behind", motion)
    heic = box(b"ftyp", b"heic\0\0\0\0mif1heic") + box(b"meta", bytes(4), box(b"pitm", bytes(5), b"\x01"))
    yield Item("photograph", "heic-without-items", heic)


def not_media() -> Iterator[Item]:
    """Files of other types."""
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
