"""Exact rewrites between the network that trains and the graph that serves.

`for_serving` copies a network and replaces two kinds of modules; all others stay as they are:

- Temporal modules (TAM, TSM's shift, the plain split) become depthwise convolutions with constant weights.
  Training keeps frames channels last, where the (N, C, T, H * W) image that such a convolution wants is a
  view; the graph is channels first, where it is one transposition away.
- The first convolution takes the pixels as they are and normalises them. With mean m and deviation s of
  pixels in 0 .. 255, a convolution w of normalised pixels is

      w * ((x - m) / s) = (w / s) * (x - m)

  so the division goes into the weights. The mean does not go into a bias: the convolution pads with zeros
  behind the normalisation, where a bias would count m at the border too. One subtraction is exact everywhere.

Batch normalisation is folded in the written graph (`graph`), where what follows what is explicit.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_export.networks.pixels import MEAN, STD
from model_export.networks.temporal import (
    NoAggregation,
    TemporalAggregation,
    TemporalShift,
    fold_taps,
    shift_taps,
)


def for_serving(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode that takes uint8 streams (N, T_b, 3, H, W) and gives the same evidence."""
    serving = copy.deepcopy(network).eval()
    for name, module in list(serving.named_modules()):
        match module:
            case TemporalAggregation():
                serving.set_submodule(name, ConstantAggregation(module.taps, module.frames, relu=module.relu))
            case TemporalShift():
                serving.set_submodule(name, _constant_shift(module))
            case NoAggregation():
                serving.set_submodule(name, PlainSplit())
            case nn.Conv2d() | nn.Conv3d() if module.in_channels == len(MEAN):
                serving.set_submodule(name, PixelConvolution(module))
    return serving


class PixelConvolution(nn.Module):
    """The first convolution on pixels 0 .. 255, normalisation included (module docs)."""

    def __init__(self, convolution: nn.Conv2d | nn.Conv3d) -> None:
        super().__init__()
        spatial = (1,) * (convolution.weight.dim() - 2)
        with torch.no_grad():
            convolution.weight /= 255.0 * torch.tensor(STD).view(1, -1, *spatial)
        self.convolution = convolution
        self.mean: Tensor
        self.register_buffer("mean", 255.0 * torch.tensor(MEAN).view(1, -1, *spatial))

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 (..., 3, H, W) -> what the convolution gives on normalised pixels."""
        return self.convolution(pixels.float() - self.mean)  # type: ignore[no-any-return]


class TimeFilter(nn.Module):
    """A depthwise convolution over time with constant weights.

    y[i] = sum_k taps[k] * x[stride * i + first + k] with zeros beyond the ends, i = 0 .. frames / stride - 1.

    Args:
        taps: (K, C); rows of zeros at the ends, which folding leaves, are cut off.
        first: offset in time of the first tap.
        frames: T, length of the sequence that comes in.
        stride: in time.
        relu: whether a ReLU follows.
    """

    def __init__(self, taps: Tensor, first: int, frames: int, *, stride: int = 1, relu: bool = True) -> None:
        super().__init__()
        taps, first = _trimmed(taps.detach(), first)
        length, channels = taps.shape
        last = stride * (frames // stride - 1) + first + length - 1
        self.padding = (0, 0, -first, max(0, last - frames + 1))
        self.frames, self.stride, self.relu = frames, stride, relu
        self.weight: Tensor
        self.register_buffer("weight", taps.t().reshape(channels, 1, length, 1).clone())

    def forward(self, x: Tensor) -> Tensor:
        """(N * T, C, H, W) -> (N * T / stride, C, H, W); also (N, C, T, H, W) -> (N, C, T, H, W)."""
        if x.dim() == 5:
            return self.filter(x.flatten(3)).reshape(-1, x.shape[1], self.frames, *x.shape[3:])
        _, channels, height, width = x.shape
        y = x.reshape(-1, self.frames, channels, height * width).transpose(1, 2)  # [N, C, T, H * W]
        return self.filter(y).transpose(1, 2).reshape(-1, channels, height, width)

    def filter(self, x: Tensor) -> Tensor:
        """(N, C, T, P) -> (N, C, T / stride, P)."""
        x = F.pad(x, self.padding)
        y = F.conv2d(x, self.weight, stride=(self.stride, 1), groups=self.weight.shape[0])
        return F.relu(y) if self.relu else y


class ConstantAggregation(nn.Module):
    """`TemporalAggregation` with taps (r, C) that no longer change; see there for what the methods do."""

    def __init__(self, taps: Tensor, frames: int, *, relu: bool = True) -> None:
        super().__init__()
        half = taps.shape[0] // 2
        self.whole = TimeFilter(taps, -half, frames, relu=relu)
        if frames % 2 == 0:
            self.even = TimeFilter(taps, -half, frames, stride=2, relu=relu)
            self.odd = TimeFilter(taps, 1 - half, frames, stride=2, relu=relu)
            little, big = fold_taps(taps)
            reach = little.shape[0] // 2
            self.little = TimeFilter(little, -reach, frames // 2, relu=relu)
            self.big = TimeFilter(big, -reach, frames // 2, relu=relu)

    def forward(self, x: Tensor) -> Tensor:
        """All frames in, all frames out."""
        return self.whole(x)  # type: ignore[no-any-return]

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """All frames in; even frames and odd frames out."""
        return self.even(x), self.odd(x)

    def split_merged(self, merged: Tensor) -> tuple[Tensor, Tensor]:
        """Merged features of pairs in; even frames and odd frames out."""
        return self.little(merged), self.big(merged)


class PlainSplit(nn.Module):
    """`NoAggregation` by slices."""

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Even and odd frames of (N * T, C, H, W)."""
        pairs = x.reshape(-1, 2, *x.shape[1:])
        return pairs[:, :1].flatten(0, 1), pairs[:, 1:].flatten(0, 1)

    def split_merged(self, merged: Tensor) -> tuple[Tensor, Tensor]:
        """Both branches see the merged features."""
        return merged, merged


def _constant_shift(shift: TemporalShift) -> ConstantAggregation:
    return ConstantAggregation(shift_taps(shift.channels), shift.frames, relu=False)


def _trimmed(taps: Tensor, first: int) -> tuple[Tensor, int]:
    """Without rows of zeros at the ends, but from offset 0 or before, as padding cannot be negative."""
    used = taps.abs().amax(dim=1).nonzero().flatten().tolist() or [0]
    start, stop = used[0], used[-1] + 1
    if first + start > 0:
        return F.pad(taps[start:stop], (0, 0, first + start, 0)), 0
    return taps[start:stop], first + start
