"""Small networks with weights that matter everywhere, and clips for them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model_export.config import ModelConfig
from model_export.networks.names import build, parse_architecture
from service.clip.spec import ClipSpec
from tests.golden.weights import fill

CLASSES = 5


def small_network(name: str, size: int = 64) -> tuple[nn.Module, ModelConfig]:
    """A network in evaluation mode, its weights made by formula: no normalisation or tap is trivial."""
    config = parse_architecture(name, num_classes=CLASSES, size=size)
    network = build(config).eval()
    network.load_state_dict(
        {key: torch.from_numpy(fill(key, tuple(value.shape))) for key, value in network.state_dict().items()}
    )
    return network, config


def noise_clips(clip: ClipSpec, count: int, seed: int = 0) -> list[Tensor]:
    """For each input uint8 (count, T_b, size, size, 3): noise shows every mistake of a pixel."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(count, *item.shape(clip.frames)) for item in clip.inputs]
    return [torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for shape in shapes]
