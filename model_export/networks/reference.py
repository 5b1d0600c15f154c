"""The plain forms: temporal modules word by word as the papers have them, slow and without any rewrite.

`plain` gives a network in this form with the same weights. It is what the folded taps are tested against,
and what benchmarks compare with.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_export.networks.temporal import TemporalAggregation


def plain(network: nn.Module) -> nn.Module:
    """A copy whose TAMs are plain and see the doubled sequence after each merge."""
    copied = copy.deepcopy(network)
    for name, module in list(copied.named_modules()):
        if isinstance(module, TemporalAggregation):
            copied.set_submodule(name, PlainAggregation(module))
    return copied


class PlainAggregation(nn.Module):
    """y[t] = relu(sum_j w_j * x[t + j]): each tap a 1 x 1 depthwise convolution, shifted, stacked, summed."""

    def __init__(self, source: TemporalAggregation) -> None:
        super().__init__()
        self.taps = source.taps
        self.frames = source.frames
        self.relu = source.relu

    def forward(self, x: Tensor) -> Tensor:
        """(N * T, C, H, W) -> the same; also (N, C, T, H, W)."""
        if x.dim() == 5:
            y: Tensor = self(x.transpose(1, 2).flatten(0, 1))
            return y.reshape(x.shape[0], self.frames, *y.shape[1:]).transpose(1, 2)
        half = self.taps.shape[0] // 2
        terms = [self._shifted(x, tap, index - half) for index, tap in enumerate(self.taps)]
        total = torch.stack(terms).sum(0).reshape(x.shape)
        return F.relu(total) if self.relu else total

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Aggregate all T frames, then take the even and the odd ones."""
        y = self(x)
        return y[0::2], y[1::2]

    def split_merged(self, merged: Tensor) -> tuple[Tensor, Tensor]:
        """Copy each merged map to both frames of its pair first, as the authors do."""
        return self.split(merged.repeat_interleave(2, dim=0))

    def _shifted(self, x: Tensor, tap: Tensor, offset: int) -> Tensor:
        """Every x[t + offset] times its weight, zeros beyond the ends; (N, T, C, H, W)."""
        weighted = F.conv2d(x, tap.reshape(-1, 1, 1, 1), groups=tap.shape[0])
        clips = weighted.reshape(-1, self.frames, *weighted.shape[1:])
        reach = min(abs(offset), self.frames)
        if offset > 0:
            return F.pad(clips[:, reach:], (0, 0, 0, 0, 0, 0, 0, reach))
        return F.pad(clips[:, : self.frames - reach], (0, 0, 0, 0, 0, 0, reach, 0))
