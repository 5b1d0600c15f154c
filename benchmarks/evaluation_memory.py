"""Peak memory of `blvnet evaluate` with many views.

    python -m benchmarks.evaluation_memory

A network with random weights, as memory does not depend on them, scores two drawn videos with the views of a
published protocol, ten clips and three crops. Each case runs in its own process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.common.report import RESULTS, described_machine, machine, table, write
from model_export.checkpoints.checkpoint import save_checkpoint
from model_export.networks.registry import build, parse_architecture
from model_export.progress import counting
from model_export.synthetic.encode import Encoding, write_video

NETWORKS = ("i3d-resnet-50-f32",)
LABELS = ("one", "two")
FRAMES, HEIGHT, WIDTH = 96, 256, 454
CLIPS, CROPS = 10, 3
GIGA = 1e9


def main(
    network: Annotated[list[str] | None, typer.Option(help="Architectures; by default I3D-50.")] = None,
    size: Annotated[int, typer.Option(help="Side of the input in pixels.")] = 256,
    results: Annotated[Path, typer.Option(help="Folder of the result files.")] = RESULTS,
) -> None:
    """Measure the peak memory of an evaluation and write the table."""
    names = network or list(NETWORKS)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, counting("evaluating", len(names)) as tick:
        data = Path(folder)
        write_videos(data)
        for name in names:
            rows.append({"network": name, "size": size} | measure(name, size, data))
            tick(1)
    facts = machine()
    head = ("network", "side", "views of each video", "peak memory", "seconds a video")
    body = [
        (
            f"`{row['network']}`",
            f"{row['size']}",
            f"{CLIPS * CROPS}",
            f"{row['peak_memory_bytes'] / GIGA:.2f} GB",
            f"{row['seconds'] / row['clips']:.0f}",
        )
        for row in rows
    ]
    text = (
        "Peak resident memory of `blvnet evaluate --clips 10 --crops 3` on a CPU, everything included.\n\n"
        f"{table(head, body)}\n{described_machine(facts)}\n"
    )
    write("evaluation_memory", {"machine": facts, "cases": rows}, text, results)


def write_videos(data: Path) -> None:
    """Write two videos of moving noise, in folders named after their labels."""
    for index, label in enumerate(LABELS):
        folder = data / "val" / label
        folder.mkdir(parents=True)
        scene = np.random.default_rng(index).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        frames = np.stack([np.roll(scene, 2 * frame, axis=1) for frame in range(FRAMES)])
        write_video(folder / "video.mp4", frames, Encoding("h264", Fraction(24), 28, 0, 24))


def measure(name: str, size: int, data: Path) -> dict[str, Any]:
    """Evaluate a network with random weights in a new process; return the command's measurements."""
    config = parse_architecture(name, num_classes=len(LABELS), size=size)
    save_checkpoint(data / "network.pt", config, build(config).state_dict(), {"labels": list(LABELS)})
    command = [sys.executable, "-c", "from service.cli import main; main()", "evaluate"]
    options = ["--dataset", "folder", "--data", data, "--split", "val", "--checkpoint", data / "network.pt"]
    views = ["--clips", CLIPS, "--crops", CROPS, "--json"]
    done = subprocess.run(
        [*command, *map(str, options), *map(str, views)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    document = json.loads(done.stdout)
    return {key: document[key] for key in ("clips", "seconds", "peak_memory_bytes")}


if __name__ == "__main__":
    typer.run(main)
