"""Temporal aggregation exactly as in the paper, without folded taps or views: slow, and easy to check.

`unfold` gives a network in this form with the same weights. Tests compare the folded taps with it, and
benchmarks measure it.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_export.networks.temporal import TemporalAggregation


def unfold(network: nn.Module) -> nn.Module:
    """A copy whose TAMs take the doubled sequence after each merge."""
    copied = copy.deepcopy(network)
    for name, module in list(copied.named_modules()):
        if isinstance(module, TemporalAggregation):
            copied.set_submodule(name, UnfoldedAggregation(module))
    return copied


class UnfoldedAggregation(nn.Module):
    """y[t] = relu(sum_j w_j * x[t + j]): a 1 x 1 depthwise convolution per tap, shifted and summed."""

    def __init__(self, source: TemporalAggregation) -> None:
        super().__init__()
        self.taps = source.taps
        self.frames = source.frames
        self.relu = source.relu

    def forward(self, x: Tensor) -> Tensor:
        """(N * T, C, H, W) -> the same shape; also (N, C, T, H, W)."""
        if x.dim() == 5:
            y: Tensor = self(x.transpose(1, 2).flatten(0, 1))
            return y.reshape(x.shape[0], self.frames, *y.shape[1:]).transpose(1, 2)
        half = self.taps.shape[0] // 2
        terms = []
        for index, tap in enumerate(self.taps):
            weighted = F.conv2d(x, tap.reshape(-1, 1, 1, 1), groups=tap.shape[0])
            clips = weighted.reshape(-1, self.frames, *weighted.shape[1:])
            offset = index - half
            reach = min(abs(offset), self.frames)
            if offset > 0:
                terms.append(F.pad(clips[:, reach:], (0, 0, 0, 0, 0, 0, 0, reach)))
            else:
                terms.append(F.pad(clips[:, : self.frames - reach], (0, 0, 0, 0, 0, 0, reach, 0)))
        total = torch.stack(terms).sum(0).reshape(x.shape)
        return F.relu(total) if self.relu else total

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Aggregate all T frames, then take the even and the odd ones."""
        y = self(x)
        return y[0::2], y[1::2]

    def split_merged(self, merged: Tensor) -> tuple[Tensor, Tensor]:
        """Copy each merged map to both frames of its pair first, as the authors do."""
        return self.split(merged.repeat_interleave(2, dim=0))
