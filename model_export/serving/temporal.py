"""Temporal modules of a trained network as depthwise convolutions with constant weights.

Training keeps frames channels last, where the (N, C, T, H * W) image that a convolution over time wants is a
view; a graph is channels first, where it is one transposition away. All r taps in one r x 1 kernel, not a
1 x 1 convolution for each, leave a runtime one pass over memory, and integer arithmetic one rounding.

A form of the network (`form`) has its own way to that image: a subclass of `TimeFilter`.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from model_export.networks.temporal import fold_taps


class TimeFilter(nn.Module):
    """A depthwise convolution over time with constant weights, of frames in the batch axis, channels first.

    y[t] = sum_j taps[h + j] * x[t + j], j = -h .. h, with zeros beyond the ends, at t = start, start +
    stride, ... below T.

    Args:
        taps: (2h + 1, C); rows of zeros at the ends, which folding leaves, are cut off.
        frames: T.
        relu: whether a ReLU follows.
        stride: distance of two results in frames.
        start: the first frame with a result.
    """

    def __init__(
        self, taps: Tensor, frames: int, *, relu: bool = True, stride: int = 1, start: int = 0
    ) -> None:
        super().__init__()
        taps, before, after = _trimmed(taps.detach())
        length, channels = taps.shape
        last = start + (frames - 1 - start) // stride * stride
        self.crop = max(0, start - before)  # leading frames that no result reads
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
        y = self._convolve(x[:, :, self.crop :] if self.crop else x)
        return F.relu(y) if self.relu else y

    def _convolve(self, x: Tensor) -> Tensor:
        padded = F.pad(x, self.padding)
        return F.conv2d(padded, self.weight, stride=(self.stride, 1), groups=self.weight.shape[0])


class ConstantAggregation(nn.Module):
    """`TemporalAggregation` with taps (r, C) that no longer change; see there for what the methods do.

    Args:
        taps: (r, C).
        frames: T.
        relu: False for TSM.
        kind: how the form of the network filters over time.
    """

    def __init__(
        self, taps: Tensor, frames: int, *, relu: bool = True, kind: type[TimeFilter] = TimeFilter
    ) -> None:
        super().__init__()
        little, big = fold_taps(taps)
        self.whole = kind(taps, frames, relu=relu)
        self.even = kind(taps, frames, relu=relu, stride=2)
        self.odd = kind(taps, frames, relu=relu, stride=2, start=1) if frames > 1 else None
        self.little = kind(little, frames // 2, relu=relu)
        self.big = kind(big, frames // 2, relu=relu)

    def forward(self, x: Tensor) -> Tensor:
        """All frames in, all frames out."""
        return self.whole(x)  # type: ignore[no-any-return]

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """All frames in; even frames and odd frames out."""
        assert self.odd is not None
        return self.even(x), self.odd(x)

    def split_merged(self, merged: Tensor) -> tuple[Tensor, Tensor]:
        """Merged features of pairs in; even frames and odd frames out."""
        return self.little(merged), self.big(merged)


def _trimmed(taps: Tensor) -> tuple[Tensor, int, int]:
    """Taps from the first to the last that is used or the middle, and how far they reach back and ahead."""
    half = taps.shape[0] // 2
    used = taps.abs().amax(dim=1).nonzero().flatten().tolist()
    start, stop = min([half, *used]), max([half, *used]) + 1
    return taps[start:stop], half - start, stop - 1 - half
