"""Time and memory of a training step of bLVNet-TAM-50 8x2 on a CPU, ours and that of the authors' code.

The authors' code is a clone of https://github.com/IBM/bLVNet-TAM, which `--reference` names. Every
measurement runs in its own process; ours and theirs alternate. Ours is measured in float32, as theirs is
written, and in bfloat16, which is the default of `blvnet train` on CPUs with instructions for it. In all
processes glibc's allocator keeps freed memory, so that no step spends time on getting pages from the kernel
again. A training step is a forward and a backward pass on random clips and an SGD update.

On a machine with other load, compare the CPU time with one thread, which such load changes little.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from benchmarks.common.report import RESULTS, described_machine, machine, table, write
from benchmarks.training.step import ARCHITECTURE
from model_export.training.config import Amp

KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": "-1", "MALLOC_MMAP_MAX_": "0"}
THEIRS = "IBM/bLVNet-TAM"
OURS = {"this repository, float32": Amp.OFF, "this repository, bfloat16": Amp.BF16}


def main(
    reference: Annotated[
        Path | None, typer.Option(help="Clone of IBM/bLVNet-TAM; without it ours alone is measured.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Clips of a step.")] = 2,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each process, after one to warm up.")] = 3,
    repeats: Annotated[int, typer.Option(min=1, help="Processes for each network.")] = 2,
    out: Annotated[Path, typer.Option(help="Folder for the table.")] = RESULTS,
) -> None:
    """Measure training steps; the table goes to benchmarks/results."""
    console = Console(stderr=True)
    networks: dict[str, list[str]] = {name: ["--amp", amp.value] for name, amp in OURS.items()}
    if reference is not None:
        if not (reference / "core" / "models" / "blvnet_tam.py").exists():
            raise typer.BadParameter(f"{reference} is not a clone of https://github.com/IBM/bLVNet-TAM")
        networks = {THEIRS: ["--folder", str(reference)]} | networks
    common = ["--batch", str(batch), "--steps", str(steps), "--threads", str(threads)]
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in networks}
    for repeat in range(repeats):
        for name, options in networks.items():
            console.print(f"{name}, process {repeat + 1} of {repeats}")
            measured[name].append(measure([*common, *options]))
    figures = {name: summary(runs) for name, runs in measured.items()}
    document = {
        "machine": machine() | {"torch": torch.__version__},
        "architecture": ARCHITECTURE,
        "batch": batch,
        "threads": threads,
        "figures": figures,
        "runs": measured,
    }
    write("training", document, report(document), out)


def measure(options: list[str]) -> dict[str, Any]:
    """Run steps in a separate process.

    Raises:
        CalledProcessError: it failed; its errors are on standard error.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.training.step", *options],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | KEEP_MEMORY,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def summary(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Medians over the steps of all processes, and the median of their memory."""
    return {
        "cpu_s": statistics.median(seconds for run in runs for seconds in run["cpu_s"]),
        "wall_s": statistics.median(seconds for run in runs for seconds in run["wall_s"]),
        "peak_mb": statistics.median(run["peak_mb"] for run in runs),
    }


def report(document: dict[str, Any]) -> str:
    """The table."""
    figures = document["figures"]
    rows = [
        (name, f"{item['cpu_s']:.2f}", f"{item['wall_s']:.2f}", f"{item['peak_mb']:.0f}")
        for name, item in figures.items()
    ]
    text = (
        f"# Training step of {document['architecture']}\n\n"
        f"A batch of {document['batch']} clips of 224 x 224 pixels, {document['threads']} thread(s). "
        "Medians; memory is the largest of the process.\n\n"
        + table(("code", "CPU seconds", "seconds", "MB"), rows)
    )
    if THEIRS in figures:
        theirs = figures[THEIRS]
        text += "".join(
            f"\n{name[0].upper()}{name[1:]}, takes {figures[name]['cpu_s'] / theirs['cpu_s']:.2f} of the CPU "
            f"time of {THEIRS} and {figures[name]['peak_mb'] / theirs['peak_mb']:.2f} of the memory.\n"
            for name in OURS
        )
    facts = document["machine"]
    return text + f"\n{described_machine(facts)} torch {facts['torch']}.\n"
