"""Difference between our scaler and PIL's antialiased bilinear filter on full-size RGB frames.

    python -m benchmarks.scaler_fidelity [CLIP...]

The published networks were evaluated on frames scaled by PIL. By default the frames are generated: a smooth
    1/f
texture with saturated rectangles, encoded as H.264 4:2:0, which is harder to scale than camera footage. Our
scaler is compared with two conversions to full-size RGB, because these differ from each other more than the
scalers do:

    accurate  chroma interpolated and rounded, as in a JPEG decoder
    fast      swscale's default without scaling: chroma repeated, and about one level too dark
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

from service.clip.geometry import scaled_size
from service.clip.scaling import FILTER, PLANAR, ScaledFrame, colour_matrix, rgb_planes

SIZES = ((427, 240), (340, 256), (1920, 1080))
SCALES = (224, 112)
FRAMES = 4
FULL = Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND
FILTERS = {
    "bilinear, full chroma, accurate (in use)": FILTER,
    "bilinear, full chroma both ways": FILTER | Interpolation.FULL_CHR_H_INP,
    "bilinear": Interpolation.BILINEAR,
    "fast bilinear": Interpolation.FAST_BILINEAR,
    "area, full chroma, accurate": Interpolation.AREA | FULL,
    "bicubic, full chroma, accurate": Interpolation.BICUBIC | FULL,
}
REFERENCES = {"accurate": Interpolation.BILINEAR | FULL, "fast": Interpolation.BILINEAR}


@dataclass(frozen=True)
class Difference:
    """Mean absolute, largest absolute and mean signed difference (ours - PIL), in levels of 255."""

    mean: float
    largest: int
    bias: float


def difference(
    frames: Iterable[av.VideoFrame], scale: int, filters: Interpolation, reference: Interpolation
) -> Difference:
    """Scale the shorter side of each frame to `scale` with swscale and with PIL, and compare."""
    signed = np.concatenate(
        [
            (scaled(frame, scale, filters).astype(np.int16) - pil_scaled(frame, scale, reference)).ravel()
            for frame in frames
        ]
    )
    return Difference(float(np.abs(signed).mean()), int(np.abs(signed).max()), float(signed.mean()))


def scaled(frame: av.VideoFrame, scale: int, filters: Interpolation) -> NDArray[np.uint8]:
    """Scale a decoded frame as `service.clip` does; returns RGB `(H, W, 3)`."""
    planar = _convert(frame, *scaled_size(frame.width, frame.height, scale), PLANAR, filters)
    return ScaledFrame(rgb_planes(planar)).image()


def pil_scaled(frame: av.VideoFrame, scale: int, reference: Interpolation) -> NDArray[np.uint8]:
    """Convert a frame to RGB at full size, then scale it with PIL; returns `(H, W, 3)`."""
    full = Image.fromarray(_convert(frame, frame.width, frame.height, "rgb24", reference).to_ndarray())
    size = scaled_size(frame.width, frame.height, scale)
    image: NDArray[np.uint8] = np.asarray(full.resize(size, Image.Resampling.BILINEAR))
    return image


def generated_frames(width: int, height: int, count: int = FRAMES) -> list[av.VideoFrame]:
    """Decoded yuv420p frames of generated images, also for odd sizes."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "18", "preset": "veryfast"})
        assert isinstance(stream, av.VideoStream)
        # The encoder only supports even sizes; the extra row and column are cropped after decoding.
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        for seed in range(count):
            image = generated_image(stream.width, stream.height, seed)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file, "r") as decoded:
        return [_cut(frame, width, height) for frame in decoded.decode(video=0)]


def generated_image(width: int, height: int, seed: int) -> NDArray[np.uint8]:
    """An RGB image `(H, W, 3)` with the spectrum of natural images (1/f) and hard colour edges."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    amplitude = np.maximum(frequency, 1 / max(width, height)) ** -1.1
    phases = np.exp(2j * np.pi * rng.random((3, *frequency.shape)))
    noise = np.fft.irfft2(amplitude * phases, s=(height, width)).transpose(1, 2, 0)
    noise /= noise.std(axis=(0, 1))
    # The channels of natural images are strongly correlated.
    luma_and_tint = noise @ np.array([[0.8, 0.2, 0.0], [0.75, 0.0, 0.25], [0.8, -0.2, -0.1]]).T
    image: NDArray[np.uint8] = np.clip(118 + 50 * luma_and_tint, 0, 255).astype(np.uint8)
    for _ in range(25):
        left, top = rng.integers(0, width - 8), rng.integers(0, height - 8)
        right, bottom = left + rng.integers(4, width // 6), top + rng.integers(4, height // 6)
        image[top:bottom, left:right] = rng.integers(0, 256, 3)
    return image


def clip_frames(path: Path, count: int = FRAMES) -> list[av.VideoFrame]:
    """The first frames of a video file."""
    with av.open(str(path)) as container:
        return list(islice(container.decode(video=0), count))


def main(arguments: list[str]) -> None:
    """Print one table per video, or per generated size."""
    console = Console()
    for title, frames in _subjects(arguments):
        table = Table("filter", "to", "|d| accurate", "max", "bias", "|d| fast", "max", "ms", title=title)
        for scale in SCALES:
            for name, filters in FILTERS.items():
                accurate = difference(frames, scale, filters, REFERENCES["accurate"])
                fast = difference(frames, scale, filters, REFERENCES["fast"])
                table.add_row(
                    name,
                    str(scale),
                    f"{accurate.mean:.2f}",
                    str(accurate.largest),
                    f"{accurate.bias:+.2f}",
                    f"{fast.mean:.2f}",
                    str(fast.largest),
                    f"{_scale_ms(frames, scale, filters):.2f}",
                )
        console.print(table)


def _subjects(arguments: list[str]) -> Iterator[tuple[str, list[av.VideoFrame]]]:
    if arguments:
        yield from ((Path(name).name, clip_frames(Path(name))) for name in arguments)
    else:
        yield from (
            (f"generated, {width}x{height}", generated_frames(width, height)) for width, height in SIZES
        )


def _scale_ms(frames: list[av.VideoFrame], scale: int, filters: Interpolation) -> float:
    """CPU time per frame, excluding the first frame, for which swscale builds its tables."""
    reformatter = VideoReformatter()
    width, height = scaled_size(frames[0].width, frames[0].height, scale)
    started = 0.0
    for index, frame in enumerate(frames):
        if index == 1:
            started = time.process_time()
        planar = reformatter.reformat(frame, width, height, PLANAR, interpolation=filters, threads=1)
        ScaledFrame(rgb_planes(planar)).image()
    return 1000 * (time.process_time() - started) / max(1, len(frames) - 1)


def _convert(
    frame: av.VideoFrame, width: int, height: int, pixel_format: str, interpolation: Interpolation
) -> av.VideoFrame:
    return frame.reformat(
        width=width,
        height=height,
        format=pixel_format,
        src_colorspace=colour_matrix(frame.colorspace, frame.width, frame.height),
        dst_color_range=ColorRange.JPEG,
        interpolation=interpolation,
        threads=1,
    )


def _cut(frame: av.VideoFrame, width: int, height: int) -> av.VideoFrame:
    """Crop a yuv420p frame to its top left pixels; chroma sizes round up, as in decoders."""
    cut = av.VideoFrame(width, height, "yuv420p")
    for source, target in zip(frame.planes, cut.planes, strict=True):
        rows = np.frombuffer(memoryview(source), np.uint8).reshape(source.height, source.line_size)
        target_rows = np.frombuffer(memoryview(target), np.uint8).reshape(target.height, target.line_size)
        target_rows[:, : target.width] = rows[: target.height, : target.width]
    return cut


if __name__ == "__main__":
    main(sys.argv[1:])
