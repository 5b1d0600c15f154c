"""Makes the videos that the decode benchmark times. Each frame carries its number.

The picture is a texture of several scales that drifts and shakes, with moving objects and sensor noise, so
that bitrates, motion vectors and residuals resemble filmed video instead of a test card. H.264 and HEVC have
one slice per picture, as phones and websites write them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.codec.context import ThreadType
from av.video.stream import VideoStream
from numpy.typing import NDArray

MARGIN = 160  # largest distance of the camera from the centre, in pixels
BITS = 16  # of a frame number, drawn as four rows of four cells
NOISE_TILES = 8
NOISE = 2.5  # standard deviation, of 255


@dataclass(frozen=True)
class Recipe:
    """How to draw and encode a video; `seed` determines the picture."""

    name: str
    title: str
    width: int
    height: int
    frames: int
    fps: Fraction
    codec: str
    suffix: str = ".mp4"
    options: dict[str, str] = field(default_factory=dict)
    seed: int = 11


def _x264(crf: int, gop: int, b_frames: int, preset: str = "veryfast") -> dict[str, str]:
    params = f"sliced-threads=0:slices=1:keyint={gop}:scenecut=0:bframes={b_frames}"
    return {"preset": preset, "crf": str(crf), "x264-params": params}


def _x265(crf: int, gop: int) -> dict[str, str]:
    return {
        "preset": "superfast",
        "crf": str(crf),
        "x265-params": f"slices=1:keyint={gop}:scenecut=0:bframes=4:wpp=0:log-level=none",
    }


def _vp9(rate: str, gop: int, deadline: str, speed: int) -> dict[str, str]:
    return {
        "deadline": deadline,
        "cpu-used": str(speed),
        "b": rate,
        "g": str(gop),
        "auto-alt-ref": "1",
        "lag-in-frames": "16",
    }


HD, FPS = (1920, 1080), Fraction(30)
RECIPES = (
    Recipe(
        "ss-vp9",
        "427x240 VP9, 4 s",
        427,
        240,
        48,
        Fraction(12),
        "libvpx-vp9",
        ".webm",
        _vp9("300k", 128, "good", 4),
    ),
    Recipe("ss-h264", "426x240 H.264, 4 s", 426, 240, 48, Fraction(12), "libx264", ".mp4", _x264(23, 250, 3)),
    Recipe(
        "kinetics",
        "340x256 H.264, B-frames, 10 s",
        340,
        256,
        300,
        FPS,
        "libx264",
        ".mp4",
        _x264(23, 250, 3, "medium"),
    ),
    Recipe(
        "hd-gop250-b", "1080p H.264, GOP 250, B-frames", *HD, 300, FPS, "libx264", ".mp4", _x264(21, 250, 3)
    ),
    Recipe(
        "hd-gop250", "1080p H.264, GOP 250, no B-frames", *HD, 300, FPS, "libx264", ".mp4", _x264(21, 250, 0)
    ),
    Recipe("hd-gop30-b", "1080p H.264, GOP 30, B-frames", *HD, 300, FPS, "libx264", ".mp4", _x264(21, 30, 3)),
    Recipe(
        "hd-gop30", "1080p H.264, GOP 30, no B-frames", *HD, 300, FPS, "libx264", ".mp4", _x264(21, 30, 0)
    ),
    Recipe("hd-hevc", "1080p HEVC", *HD, 300, FPS, "libx265", ".mp4", _x265(23, 250)),
    Recipe("hd-vp9", "1080p VP9", *HD, 300, FPS, "libvpx-vp9", ".webm", _vp9("4M", 128, "realtime", 7)),
    Recipe("4k", "2160p H.264, B-frames, 2 s", 3840, 2160, 60, FPS, "libx264", ".mp4", _x264(23, 250, 3)),
    Recipe("long", "720p H.264, B-frames, 3 min", 1280, 720, 5400, FPS, "libx264", ".mp4", _x264(23, 250, 3)),
    Recipe("intra", "1080p H.264, all intra", *HD, 120, FPS, "libx264", ".mp4", _x264(25, 1, 0)),
)


def make(recipe: Recipe, folder: Path) -> Path:
    """Return the path of the video in `folder`. Make it first if it is missing, which can take minutes."""
    path = folder / f"{recipe.name}{recipe.suffix}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"unfinished-{path.name}")
        with av.open(str(unfinished), "w", container_options={"fflags": "+bitexact"}) as container:
            stream = container.add_stream(recipe.codec, rate=recipe.fps, options=recipe.options)
            assert isinstance(stream, VideoStream)
            stream.width, stream.height, stream.pix_fmt = recipe.width, recipe.height, "yuv420p"
            stream.codec_context.thread_type = ThreadType.FRAME  # slice threads would write several slices
            stream.codec_context.thread_count = 2
            for picture in pictures(recipe):
                frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuv420p")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        unfinished.rename(path)
    return path


def pictures(recipe: Recipe) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames, `(H, W, 3)` RGB."""
    height, width = recipe.height, recipe.width
    rng = np.random.default_rng(recipe.seed)
    scene = _texture(rng, height + 2 * MARGIN, width + 2 * MARGIN)
    side = height // 4
    objects = [_texture(rng, side, side) for _ in range(3)]
    noise = [
        np.repeat(np.rint(rng.normal(0, NOISE, (height, width, 1))).astype(np.int16), 3, axis=2)
        for _ in range(NOISE_TILES)
    ]
    for number in range(recipe.frames):
        # The camera sweeps slowly and shakes like a hand.
        top = MARGIN + round(100 * np.sin(number / 90) + 4 * np.sin(number / 3.1))
        left = MARGIN + round(130 * np.sin(number / 70) + 4 * np.sin(number / 2.3))
        picture = scene[top : top + height, left : left + width].copy()
        for which, square in enumerate(objects):
            y = (which * height // 3 + number * (which + 1)) % (height - side)
            x = (which * width // 3 + number * (5 - which)) % (width - side)
            picture[y : y + side, x : x + side] = square
        noisy = cv2.add(picture, noise[number % NOISE_TILES], dtype=cv2.CV_8U)
        stamped = np.asarray(noisy, np.uint8)
        stamp(stamped, number)
        yield stamped


def _texture(rng: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Sum smooth noise of several scales, the coarser the stronger, as in natural pictures."""
    total = np.zeros((height, width, 3), np.float32)
    for step, strength in ((128, 60.0), (32, 30.0), (8, 16.0), (2, 6.0)):
        coarse = rng.normal(0, strength, (height // step + 2, width // step + 2, 3)).astype(np.float32)
        total += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(total + 118, 0, 255).astype(np.uint8)


def stamp(picture: NDArray[np.uint8], number: int) -> None:
    """Draw `number` in the centre as black and white cells that cover a quarter of the height."""
    height, width, _ = picture.shape
    cell = height // 16
    top, left = height // 2 - 2 * cell, width // 2 - 2 * cell
    for bit in range(BITS):
        row, column = divmod(bit, 4)
        white = number >> (BITS - 1 - bit) & 1
        picture[
            top + row * cell : top + (row + 1) * cell, left + column * cell : left + (column + 1) * cell
        ] = 235 * white + 10


def read_stamp(picture: NDArray[np.uint8]) -> int:
    """Read the number in the centre of a `(H, W, 3)` picture of any scale, or of its full-height crop."""
    height, width, _ = picture.shape
    cell = height / 16
    number = 0
    for bit in range(BITS):
        row, column = divmod(bit, 4)
        y = round(height / 2 + (row - 1.5) * cell)
        x = round(width / 2 + (column - 1.5) * cell)
        number = number << 1 | int(picture[y - 1 : y + 2, x - 1 : x + 2].mean() > 127)
    return number
