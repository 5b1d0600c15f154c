"""Benchmark of decoding: from a video file to the sampled frames, this project and other libraries.

Each library runs in its own process, and rounds are interleaved, so that load on the machine affects all of
them equally. Each must return the right frames; ours must also match a full decode pixel by pixel. The videos
are made on the first run, which takes minutes, and kept; `--folder` measures the videos of a folder instead.
Libraries that are not installed are reported as missing: `pip install -e '.[bench]'` installs those on PyPI;
torchcodec also needs FFmpeg's shared libraries.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.common import report
from benchmarks.decode import folder as folder_measurement
from benchmarks.decode.libraries import FRAMES, LIBRARIES, DecodeJob, library_version
from benchmarks.decode.report import as_text
from benchmarks.decode.rounds import check_pixels, run_rounds
from benchmarks.decode.videos import RECIPES, Recipe, make
from model_export.progress import counting
from service.clip.sampling import uniform_indices
from service.machine.resources import usable_cores

NAME = "decode"
VIDEOS = Path(tempfile.gettempdir(), "blvnet-benchmark-clips")


def main(
    only: Annotated[
        list[str] | None, typer.Option(help="Videos to measure again, by name; the other results are kept.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Timed rounds per video.")] = 7,
    clips: Annotated[Path, typer.Option(help="Folder for the generated videos (about 60 MB).")] = VIDEOS,
    folder: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="Measure every video in this folder instead, once at a time."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = report.RESULTS,
) -> None:
    """Measure decoding, one video alone and two at once."""
    unknown = sorted(set(only or ()) - {recipe.name for recipe in RECIPES})
    if unknown:
        raise typer.BadParameter(f"unknown video: {', '.join(unknown)}")
    libraries = {name: library_version(name) for name in LIBRARIES}
    present = [name for name, found in libraries.items() if found]
    facts: dict[str, Any] = {"libraries": libraries, "machine": report.machine()}
    if folder:
        console, messages = Console(stderr=True), list[str]()

        def say(message: str) -> None:
            messages.append(message)
            console.print(message, markup=False, highlight=False, soft_wrap=True)

        rows = folder_measurement.measure_folder(folder, present, rounds, say)
        document = {"rows": rows, "summary": folder_measurement.summary(rows), "messages": messages} | facts
        report.write(f"{NAME}_folder", document, text := folder_measurement.as_text(document), out)
        print(text)
        return
    recipes = [recipe for recipe in RECIPES if not only or recipe.name in only]
    measured = {row["name"]: row for row in earlier(out)} if only else {}
    with counting("videos", len(recipes)) as tick:
        for recipe in recipes:
            measured[recipe.name] = measure(recipe, make(recipe, clips), present, rounds)
            tick(1)
    document = {"videos": [measured[recipe.name] for recipe in RECIPES if recipe.name in measured]} | facts
    report.write(NAME, document, text := as_text(document), out)
    print(text)


def earlier(out: Path) -> list[dict[str, Any]]:
    """Return the results of the last run, if it was on a machine like this one."""
    path = out / f"{NAME}.json"
    if not path.exists():
        return []
    document = json.loads(path.read_text(encoding="utf-8"))
    rows: list[dict[str, Any]] = document["videos"] if document["machine"] == report.machine() else []
    return rows


def measure(recipe: Recipe, path: Path, names: Sequence[str], rounds: int) -> dict[str, Any]:
    """Measure one generated video, alone and with a second process at the same time."""
    indices = uniform_indices(recipe.frames, FRAMES)
    decoded, exact = check_pixels(path)
    job = DecodeJob(str(path), recipe.width, recipe.height, indices, usable_cores())
    shared = DecodeJob(str(path), recipe.width, recipe.height, indices, max(1, usable_cores() // 2))
    return {
        "name": recipe.name,
        "title": recipe.title,
        "frames": recipe.frames,
        "bytes": path.stat().st_size,
        "packets": decoded.effort.packets,
        "decoded": decoded.effort.decoded,
        "pixels_of_a_full_decode": exact,
        "alone": run_rounds(job, names, rounds),
        "two_at_once": run_rounds(shared, names, rounds, processes=2),
    }
