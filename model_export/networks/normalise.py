"""Normalisation of pixels by ImageNet's mean and standard deviation, which every network uses."""

from __future__ import annotations

import torch
from torch import Tensor

# RGB, of pixels from 0 to 1; torchvision's values, with which the published checkpoints were trained.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def normalise(frames: Tensor) -> Tensor:
    """uint8 RGB frames (N, T, H, W, 3) -> float32 (N, T, 3, H, W) of mean 0 and deviation 1 on ImageNet.

    The result is a view with channels last, the layout that the convolutions run fastest on.
    """
    mean = torch.tensor(MEAN, device=frames.device)
    std = torch.tensor(STD, device=frames.device)
    # One multiplication and one addition per value, before the permutation.
    scaled = frames.float() * (1.0 / (255.0 * std)) - mean / std
    return scaled.permute(0, 1, 4, 2, 3)


def pixel_mean() -> Tensor:
    """(3,) mean of pixels from 0 to 255."""
    return 255.0 * torch.tensor(MEAN)


def pixel_std() -> Tensor:
    """(3,) standard deviation of pixels from 0 to 255."""
    return 255.0 * torch.tensor(STD)
