"""Latency of each stage of a request, and start-up time.

    python -m benchmarks.stages

A four-second 320x240 video is posted repeatedly over one connection to an otherwise idle service. The report
has p50 and p95 of every stage, the overhead beyond decoding and inference, and the median times from process
start to readiness and to the first answer.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import cv2
import httpx
import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.common import report
from benchmarks.common import service_process as serving
from model_export.progress import counting
from model_export.synthetic.encode import Encoding, write_video

NAME = "stages"
WIDTH, HEIGHT, FPS, SECONDS = 320, 240, 30, 4
CLIP = Encoding("h264", Fraction(FPS), crf=23, b_frames=2, gop=60)
STAGES = ("receive", "decode", "queue", "inference", "total")
WARM_UP = 5


def main(
    models: Annotated[
        Path | None, typer.Option(help="Model packages; default: the bundled demo model.")
    ] = None,
    posts: Annotated[int, typer.Option(min=1, help="Number of requests.")] = 100,
    starts: Annotated[int, typer.Option(min=1, help="Number of process starts.")] = 5,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = report.RESULTS,
) -> None:
    """Measure the stages of single requests and the start of the process."""
    clip = moving_texture()
    with counting("starts", starts) as tick:
        begun = [(measure_start(models, clip), tick(1))[0] for _ in range(starts)]
    with serving.service(models) as service, serving.client(service.url) as client:
        timings = measure_posts(client, clip, posts)
    document = summary(timings, begun) | {"clip_bytes": len(clip), "machine": report.machine()}
    report.write(NAME, document, text := as_text(document), out)
    print(text)


def moving_texture(seed: int = 7) -> bytes:
    """An encoded video of a drifting random texture, with realistic detail and motion for a codec."""
    size = (HEIGHT + FPS * SECONDS, WIDTH + 2 * FPS * SECONDS, 3)
    noise = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
    smooth = cv2.GaussianBlur(noise.astype(np.float32), (0, 0), 4)
    texture = np.interp(smooth, (smooth.min(), smooth.max()), (0, 255)).astype(np.uint8)
    frames = [_window(texture, number) for number in range(FPS * SECONDS)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "clip.mp4")
        write_video(path, np.stack(frames), CLIP)
        return path.read_bytes()


def measure_start(models: Path | None, clip: bytes) -> dict[str, float]:
    """Seconds from process start to readiness and to the first answer."""
    with serving.service(models) as service, serving.client(service.url) as client:
        serving.classify(client, clip)
        return {"ready_s": service.ready_s, "first_answer_s": time.monotonic() - service.started}


def measure_posts(client: httpx.Client, clip: bytes, posts: int) -> list[dict[str, float]]:
    """Milliseconds of every stage, and of the whole request as seen by the client (`client`), per request."""
    for _ in range(WARM_UP):
        serving.classify(client, clip)
    timings = []
    with counting("posts", posts) as tick:
        for _ in range(posts):
            began = time.monotonic()
            answer = serving.classify(client, clip)
            timings.append(answer["timing_ms"] | {"client": 1000 * (time.monotonic() - began)})
            tick(1)
    return timings


def summary(timings: Sequence[dict[str, float]], begun: Sequence[dict[str, float]]) -> dict[str, Any]:
    """All figures of the report; `added` is the client's time minus decode and inference."""
    for timing in timings:
        timing["added"] = timing["client"] - timing["decode"] - timing["inference"]
    rows = (*STAGES, "client", "added")
    return {
        "p50_ms": {row: statistics.median(timing[row] for timing in timings) for row in rows},
        "p95_ms": {row: float(np.percentile([timing[row] for timing in timings], 95)) for row in rows},
        "start_s": {name: statistics.median(start[name] for start in begun) for name in begun[0]},
        "posts": len(timings),
        "starts": len(begun),
    }


def as_text(document: dict[str, Any]) -> str:
    """The report as Markdown."""
    names = {
        "total": "total in the service",
        "client": "total at the client",
        "added": "overhead (neither decode nor inference)",
    }
    p50, p95, start = document["p50_ms"], document["p95_ms"], document["start_s"]
    rows = [(names.get(row, row), f"{p50[row]:.1f}", f"{p95[row]:.1f}") for row in p50]
    clip = f"{WIDTH}x{HEIGHT}, {SECONDS} s at {FPS} fps, {document['clip_bytes'] / 1000:.0f} kB"
    ready, answered = f"{start['ready_s']:.2f} s", f"{start['first_answer_s']:.2f} s"
    return f"""# Stages of a request

One H.264 video ({clip}), posted {document["posts"]} times, one at a time: `python -m benchmarks.stages`.
{report.described_machine(document["machine"])}

{report.table(("stage", "p50 ms", "p95 ms"), rows)}
Process start to ready: {ready}; to the first answer: {answered} (medians of {document["starts"]} starts).
"""


def _window(texture: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    """Frame `number`; the window moves by two pixels to the right and one pixel down per frame."""
    return texture[number : number + HEIGHT, 2 * number : 2 * number + WIDTH]


if __name__ == "__main__":
    typer.run(main)
