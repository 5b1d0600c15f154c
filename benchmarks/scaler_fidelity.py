"""How far the clip code's scaler is from PIL's antialiased bilinear filter on the full-size RGB frame.

    python -m benchmarks.scaler_fidelity [CLIP...]

Published networks were evaluated on frames that PIL had scaled, so this distance is the difference that
they see here. Without clips, made ones are measured: smooth 1/f texture under hard-edged, saturated
rectangles, through H.264 4:2:0, which is harder on a scaler than camera footage. Two conversions to the
full-size RGB are compared with, because they differ from each other by more than the scalers do:

    accurate  chroma interpolated, rounded (what a JPEG decoder does with 4:2:0 as well)
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
    """In levels of 255 over all pixels of all frames: `mean` is absolute, `bias` is ours less PIL's."""

    mean: float
    largest: int
    bias: float


def difference(
    frames: Iterable[av.VideoFrame], scale: int, filters: Interpolation, reference: Interpolation
) -> Difference:
    """Scale each frame to `scale` on its shorter side by swscale with `filters`, and by PIL; compare."""
    signed = np.concatenate(
        [
            (scaled(frame, scale, filters).astype(np.int16) - pil_scaled(frame, scale, reference)).ravel()
            for frame in frames
        ]
    )
    return Difference(float(np.abs(signed).mean()), int(np.abs(signed).max()), float(signed.mean()))


def scaled(frame: av.VideoFrame, scale: int, filters: Interpolation) -> NDArray[np.uint8]:
    """`(H, W, 3)` RGB straight from the decoder's format, as the clip code does it."""
    planar = _convert(frame, *scaled_size(frame.width, frame.height, scale), PLANAR, filters)
    return ScaledFrame(rgb_planes(planar)).image()


def pil_scaled(frame: av.VideoFrame, scale: int, reference: Interpolation) -> NDArray[np.uint8]:
    """`(H, W, 3)` RGB: converted at full size, then scaled by PIL's antialiased bilinear filter."""
    full = Image.fromarray(_convert(frame, frame.width, frame.height, "rgb24", reference).to_ndarray())
    size = scaled_size(frame.width, frame.height, scale)
    image: NDArray[np.uint8] = np.asarray(full.resize(size, Image.Resampling.BILINEAR))
    return image


def made_frames(width: int, height: int, count: int = FRAMES) -> list[av.VideoFrame]:
    """Decoded yuv420p frames of made pictures, for any size: H.264 crops odd ones."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "18", "preset": "veryfast"})
        assert isinstance(stream, av.VideoStream)
        # An encoder takes even sizes only; the odd row and column are cut off after decoding.
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        for seed in range(count):
            image = made_image(stream.width, stream.height, seed)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file, "r") as decoded:
        return [_cut(frame, width, height) for frame in decoded.decode(video=0)]


def made_image(width: int, height: int, seed: int) -> NDArray[np.uint8]:
    """A `(H, W, 3)` RGB picture with the spectrum of natural ones (1/f) and hard colour edges."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    amplitude = np.maximum(frequency, 1 / max(width, height)) ** -1.1
    phases = np.exp(2j * np.pi * rng.random((3, *frequency.shape)))
    noise = np.fft.irfft2(amplitude * phases, s=(height, width)).transpose(1, 2, 0)
    noise /= noise.std(axis=(0, 1))
    # Channels of natural pictures go together: most of it is common to all three.
    luma_and_tint = noise @ np.array([[0.8, 0.2, 0.0], [0.75, 0.0, 0.25], [0.8, -0.2, -0.1]]).T
    image: NDArray[np.uint8] = np.clip(118 + 50 * luma_and_tint, 0, 255).astype(np.uint8)
    for _ in range(25):
        left, top = rng.integers(0, width - 8), rng.integers(0, height - 8)
        right, bottom = left + rng.integers(4, width // 6), top + rng.integers(4, height // 6)
        image[top:bottom, left:right] = rng.integers(0, 256, 3)
    return image


def clip_frames(path: Path, count: int = FRAMES) -> list[av.VideoFrame]:
    """The first frames of a clip on disk."""
    with av.open(str(path)) as container:
        return list(islice(container.decode(video=0), count))


def main(arguments: list[str]) -> None:
    """Print one table for each clip or made size."""
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
        yield from ((f"made, {width}x{height}", made_frames(width, height)) for width, height in SIZES)


def _scale_ms(frames: list[av.VideoFrame], scale: int, filters: Interpolation) -> float:
    """Processor time for one frame, with tables that are already there."""
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
    """The top left `width` x `height` pixels of a yuv420p frame, chroma rounded up as decoders do."""
    cut = av.VideoFrame(width, height, "yuv420p")
    for source, target in zip(frame.planes, cut.planes, strict=True):
        rows = np.frombuffer(memoryview(source), np.uint8).reshape(source.height, source.line_size)
        target_rows = np.frombuffer(memoryview(target), np.uint8).reshape(target.height, target.line_size)
        target_rows[:, : target.width] = rows[: target.height, : target.width]
    return cut


if __name__ == "__main__":
    main(sys.argv[1:])
