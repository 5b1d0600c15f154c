"""Temporal modules of a trained network as depthwise convolutions with constant weights.

Training keeps frames channels last, where the (N, C, T, H * W) image that a convolution over time wants is a
view; the graph is channels first, where it is one transposition away. All r taps in one r x 1 kernel, not a
1 x 1 convolution for each, leave a runtime one pass over memory, and integer arithmetic one rounding.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from model_export.networks.temporal import fold_taps


class TimeFilter(nn.Module):
    """A depthwise convolution over time with constant weights.

    y[t] = sum_j taps[h + j] * x[t + j], j = -h .. h, with zeros beyond the ends.

    Args:
        taps: (2h + 1, C); rows of zeros at the ends, which folding leaves, are cut off.
        frames: T.
        relu: whether a ReLU follows.
    """

    def __init__(self, taps: Tensor, frames: int, *, relu: bool = True) -> None:
        super().__init__()
        taps, before, after = _trimmed(taps.detach())
        length, channels = taps.shape
        self.padding = (0, 0, before, after)
        self.frames, self.relu = frames, relu
        self.weight: Tensor
        self.register_buffer("weight", taps.t().reshape(channels, 1, length, 1).clone())

    def forward(self, x: Tensor) -> Tensor:
        """(N * T, C, H, W) -> (N * T, C, H, W); also (N, C, T, H, W) -> (N, C, T, H, W)."""
        if x.dim() == 5:
            return self.filter(x.flatten(3)).reshape(-1, x.shape[1], self.frames, *x.shape[3:])
        _, channels, height, width = x.shape
        y = x.reshape(-1, self.frames, channels, height * width).transpose(1, 2)  # [N, C, T, H * W]
        return self.filter(y).transpose(1, 2).reshape(-1, channels, height, width)

    def filter(self, x: Tensor) -> Tensor:
        """(N, C, T, P) -> (N, C, T, P)."""
        y = F.conv2d(F.pad(x, self.padding), self.weight, groups=self.weight.shape[0])
        return F.relu(y) if self.relu else y


class ConstantAggregation(nn.Module):
    """`TemporalAggregation` with taps (r, C) that no longer change; see there for what the methods do."""

    def __init__(self, taps: Tensor, frames: int, *, relu: bool = True) -> None:
        super().__init__()
        self.whole = TimeFilter(taps, frames, relu=relu)
        little, big = fold_taps(taps)
        self.little = TimeFilter(little, frames // 2, relu=relu)
        self.big = TimeFilter(big, frames // 2, relu=relu)

    def forward(self, x: Tensor) -> Tensor:
        """All frames in, all frames out."""
        return self.whole(x)  # type: ignore[no-any-return]

    def split_merged(self, merged: Tensor) -> tuple[Tensor, Tensor]:
        """Merged features of pairs in; even frames and odd frames out."""
        return self.little(merged), self.big(merged)


def _trimmed(taps: Tensor) -> tuple[Tensor, int, int]:
    """Taps from the first to the last that is used or the middle, and how far they reach back and ahead."""
    half = taps.shape[0] // 2
    used = taps.abs().amax(dim=1).nonzero().flatten().tolist()
    start, stop = min([half, *used]), max([half, *used]) + 1
    return taps[start:stop], half - start, stop - 1 - half
