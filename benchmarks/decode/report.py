"""Markdown report of the decode benchmark on its own videos."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.common import report
from benchmarks.decode.libraries import LIBRARIES, OURS
from benchmarks.decode.rounds import best_peer, ratios


def as_text(document: dict[str, Any]) -> str:
    """Format the report."""
    return f"""# Decoding compared with other libraries

From a video file to the 16 sampled frames at 224 and 112 pixels: `python -m benchmarks.decode`.
Each library runs in its own process; rounds are interleaved. {library_versions(document["libraries"])}
{report.described_machine(document["machine"])}

## One video alone

{_against_best(document["videos"], "alone")}
Wall and CPU time are ratios to the fastest other library that returned the right frames: median (minimum to
maximum of the rounds). "Decoded" counts packets; "exact" means that every pixel equals a full sequential
decode.

{_milliseconds(document["videos"], "alone")}
Median wall time / CPU time in milliseconds; "wrong" counts those of the 16 frames that have another number.

## Two videos at once

Two processes of the same library decode the video at the same time; ours may use half of the cores.

{_against_best(document["videos"], "two_at_once")}
{_milliseconds(document["videos"], "two_at_once")}"""


def library_versions(libraries: dict[str, str | None]) -> str:
    """Format the versions of the other libraries and which are missing."""
    present = ", ".join(f"{name} {found}" for name, found in libraries.items() if found and name != OURS)
    missing = ", ".join(name for name, found in libraries.items() if found is None)
    return f"Libraries: {present}." + (f" Not installed: {missing}." if missing else "")


def _against_best(rows: Sequence[dict[str, Any]], mode: str) -> str:
    lines = []
    for row in rows:
        peer = best_peer(row[mode])
        figures = ["-", "-"]
        if peer:
            spreads = [ratios(row[mode], peer, what) for what in ("wall_ms", "cpu_ms")]
            figures = [f"{middle:.2f} ({least:.2f} to {most:.2f})" for middle, least, most in spreads]
        exact = "yes" if row["pixels_of_a_full_decode"] else "NO"
        lines.append((row["title"], f"{row['decoded']} of {row['packets']}", exact, peer or "none", *figures))
    return report.table(("video", "decoded", "exact", "fastest other", "wall", "CPU"), lines)


def _milliseconds(rows: Sequence[dict[str, Any]], mode: str) -> str:
    names = [name for name in LIBRARIES if name in rows[0][mode]]
    lines = [(row["title"], *(_cell(row[mode][name]) for name in names)) for row in rows]
    return report.table(("video", *names), lines)


def _cell(result: dict[str, Any]) -> str:
    if "error" in result:
        return "fails"
    wall, cpu = (statistics.median(result[what]) for what in ("wall_ms", "cpu_ms"))
    wrong = f", {result['wrong_frames']} wrong" if "wrong_frames" in result else ""
    return f"{wall:.0f} / {cpu:.0f}{wrong}"
