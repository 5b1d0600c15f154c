"""The sampled frames of a clip, from file to arrays: this project against other ways to get them.

    python -m benchmarks.decode

Every contender has a process of its own and they take turns, so that whatever the machine does meanwhile, it
does to all. Each must return the right frames, which carry their number; ours must have every pixel of a
full decode. Clips are made on the first run, which takes minutes, and kept. Peers that are not installed are
named as absent: `pip install -e '.[bench]'` brings those that pip can bring, torchcodec wants FFmpeg's
libraries as well.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks import report
from benchmarks.decode_clips import RECIPES, Recipe, make
from benchmarks.decode_contenders import CONTENDERS, FRAMES, SPEC, Job
from model_export.progress import counting
from service.clip.decode import decode_clip
from service.clip.full import decode_all
from service.clip.sampling import uniform_indices
from service.clip.video import DecodeLimits
from service.clip.views import Views
from service.pipeline.cores import usable_cores

NAME = "decode"
OURS = "ours"
# The module that a contender needs, and the distribution that says its version.
NEEDS = {
    "torchcodec exact": ("torchcodec", "torchcodec"),
    "torchcodec approximate": ("torchcodec", "torchcodec"),
    "decord2": ("decord", "decord2"),
    "OpenCV": ("cv2", "opencv-python-headless"),
    "PyAV": ("av", "av"),
}
LIMITS = DecodeLimits()
CLIPS = Path(tempfile.gettempdir(), "blvnet-benchmark-clips")


def main(
    only: Annotated[
        list[str] | None, typer.Option(help="Clips to measure anew, by name; the others' figures stay.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Times that each contender decodes each clip.")] = 7,
    clips: Annotated[Path, typer.Option(help="Folder for the clips, some 60 MB.")] = CLIPS,
    out: Annotated[Path, typer.Option(help="Folder for the result.")] = report.RESULTS,
) -> None:
    """Measure decoding, alone and two clips at once."""
    unknown = sorted(set(only or ()) - {recipe.name for recipe in RECIPES})
    if unknown:
        raise typer.BadParameter(f"there is no clip {', '.join(unknown)}")
    recipes = [recipe for recipe in RECIPES if not only or recipe.name in only]
    present = [name for name in CONTENDERS if is_present(name)]
    rows = {row["name"]: row for row in earlier(out)} if only else {}
    with counting("clips", len(recipes)) as tick:
        for recipe in recipes:
            rows[recipe.name] = measure(recipe, make(recipe, clips), present, rounds)
            tick(1)
    document = {
        "clips": [rows[recipe.name] for recipe in RECIPES if recipe.name in rows],
        "contenders": {name: contender_version(name) for name in CONTENDERS},
        "machine": report.machine(),
    }
    report.write(NAME, document, text := as_text(document), out)
    print(text)


def earlier(out: Path) -> list[dict[str, Any]]:
    """The clips' figures from the last run, if it was on a machine like this one."""
    path = out / f"{NAME}.json"
    if not path.exists():
        return []
    document = json.loads(path.read_text(encoding="utf-8"))
    rows: list[dict[str, Any]] = document["clips"] if document["machine"] == report.machine() else []
    return rows


def is_present(name: str) -> bool:
    """Whether the contender can run here."""
    if name == "ffmpeg":
        return shutil.which("ffmpeg") is not None
    module = NEEDS.get(name, ("av", ""))[0]
    if not find_spec(module):
        return False
    command = [sys.executable, "-c", f"import {module}"]  # it may lack a library
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def contender_version(name: str) -> str | None:
    """Its version; None if it is absent."""
    if not is_present(name):
        return None
    if name == "ffmpeg":
        banner = subprocess.run(["ffmpeg", "-version"], check=True, capture_output=True, text=True).stdout
        return banner.split()[2]
    try:
        return version(NEEDS.get(name, ("", "blvnet-serve"))[1])
    except PackageNotFoundError:
        return "unknown"


def measure(recipe: Recipe, path: Path, names: Sequence[str], rounds: int) -> dict[str, Any]:
    """One clip's figures: for each contender the times of every round, alone and in parallel."""
    indices = uniform_indices(recipe.frames, FRAMES)
    effort, exact = check_pixels(path)
    job = Job(str(path), recipe.width, recipe.height, indices, usable_cores())
    shared = Job(str(path), recipe.width, recipe.height, indices, max(1, usable_cores() // 2))
    return {
        "name": recipe.name,
        "title": recipe.title,
        "frames": recipe.frames,
        "bytes": path.stat().st_size,
        "packets": effort.packets,
        "decoded": effort.decoded,
        "pixels_of_a_full_decode": exact,
        "alone": take_turns(job, names, rounds, at_once=1),
        "two_at_once": take_turns(shared, names, rounds, at_once=2),
    }


def check_pixels(path: Path) -> tuple[Any, bool]:
    """What our way takes, and whether its frames are those of a full sequential decode, pixel for pixel."""
    planned = decode_clip(path, SPEC, LIMITS, threads=usable_cores())
    views = Views(SPEC, planned.indices, crops=1)
    with path.open("rb") as file:
        found = decode_all(file, LIMITS, 1, views.take)
    same = all(np.array_equal(views.inputs[name], planned.inputs[name]) for name in views.inputs)
    return planned.effort, same and found.frames == planned.video.frames


def take_turns(job: Job, names: Sequence[str], rounds: int, at_once: int) -> dict[str, dict[str, Any]]:
    """Each contender's rounds, in turns, after one that does not count; `at_once` processes together."""
    results: dict[str, dict[str, Any]] = {name: {"wall_ms": [], "cpu_ms": []} for name in names}
    with ExitStack() as stack:
        workers = {name: [stack.enter_context(worker(name)) for _ in range(at_once)] for name in names}
        for number in range(rounds + 1):
            for name in names:
                if "error" not in results[name]:
                    record(results[name], ask(workers[name], job), job, counts=number > 0)
    return results


@contextmanager
def worker(name: str) -> Iterator[subprocess.Popen[str]]:
    """A contender's process, which ends with the context."""
    command = [sys.executable, "-m", "benchmarks.decode_contenders", name]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ask(processes: Sequence[subprocess.Popen[str]], job: Job) -> list[dict[str, Any]]:
    """Give all the job at once, and wait for all answers."""
    for process in processes:
        assert process.stdin
        process.stdin.write(json.dumps(asdict(job)) + "\n")
        process.stdin.flush()
    answers = []
    for process in processes:
        assert process.stdout
        line = process.stdout.readline()
        answers.append(json.loads(line) if line else {"error": "it crashed"})
    return answers


def record(result: dict[str, Any], answers: Sequence[dict[str, Any]], job: Job, *, counts: bool) -> None:
    """Add a round: the longest wall time of those at once, the mean of processor time, what was wrong."""
    for answer in answers:
        if "error" in answer:
            result["error"] = answer["error"]
            return
        if tuple(answer["numbers"]) != job.indices:
            result["wrong_frames"] = sum(
                shown != meant for shown, meant in zip(answer["numbers"], job.indices, strict=True)
            )
    if counts:
        result["wall_ms"].append(max(answer["wall_ms"] for answer in answers))
        result["cpu_ms"].append(statistics.fmean(answer["cpu_ms"] for answer in answers))


def best_peer(results: dict[str, dict[str, Any]]) -> str | None:
    """The quickest of the others that return the right frames, by median wall time."""
    right = {
        name: statistics.median(result["wall_ms"])
        for name, result in results.items()
        if name != OURS and "error" not in result and "wrong_frames" not in result
    }
    return min(right, key=lambda name: right[name]) if right else None


def ratios(results: dict[str, dict[str, Any]], peer: str, what: str) -> tuple[float, float, float]:
    """Median, least and greatest of ours against the peer's, round by round."""
    pairs = zip(results[OURS][what], results[peer][what], strict=True)
    values = sorted(mine / theirs for mine, theirs in pairs)
    return statistics.median(values), values[0], values[-1]


def as_text(document: dict[str, Any]) -> str:
    """The report as Markdown."""
    absent = [name for name, found in document["contenders"].items() if found is None]
    versions = ", ".join(
        f"{name} {found}" for name, found in document["contenders"].items() if found and name != OURS
    )
    missing = f" Not installed, and so absent: {', '.join(absent)}." if absent else ""
    return f"""# Decoding, against other ways to do it

From a clip's file to the 16 sampled frames at 224 and 112 pixels: `python -m benchmarks.decode`.
Each contender in a process of its own, in turns. Peers: {versions}.{missing}
{report.described_machine(document["machine"])}

## One clip alone

{_against_best(document["clips"], "alone")}
Wall and processor time are ratios to the best peer that returned the right frames: median (least to
greatest of the rounds). "Decoded" counts packets; "exact" says that every pixel is that of a full sequential
decode.

{_milliseconds(document["clips"], "alone")}
Median wall time / processor time in milliseconds; "wrong" says of how many of the 16 frames the number is
not the one meant.

## Two clips at once

Two processes of the same contender, each with one of the clips; ours is told that it has half of the cores.

{_against_best(document["clips"], "two_at_once")}
{_milliseconds(document["clips"], "two_at_once")}"""


def _against_best(rows: Sequence[dict[str, Any]], mode: str) -> str:
    lines = []
    for row in rows:
        peer = best_peer(row[mode])
        figures = (
            [_spread(ratios(row[mode], peer, what)) for what in ("wall_ms", "cpu_ms")] if peer else ["-", "-"]
        )
        exact = "yes" if row["pixels_of_a_full_decode"] else "NO"
        lines.append((row["title"], f"{row['decoded']} of {row['packets']}", exact, peer or "none", *figures))
    return report.table(("clip", "decoded", "exact", "best peer", "wall", "processor"), lines)


def _spread(values: tuple[float, float, float]) -> str:
    middle, least, greatest = values
    return f"{middle:.2f} ({least:.2f} to {greatest:.2f})"


def _milliseconds(rows: Sequence[dict[str, Any]], mode: str) -> str:
    names = [name for name in CONTENDERS if name in rows[0][mode]]
    lines = [(row["title"], *(_cell(row[mode][name]) for name in names)) for row in rows]
    return report.table(("clip", *names), lines)


def _cell(result: dict[str, Any]) -> str:
    if "error" in result:
        return "fails"
    wall, cpu = (statistics.median(result[what]) for what in ("wall_ms", "cpu_ms"))
    wrong = f", {result['wrong_frames']} wrong" if "wrong_frames" in result else ""
    return f"{wall:.0f} / {cpu:.0f}{wrong}"


if __name__ == "__main__":
    typer.run(main)
