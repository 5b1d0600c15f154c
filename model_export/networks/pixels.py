"""Pixel constants on their way into the graph: ImageNet's mean and deviation, used by every network."""

from __future__ import annotations

import torch
from torch import Tensor

# RGB, of pixels in 0 .. 1 (torchvision's values; the published checkpoints were trained with them).
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def normalise(frames: Tensor) -> Tensor:
    """uint8 RGB frames (N, T, H, W, 3) -> float32 (N, T, 3, H, W), mean 0 and deviation 1 on ImageNet.

    One multiply and one add per value, on the layout that the frames have; the result is a view whose
    frames are channels last, which the convolutions want.
    """
    mean = torch.tensor(MEAN, device=frames.device)
    std = torch.tensor(STD, device=frames.device)
    scaled = frames.float() * (1.0 / (255.0 * std)) - mean / std
    return scaled.permute(0, 1, 4, 2, 3)
