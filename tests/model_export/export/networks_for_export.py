"""Small networks in which every weight has an effect, and clips for them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from model_export.networks.config import ModelConfig
from model_export.networks.registry import build, parse_architecture
from model_export.networks.residual import VideoClassifier
from service.clip.spec import ClipSpec
from tests.golden.weights import fill

CLASSES = 5


def small_network(name: str, size: int = 64) -> tuple[VideoClassifier, ModelConfig]:
    """A network in evaluation mode with weights from a formula: no normalisation or tap is trivial."""
    config = parse_architecture(name, num_classes=CLASSES, size=size)
    network = build(config)
    network.eval()
    network.load_state_dict({key: _filled(key, value) for key, value in network.state_dict().items()})
    return network, config


def _filled(key: str, value: Tensor) -> Tensor:
    """Fill taps in the published layout, (C, 1, 1, 1) each: the formula makes matrices almost zero."""
    if not key.endswith("taps"):
        return torch.from_numpy(fill(key, tuple(value.shape)))
    taps = [fill(f"{key}.{row}", (value.shape[1], 1, 1, 1)) for row in range(value.shape[0])]
    return torch.from_numpy(np.stack(taps)).reshape(value.shape)


def noise_clips(clip: ClipSpec, count: int, seed: int = 0) -> list[Tensor]:
    """For each input uint8 (count, T_b, size, size, 3): large patches that change by frame, and noise.

    Patches make clips differ after all pooling; noise reveals a mistake in any pixel.
    """
    generator = torch.Generator().manual_seed(seed)
    return [_noise((count, *item.shape(clip.frames)), generator) for item in clip.inputs]


def _noise(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    count, frames, size, _, colours = shape
    patches = torch.randint(0, 200, (count * frames, colours, 2, 2), generator=generator).float()
    large = interpolate(patches, size=(size, size)).permute(0, 2, 3, 1).reshape(shape)
    return (large + torch.randint(0, 56, shape, generator=generator)).to(torch.uint8)
