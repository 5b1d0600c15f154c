"""Encodes videos whose frames show their own number, so that tests can read back which frames were sampled.

A numbered frame shows its index in a square in its centre, which every centre crop contains: four by four
cells, of which the first row is a marker that detects rotation and mirroring, and the other three are twelve
bits, white for 1. The rest of the frame is grey.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

GRID = 4
MARKER = (1, 0, 1, 1)
MAX_FRAMES = 2 ** (GRID * GRID - len(MARKER))


@dataclass(frozen=True)
class ClipRecipe:
    """How to encode a video; the defaults produce an ordinary mp4.

    `times` lists the timestamps in units of `time_base` (for variable rates or an offset); by default the
    frames are evenly spaced at `rate`. `rotation` is the clockwise rotation by the player, in degrees: the
    coded frames are rotated back accordingly. `width` and `height` are those of the coded frames.
    """

    frames: int = 40
    width: int = 96
    height: int = 64
    rate: int = 25
    container: str = "mp4"
    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    times: tuple[int, ...] | None = None
    time_base: Fraction | None = None
    rotation: int = 0
    options: dict[str, str] = field(default_factory=dict)
    container_options: dict[str, str] = field(default_factory=dict)


LOSSLESS = {
    "libx264": {"qp": "0", "preset": "ultrafast", "threads": "1"},
    "libx265": {"preset": "ultrafast", "x265-params": "lossless=1:log-level=none:pools=none"},
    "libvpx": {"crf": "4", "b": "8M", "deadline": "realtime", "cpu-used": "8"},
    "libvpx-vp9": {"lossless": "1", "deadline": "realtime", "cpu-used": "8"},
    "libsvtav1": {"preset": "8", "crf": "10", "svtav1-params": "lp=1"},
    "mpeg4": {"qscale": "2", "flags": "qscale"},
    "mpeg2video": {"qscale": "2", "flags": "qscale"},
    "mjpeg": {"qscale": "2", "flags": "qscale", "color_range": "pc"},
}


def numbered_clip(recipe: ClipRecipe | None = None, **changes: Any) -> bytes:
    """Encode a video of numbered frames: `numbered_clip(frames=9, container="webm", codec="libvpx-vp9")`."""
    recipe = ClipRecipe(**changes) if recipe is None else recipe
    return encode(coded_images(recipe), recipe)


def coded_images(recipe: ClipRecipe) -> Iterator[NDArray[np.uint8]]:
    """The numbered images, rotated so that they are upright after `rotation` is applied."""
    for number in range(recipe.frames):
        sideways = recipe.rotation % 180 == 90
        size = (recipe.height, recipe.width) if sideways else (recipe.width, recipe.height)
        yield np.ascontiguousarray(np.rot90(numbered_image(number, *size), recipe.rotation // 90))


def encode(images: Iterable[NDArray[np.uint8]], recipe: ClipRecipe) -> bytes:
    """Encode a video of the given `(H, W, 3)` uint8 RGB images."""
    with TemporaryDirectory() as folder:  # a real file, because `movflags=faststart` reads its own output
        path = Path(folder, "clip")
        with _own_scheduling():
            _write(path, images, recipe)
        return path.read_bytes()


@contextmanager
def _own_scheduling() -> Iterator[None]:
    """Restore this thread's scheduling policy, because SVT-AV1 makes it real-time when run as root.

    Child processes would inherit the policy, and a busy-waiting real-time process would starve the machine.
    """
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


def _write(path: Path, images: Iterable[NDArray[np.uint8]], recipe: ClipRecipe) -> None:
    muxer = {"mkv": "matroska", "ts": "mpegts"}.get(recipe.container, recipe.container)
    with av.open(str(path), "w", format=muxer, options=recipe.container_options) as container:
        stream = container.add_stream(
            recipe.codec, rate=recipe.rate, options={**LOSSLESS.get(recipe.codec, {}), **recipe.options}
        )
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = recipe.width, recipe.height, recipe.pix_fmt
        stream.codec_context.thread_count = 1
        if recipe.time_base:
            stream.codec_context.time_base = recipe.time_base
        if recipe.rotation:
            stream.set_display_rotation(-recipe.rotation)
        for frame in _frames(images, recipe):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def numbered_image(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """An RGB image `(H, W, 3)` that shows `number` (less than `MAX_FRAMES`)."""
    assert 0 <= number < MAX_FRAMES
    bits = [number >> shift & 1 for shift in reversed(range(GRID * GRID - len(MARKER)))]
    cells = np.array([*MARKER, *bits], np.uint8).reshape(GRID, GRID) * 255
    side = min(width, height)
    of_pixel = np.arange(side) * GRID // side
    image = np.full((height, width, 3), 128, np.uint8)
    top, left = (height - side) // 2, (width - side) // 2
    image[top : top + side, left : left + side] = cells[of_pixel][:, of_pixel, None]
    return image


def jpeg_picture(image: NDArray[np.uint8], pix_fmt: str = "yuvj420p") -> bytes:
    """A `(H, W, 3)` uint8 RGB image as a JPEG file."""
    encoder = av.CodecContext.create("mjpeg", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.height, encoder.width = image.shape[:2]
    encoder.pix_fmt, encoder.time_base = pix_fmt, Fraction(1, 12)
    encoder.options = LOSSLESS["mjpeg"]
    frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pix_fmt)
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def numbered_pictures(folder: Path, numbers: Iterable[int], width: int = 96, height: int = 64) -> Path:
    """Write numbered JPEG frames `00001.jpg`, ... to a folder, as in published data sets."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, number in enumerate(numbers, start=1):
        (folder / f"{place:05d}.jpg").write_bytes(jpeg_picture(numbered_image(number, width, height)))
    return folder


def read_number(image: NDArray[np.uint8]) -> int:
    """Read the number from an upright `(S, S, 3)` centre crop of any size.

    Raises:
        ValueError: the marker is missing, so the image is rotated, mirrored or not numbered.
    """
    middles = (2 * np.arange(GRID) + 1) * len(image) // (2 * GRID)
    cells = (image.mean(axis=2)[middles][:, middles] > 127).astype(int).ravel().tolist()
    if tuple(cells[: len(MARKER)]) != MARKER:
        raise ValueError(f"not an upright numbered image: its first row reads {cells[:GRID]}")
    return int("".join(map(str, cells[len(MARKER) :])), 2)


def read_numbers(images: NDArray[np.uint8]) -> list[int]:
    """`read_number` of each of `(T, S, S, 3)`."""
    return [read_number(image) for image in images]


def _frames(images: Iterable[NDArray[np.uint8]], recipe: ClipRecipe) -> Iterator[av.VideoFrame]:
    for index, image in enumerate(images):
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=recipe.pix_fmt)
        if recipe.times is not None:
            frame.pts = recipe.times[index]
            frame.time_base = recipe.time_base or Fraction(1, recipe.rate)
        yield frame


def remuxed(data: bytes, change: Callable[[int, bytearray], bytearray | None], container: str) -> bytes:
    """Remux a video with every packet replaced by `change(index, content)`; None drops the packet."""
    file = io.BytesIO()
    with av.open(io.BytesIO(data), "r") as source, av.open(file, "w", format=container) as target:
        template = source.streams.video[0]
        stream = target.add_stream_from_template(template)
        packets = (packet for packet in source.demux(template) if packet.size)
        for index, packet in enumerate(packets):
            content = change(index, bytearray(memoryview(packet)))
            if content is not None:
                copy = av.Packet(bytes(content))
                copy.stream, copy.time_base = stream, packet.time_base
                copy.pts, copy.dts, copy.is_keyframe = packet.pts, packet.dts, packet.is_keyframe
                target.mux(copy)
    return file.getvalue()


def audio_clip(container: str = "mp4", codec: str = "aac") -> bytes:
    """A quarter of a second of silence without a video track."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=16_000)
        assert isinstance(stream, av.AudioStream)
        stream.layout = "mono"
        silence = np.zeros((1, 4000), np.int16)
        frame = av.AudioFrame.from_ndarray(silence, format="s16", layout="mono")
        frame.sample_rate = 16_000
        resampler = av.AudioResampler(stream.format, "mono", 16_000, stream.codec_context.frame_size or 4000)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
    return file.getvalue()


def png_picture(size: int = 8) -> bytes:
    """A black PNG."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes((1 + size) * size))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def hls_playlist(*names: str) -> bytes:
    """A playlist that references other files, which the server must not open."""
    return "\n".join(
        [
            "#EXTM3U",
            "#EXT-X-TARGETDURATION:9",
            *(f"#EXTINF:9,\n{name}" for name in names),
            "#EXT-X-ENDLIST",
            "",
        ]
    ).encode()


def not_videos() -> dict[str, bytes]:
    """Files that are not videos, by description."""
    return {
        "text": b"The quick brown fox jumps over the lazy dog.\n" * 200,
        "zeros": bytes(100_000),
        "PNG": png_picture(),
        "WAV": audio_clip("wav", "pcm_s16le"),
        "MP4 without a picture": audio_clip("mp4", "aac"),
        "Ogg without a picture": audio_clip("ogg", "libopus"),
        "HLS playlist": hls_playlist("clip.ts"),
        "ffconcat list": b"ffconcat version 1.0\nfile clip.mp4\n",
        "SDP": b"v=0\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "one byte": b"\x00",
    }
