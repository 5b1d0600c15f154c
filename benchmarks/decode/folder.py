"""Measure the videos of a folder and summarize the ratios to the fastest other library."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from benchmarks.common import report
from benchmarks.decode.libraries import BIG, LITTLE, OURS, DecodeJob, thumbnail
from benchmarks.decode.report import library_versions
from benchmarks.decode.rounds import LIMITS, best_peer, check_pixels, ratios, run_rounds
from service.clip.decoding.sequential import decode_all
from service.clip.geometry import crop_boxes
from service.clip.scaling import Scaler
from service.errors import RequestError
from service.machine.resources import usable_cores


def measure_folder(
    folder: Path, names: Sequence[str], rounds: int, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Measure each video below `folder`, sorted by path.

    `say` gets a message for each file that this project cannot decode and each library that fails on a file
    or returns wrong frames; such a library does not count for the file.
    """
    rows: list[dict[str, Any]] = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        title = str(path.relative_to(folder))
        try:
            row = _measure(path, names, rounds)
        except RequestError as exc:
            say(f"{title}: skipped: {exc}")
            continue
        rows.append({"name": title} | row)
        for name, result in row["results"].items():
            if "error" in result:
                say(f"{title}: {name} fails: {result['error']}")
            elif "wrong_frames" in result:
                say(f"{title}: {name} returns {result['wrong_frames']} wrong frames")
    return rows


def _measure(path: Path, names: Sequence[str], rounds: int) -> dict[str, Any]:
    decoded, exact = check_pixels(path)
    scalers = {size: Scaler(size) for size in (LITTLE, BIG)}
    thumbnails: dict[int, list[NDArray[np.float32]]] = {LITTLE: [], BIG: []}

    def take(_number: int, frame: VideoFrame) -> None:
        for size, scaler in scalers.items():
            scaled = scaler.scaled(frame)
            (crop,) = crop_boxes(scaled.width, scaled.height, size, 1)
            image = np.empty((size, size, 3), np.uint8)
            scaled.copy_crop(crop, image)
            thumbnails[size].append(thumbnail(image))

    with path.open("rb") as file:
        decode_all(file, LIMITS, 1, take)
    video = decoded.video
    size = (video.width, video.height) if video.rotation % 180 == 0 else (video.height, video.width)
    with tempfile.NamedTemporaryFile(suffix=".npy") as saved:
        np.save(saved, np.stack([thumbnails[LITTLE], thumbnails[BIG]]))
        saved.flush()
        job = DecodeJob(str(path), *size, decoded.indices[0], usable_cores(), saved.name)
        results = run_rounds(job, names, rounds)
    return {
        "video": f"{video.codec} {video.width}x{video.height}, {video.frames} frames",
        "bytes": path.stat().st_size,
        "packets": decoded.effort.packets,
        "decoded": decoded.effort.decoded,
        "full_because": decoded.effort.full_because,
        "pixels_of_a_full_decode": exact,
        "results": results,
    }


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return geometric mean, median and maximum of our median times over the fastest right library's."""
    figures: dict[str, Any] = {"videos": len(rows), "compared": 0}
    for what in ("wall_ms", "cpu_ms"):
        values: list[float] = []
        for row in rows:
            peer = best_peer(row["results"])
            if peer and "error" not in row["results"][OURS]:
                values.append(ratios(row["results"], peer, what)[0])
        figures["compared"] = len(values)
        if values:
            figures[what] = {
                "geometric_mean": statistics.geometric_mean(values),
                "median": statistics.median(values),
                "worst": max(values),
            }
    return figures


def as_text(document: dict[str, Any]) -> str:
    """Format the report of a folder."""
    figures = document["summary"]
    totals = [
        (label, *(f"{figures[what][key]:.2f}" for key in ("geometric_mean", "median", "worst")))
        for what, label in (("wall_ms", "wall"), ("cpu_ms", "CPU"))
        if what in figures
    ]
    lines: list[tuple[str, ...]] = []
    for row in document["rows"]:
        peer = best_peer(row["results"])
        ours = row["results"][OURS]
        is_wrong = "error" in ours or "wrong_frames" in ours or not row["pixels_of_a_full_decode"]
        cells = ("-", "-")
        if peer and "error" not in ours:
            wall, cpu = (ratios(row["results"], peer, what)[0] for what in ("wall_ms", "cpu_ms"))
            cells = (f"{wall:.2f}", f"{cpu:.2f}")
        decoded = f"{row['decoded']} of {row['packets']}"
        reason = row["full_because"] or ""
        exact = "NO" if is_wrong else "yes"
        lines.append((row["name"], row["video"], decoded, exact, peer or "none", *cells, reason))
    head = ("file", "video", "decoded", "exact", "fastest other", "wall", "CPU", "decoded in full because")
    messages = "".join(f"- {message}\n" for message in document["messages"])
    return f"""# Decoding the videos of a folder

From a video file to the 16 sampled frames at 224 and 112 pixels: `python -m benchmarks.decode --folder DIR`.
Each library runs in its own process; rounds are interleaved. {library_versions(document["libraries"])}
{report.described_machine(document["machine"])}

Our time over that of the fastest other library that returns the right frames, on {figures["compared"]} of
{figures["videos"]} videos:

{report.table(("time", "geometric mean", "median", "worst"), totals)}
{report.table(head, lines)}
"Decoded" counts packets; "exact" means that every pixel equals a full sequential decode.

{messages}"""
