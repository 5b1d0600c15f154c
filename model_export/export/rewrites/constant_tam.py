"""Temporal modules of a trained network as depthwise convolutions with constant weights.

Training keeps frames channels last, so that the (N, C, T, H * W) image of a convolution over time is a view;
in a graph, which is channels first, it takes one transposition. All r taps are one r x 1 kernel instead of
r convolutions of 1 x 1: a runtime then passes over memory once, and integer arithmetic rounds once.

Each graph variant obtains that image with its own subclass of `TimeFilter`.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from model_export.networks.temporal import TemporalAggregation, TemporalShift, fold_taps, shift_taps


class TimeFilter(nn.Module):
    """A depthwise convolution over time with constant weights, of frames in the batch axis, channels first.

    y[t] = sum_j taps[h + j] * x[t + j], j = -h .. h, with zeros beyond the ends, at t = start, start +
    stride, ... below T.

    Args:
        taps: (2h + 1, C); rows of zeros at the ends, which folding leaves, are cut off.
        frames: T.
        relu: whether a ReLU follows.
        stride: distance between two results in frames.
        start: the first frame with a result.
    """

    def __init__(
        self, taps: Tensor, frames: int, *, relu: bool = True, stride: int = 1, start: int = 0
    ) -> None:
        super().__init__()
        taps = taps.detach()
        half = taps.shape[0] // 2
        used = taps.abs().amax(dim=1).nonzero().flatten().tolist()
        first, end = min([half, *used]), max([half, *used]) + 1  # the middle tap is always kept
        before, after = half - first, end - 1 - half
        taps = taps[first:end]
        length, channels = taps.shape
        last = start + (frames - 1 - start) // stride * stride
        self.crop = max(0, start - before)  # leading frames that no result depends on
        self.padding = (0, 0, max(0, before - start), max(0, after - (frames - 1 - last)))
        self.frames, self.relu, self.stride = frames, relu, stride
        self.weight: Tensor
        self.register_buffer("weight", taps.t().reshape(channels, 1, length, 1).clone())

    def forward(self, x: Tensor) -> Tensor:
        """(N * T, C, H, W) -> (N * T', C, H, W); also (N, C, T, H, W) -> (N, C, T', H, W)."""
        if x.dim() == 5:
            y = self.filter(x.flatten(3))
            return y.reshape(-1, *y.shape[1:3], *x.shape[3:])
        _, channels, height, width = x.shape
        y = x.reshape(-1, self.frames, channels, height * width).transpose(1, 2)  # [N, C, T, H * W]
        return self.filter(y).transpose(1, 2).reshape(-1, channels, height, width)

    def filter(self, x: Tensor) -> Tensor:
        """(N, C, T, P) -> (N, C, T', P)."""
        y = self.convolve(x[:, :, self.crop :] if self.crop else x)
        return F.relu(y) if self.relu else y

    def convolve(self, x: Tensor) -> Tensor:
        """The convolution alone, with its padding."""
        padded = F.pad(x, self.padding)
        return F.conv2d(padded, self.weight, stride=(self.stride, 1), groups=self.weight.shape[0])


class ConstantAggregation(nn.Module):
    """A temporal module with constant taps (r, C); its methods are those of `TemporalAggregation`.

    Args:
        module: a TAM, or a shift.
        filter_type: how the graph variant filters over time.
    """

    def __init__(self, module: TemporalAggregation | TemporalShift, filter_type: type[TimeFilter]) -> None:
        super().__init__()
        taps, relu = constant_taps(module)
        frames = module.frames
        little, big = fold_taps(taps)
        self.whole = filter_type(taps, frames, relu=relu)
        self.even = filter_type(taps, frames, relu=relu, stride=2)
        self.odd = filter_type(taps, frames, relu=relu, stride=2, start=1) if frames > 1 else None
        self.little = filter_type(little, frames // 2, relu=relu)
        self.big = filter_type(big, frames // 2, relu=relu)

    def forward(self, x: Tensor) -> Tensor:
        """Filter all frames."""
        return self.whole(x)  # type: ignore[no-any-return]

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """All frames -> even frames and odd frames."""
        assert self.odd is not None
        return self.even(x), self.odd(x)

    def split_merged(self, merged: Tensor) -> tuple[Tensor, Tensor]:
        """Merged features of pairs -> even frames and odd frames."""
        return self.little(merged), self.big(merged)


def constant_taps(module: TemporalAggregation | TemporalShift) -> tuple[Tensor, bool]:
    """The taps (r, C) of a temporal module, and whether a ReLU follows."""
    if isinstance(module, TemporalShift):
        return shift_taps(module.channels), False
    return module.taps.detach(), module.relu
