"""Run decode jobs with every library in interleaved rounds, and compare the times."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.decode.libraries import OURS, SPEC, DecodeJob
from service.clip.decoding.clips import decode_video
from service.clip.decoding.sequential import decode_all
from service.clip.video import DecodedVideo, DecodeLimits
from service.clip.views import Views
from service.machine.resources import usable_cores

LIMITS = DecodeLimits()

Results = dict[str, dict[str, Any]]
"""For each library `wall_ms` and `cpu_ms` of every round, and `error` or the number of `wrong_frames`."""


def check_pixels(path: Path) -> tuple[DecodedVideo, bool]:
    """Decode a video with this project. Return it and whether every pixel equals that of a full decode."""
    planned = decode_video(path, SPEC, LIMITS, threads=usable_cores())
    views = Views(SPEC, planned.indices, crops=1)
    with path.open("rb") as file:
        full = decode_all(file, LIMITS, 1, views.take)
    same = all(np.array_equal(views.inputs[name], planned.inputs[name]) for name in views.inputs)
    return planned, same and full.video.frames == planned.video.frames


def run_rounds(job: DecodeJob, names: Sequence[str], rounds: int, processes: int = 1) -> Results:
    """Run a job with each library in turn, `rounds` times after an untimed one.

    Args:
        job: The job.
        names: Names of the libraries.
        rounds: Timed rounds.
        processes: Processes of each library that do the job at the same time.
    """
    results: Results = {name: {"wall_ms": [], "cpu_ms": []} for name in names}
    with ExitStack() as stack:
        workers = {name: [stack.enter_context(_worker(name)) for _ in range(processes)] for name in names}
        for number in range(rounds + 1):
            for name in names:
                if "error" not in results[name]:
                    answers = _answers(workers[name], job)
                    _record(results[name], answers, job, is_timed=number > 0)
    return results


@contextmanager
def _worker(name: str) -> Iterator[subprocess.Popen[str]]:
    """Start the process of a library, which ends with the context."""
    command = [sys.executable, "-m", "benchmarks.decode.libraries", name]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _answers(workers: Sequence[subprocess.Popen[str]], job: DecodeJob) -> list[dict[str, Any]]:
    """Send a job to all workers, then wait for all answers."""
    for process in workers:
        assert process.stdin
        process.stdin.write(json.dumps(asdict(job)) + "\n")
        process.stdin.flush()
    answers: list[dict[str, Any]] = []
    for process in workers:
        assert process.stdout
        line = process.stdout.readline()
        answers.append(json.loads(line) if line else {"error": "the process crashed"})
    return answers


def _record(
    result: dict[str, Any], answers: Sequence[dict[str, Any]], job: DecodeJob, *, is_timed: bool
) -> None:
    """Add a round: the longest wall time, the mean CPU time, errors and wrong frames."""
    for answer in answers:
        if "error" in answer:
            result["error"] = answer["error"]
            return
        if tuple(answer["numbers"]) != job.indices:
            pairs = zip(answer["numbers"], job.indices, strict=True)
            result["wrong_frames"] = sum(shown != wanted for shown, wanted in pairs)
    if is_timed:
        result["wall_ms"].append(max(answer["wall_ms"] for answer in answers))
        result["cpu_ms"].append(statistics.fmean(answer["cpu_ms"] for answer in answers))


def best_peer(results: Results) -> str | None:
    """Return the other library with the lowest median wall time among those that are right."""
    right = {
        name: statistics.median(result["wall_ms"])
        for name, result in results.items()
        if name != OURS and "error" not in result and "wrong_frames" not in result
    }
    return min(right, key=lambda name: right[name]) if right else None


def ratios(results: Results, peer: str, what: str) -> tuple[float, float, float]:
    """Return median, minimum and maximum of our times over the peer's, round by round."""
    pairs = zip(results[OURS][what], results[peer][what], strict=True)
    values = sorted(mine / theirs for mine, theirs in pairs)
    return statistics.median(values), values[0], values[-1]
