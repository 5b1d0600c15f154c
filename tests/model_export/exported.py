"""A small checkpoint and its package from `blvnet export`: one real export for many tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_export.checkpoints.checkpoint import save_checkpoint
from tests.model_export.command import Result, blvnet
from tests.model_export.export.networks_for_export import small_network

SIZE = 32
ARCH = "blvnet-tam-mini-f2x2"
LABELS = ["red", "green", "blue", "up, then down", "nothing"]


@dataclass(frozen=True)
class SmallExport:
    """A checkpoint and its package."""

    checkpoint: Path
    models: Path
    result: Result

    @property
    def folder(self) -> Path:
        """The package folder."""
        return self.models / ARCH / "1"


def write_checkpoint(path: Path, training: dict[str, Any] | None = None, **changes: Any) -> Path:
    """Write a checkpoint of the small network; `changes` replace weights, None leaves one out."""
    network, config = small_network(ARCH, size=SIZE)
    weights = {**network.state_dict(), **{key.replace("__", "."): value for key, value in changes.items()}}
    kept = {key: value for key, value in weights.items() if value is not None}
    save_checkpoint(path, config, kept, training)
    return path


def export_small(folder: Path) -> SmallExport:
    """Export a checkpoint with complete training data into `folder`."""
    training = {"labels": LABELS, "dataset": "synthetic", "data": "/home/someone/data", "step": 7}
    checkpoint = write_checkpoint(folder / "best.pt", training)
    models = folder / "models"
    return SmallExport(
        checkpoint, models, blvnet("export", "--checkpoint", checkpoint, "--out", models, "--json")
    )
