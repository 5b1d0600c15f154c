"""Labels that the base never saw: motions of `blvnet synth`, on bases that are made here.

- `trained_base`: trained from scratch on the other motions of `blvnet synth`.
- `deep_base`: 50 layers with random weights, for clips that become brighter or darker. It shows that a deep
  network can be a base, and how much a clip costs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.inference.plain import write_random_checkpoint
from benchmarks.stages import CLIP
from model_export.networks.registry import parse_architecture
from model_export.synthetic.encode import write_video

# Three pairs of motions that are each other's reverse.
UNSEEN = (
    "Moving something up", "Moving something down",
    "Opening something", "Closing something",
    "Moving two things together", "Moving two things apart",
)  # fmt: skip
ARCHITECTURE = "blvnet-tam-mini"
FRAMES, SIZE = 8, 48  # a quarter of the bundled network's cost, so that the base is trained in minutes
DEEP = "blvnet-tam-50-a2-b4-f8x2"
FADING_FRAMES = 32
SPLIT = "train=0.6,val=0.1,test=0.3"


def blvnet(*arguments: object) -> str:
    """Run a command of this installation, and return its standard output."""
    command = [sys.executable, "-c", "from service.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def motions(folder: Path, clips: int) -> tuple[Path, Path]:
    """Clips of all motions: a folder of the motions that the base learns, and one of the others.

    The second one has 60 % of its clips in `train`, and 30 % in `val`.
    """
    blvnet("synth", made := folder / "made", "--clips", clips, "--split", SPLIT)
    seen, unseen = folder / "seen", folder / "unseen"
    for split in ("train", "val", "test"):
        for label in sorted(path for path in (made / split).iterdir() if path.is_dir()):
            hidden = label.name in UNSEEN
            if hidden and split == "val":
                continue
            target = unseen / split.replace("test", "val") if hidden else seen / split
            target.mkdir(parents=True, exist_ok=True)
            (target / label.name).symlink_to(label.resolve())
    return seen, unseen


def trained_base(data: Path, folder: Path, epochs: int) -> Path:
    """Train a base on the labels of `data`, and return the folder of packages with it."""
    run, models = folder / "run", folder / "trained"
    blvnet(
        "train", "--dataset", "folder", "--data", data, "--arch", ARCHITECTURE, "--out", run,
        "--frames", FRAMES, "--size", SIZE, "--optimizer", "adamw", "--lr", 0.003, "--epochs", epochs,
        "--device", "cpu", "--workers", 1,
    )  # fmt: skip
    blvnet("export", "--checkpoint", run / "best.pt", "--out", models, "--name", "base")
    return models


def deep_base(folder: Path, labels: Sequence[str] = ("one", "other")) -> Path:
    """Export a network of 50 layers with random weights, and return the folder of packages with it."""
    checkpoint, models = folder / "deep.pt", folder / "deep"
    write_random_checkpoint(checkpoint, parse_architecture(DEEP, num_classes=len(labels)), labels)
    blvnet("export", "--checkpoint", checkpoint, "--out", models, "--name", "base")
    return models


def fading_clips(folder: Path, clips: int) -> Path:
    """Clips of a grey that becomes brighter, and of the same grey becoming darker."""
    random = np.random.default_rng(0)
    for label, order in (("brighter", 1), ("darker", -1)):
        (target := folder / "fading" / label).mkdir(parents=True)
        for number in range(clips):
            dark, bright = random.integers(20, 100), random.integers(150, 236)
            levels = np.linspace(dark, bright, FADING_FRAMES)[::order]
            noise = random.normal(0, 8, (FADING_FRAMES, 64, 64, 3))
            frames = np.clip(levels[:, None, None, None] + noise, 0, 255).astype(np.uint8)
            write_video(target / f"{number}.mp4", frames, CLIP)
    return folder / "fading"


def accuracy_of_base(models: Path, data: Path) -> float:
    """Top-1 of the base on the `test` clips of its own labels."""
    options = ("--models", models, "--model", "base", "--dataset", "folder", "--data", data, "--json")
    return float(json.loads(blvnet("evaluate", *options))["top1"])
