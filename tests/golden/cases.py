"""Configurations with logits computed by the authors' implementations; see README.md in this folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tests.golden.weights import fill, frames

FOLDER = Path(__file__).parent
BLVNET_CASES = (
    "blvnet-tam-50-a2-b4-f8x2",
    "blvnet-tam-50-a2-b4-f8x2-blend5",
    "blvnet-tam-101-a2-b4-f8x2",
)
CASES = (*BLVNET_CASES, "tam-resnet-50-f8", "tsn-resnet-50-f8", "i3d-resnet-50-f8")
TOLERANCE = 1e-4  # relative to the largest logit; covers a different order of float32 sums


@dataclass(frozen=True)
class Golden:
    """A configuration; `name` is also its architecture on the command line."""

    name: str
    frames: int
    size: int
    seed: int
    parameters: int
    logits: npt.NDArray[np.float64]
    keys: tuple[tuple[str, tuple[int, ...]], ...]

    def weights(self) -> dict[str, Tensor]:
        """A state dict in the published layout."""
        return {key: torch.from_numpy(np.asarray(fill(key, shape))) for key, shape in self.keys}

    def clip(self) -> npt.NDArray[np.uint8]:
        """(T, S, S, 3) RGB."""
        return frames(self.frames, self.size, self.seed)

    def streams(self) -> list[npt.NDArray[np.uint8]]:
        """Inputs of the network for one clip: two of (1, T/2, S, S, 3), or one of (1, T, S, S, 3)."""
        clip = self.clip()[None]
        return [clip[:, 0::2], clip[:, 1::2]] if self.name in BLVNET_CASES else [clip]

    def difference(self, logits: npt.NDArray[Any]) -> float:
        """Largest difference of logits (C,) from the authors', relative to their largest."""
        return float(np.abs(logits - self.logits).max() / np.abs(self.logits).max())


def golden(name: str) -> Golden:
    """Read one case."""
    document = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    config = document["config"]
    return Golden(
        name=name,
        frames=config["frames"],
        size=config["size"],
        seed=config["clip_seed"],
        parameters=document["params"],
        logits=np.array(document["logits"]),
        keys=tuple((key, tuple(shape)) for key, shape in document["keys"]),
    )
