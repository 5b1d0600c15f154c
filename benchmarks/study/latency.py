"""The latency of each row's network, measured in turns: `python -m benchmarks.study --latency`.

It is measured apart from the training runs, most of which share the machine with another run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch

from benchmarks.common.report import machine
from benchmarks.study.plan import Row
from model_export.networks.registry import build, parse_architecture
from model_export.networks.residual import VideoClassifier
from model_export.progress import ProgressReporter
from model_export.training.preparation import use_channels_last

FILE = "latency.json"
ROUNDS = 9
PASSES = 15
LABELS = 24


def network_of(row: Row) -> str:
    """What decides a row's latency: rows with the same text share a measurement."""
    return f"{row.architecture}, {row.frames} frames of {row.size} pixels"


def measure_latencies(
    rows: Sequence[Row], folder: Path, reporter: ProgressReporter, rounds: int = ROUNDS
) -> None:
    """Measure the networks of the rows in interleaved rounds, and write the medians to `folder`."""
    networks = {network_of(row): row for row in rows}
    times: dict[str, list[float]] = {name: [] for name in networks}
    with reporter.count("latencies", rounds * len(networks)) as counter:
        for _ in range(rounds):
            for name, row in networks.items():
                times[name].append(_time_clip_ms(row))
                counter.advance(1)
    found = {name: round(median(values), 3) for name, values in times.items()}
    document = {"rounds": rounds, "passes": PASSES, "machine": machine(), "latency_ms": found}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def read_latencies(folder: Path) -> dict[str, float]:
    """Milliseconds by network; empty if they have not been measured."""
    path = folder / FILE
    if not path.exists():
        return {}
    found: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))["latency_ms"]
    return found


def _time_clip_ms(row: Row) -> float:
    """Median time of one clip in eager PyTorch, with the current number of threads."""
    config = parse_architecture(row.architecture, num_classes=LABELS, frames=row.frames, size=row.size)
    network: VideoClassifier = build(config, row.tam_init).eval()
    use_channels_last(network)
    clip = config.clip_spec()
    inputs = [torch.zeros(1, *item.shape(clip.frames)).permute(0, 1, 4, 2, 3) for item in clip.inputs]
    times = []
    with torch.inference_mode():
        network(*inputs)  # the first pass allocates memory
        for _ in range(PASSES):
            start = time.perf_counter()
            network(*inputs)
            times.append(time.perf_counter() - start)
    return 1e3 * median(times)
