"""Small networks with weights that matter everywhere, and clips for them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from model_export.config import ModelConfig
from model_export.networks.names import build, parse_architecture
from service.clip.spec import ClipSpec
from tests.golden.weights import fill

CLASSES = 5


def small_network(name: str, size: int = 64) -> tuple[nn.Module, ModelConfig]:
    """A network in evaluation mode, its weights made by formula: no normalisation or tap is trivial."""
    config = parse_architecture(name, num_classes=CLASSES, size=size)
    network = build(config).eval()
    network.load_state_dict({key: _filled(key, value) for key, value in network.state_dict().items()})
    return network, config


def _filled(key: str, value: Tensor) -> Tensor:
    """Taps are made as in the published layout, (C, 1, 1, 1) each: as a matrix they would be next to zero."""
    if not key.endswith("taps"):
        return torch.from_numpy(fill(key, tuple(value.shape)))
    taps = [fill(f"{key}.{row}", (value.shape[1], 1, 1, 1)) for row in range(value.shape[0])]
    return torch.from_numpy(np.stack(taps)).reshape(value.shape)


def noise_clips(clip: ClipSpec, count: int, seed: int = 0) -> list[Tensor]:
    """For each input uint8 (count, T_b, size, size, 3): large patches, other ones in each frame, and noise.

    Patches make clips differ behind all pooling; noise shows a mistake in any pixel.
    """
    generator = torch.Generator().manual_seed(seed)
    return [_noise((count, *item.shape(clip.frames)), generator) for item in clip.inputs]


def _noise(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    count, frames, size, _, colours = shape
    patches = torch.randint(0, 200, (count * frames, colours, 2, 2), generator=generator).float()
    large = interpolate(patches, size=(size, size)).permute(0, 2, 3, 1).reshape(shape)
    return (large + torch.randint(0, 56, shape, generator=generator)).to(torch.uint8)
