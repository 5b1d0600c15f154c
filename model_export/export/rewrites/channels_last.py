"""The graph variant for integer and float16 kernels, which keep frames channels last.

onnxruntime's integer kernels do, and so do tensor cores. Then (N * T, H, W, C) and (N, T, H * W, C) are the
same memory: a TAM over all frames of a clip is one depthwise convolution on a view and rounds once, where
frames in separate tensors would round after each tap and after each sum. The graph expresses the views as
transpositions, which cancel against those of the kernels.

Two operators are replaced, because onnxruntime has no fast integer kernel for them (together they took more
than a quarter of the time of bLVNet-TAM-50):

- average pooling, by a depthwise convolution whose weights are all 1 / k^2,
- doubling a map by the nearest pixel, by two concatenations of a tensor with itself: along the channels,
  where (h, w, 2 c) is (h, 2 w, c), then along the rows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_export.export.rewrites.constant_tam import TimeFilter
from model_export.networks.blvnet import BLVNet, EnlargeLike
from model_export.networks.resnet import FrameResNet


class ChannelsLastFilter(TimeFilter):
    """`TimeFilter` that reaches the time axis by a view of channels-last frames."""

    def forward(self, x: Tensor) -> Tensor:
        """(N * T, C, H, W) -> (N * T', C, H, W)."""
        if x.dim() == 5:
            return super().forward(x)
        _, channels, height, width = x.shape
        y = x.permute(0, 2, 3, 1).reshape(-1, self.frames, height * width, channels)
        y = self.filter(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # [N, T', H * W, C]
        # The memory layout of a convolution's result depends on the number of threads, but the exporter would
        # treat a reshape of it as a view. The reshape of a copy is always a view; the graph contains no copy.
        y = y.clone(memory_format=torch.contiguous_format)
        return y.reshape(-1, height, width, channels).permute(0, 3, 1, 2)


class AveragePoolConvolution(nn.Module):
    """`nn.AvgPool2d` that counts its padding, on a known number of channels, as a depthwise convolution."""

    def __init__(self, pool: nn.AvgPool2d, channels: int) -> None:
        super().__init__()
        assert pool.count_include_pad
        assert not pool.ceil_mode
        assert isinstance(pool.kernel_size, int)
        self.stride, self.padding, side = pool.stride, pool.padding, pool.kernel_size
        self.weight: Tensor
        self.register_buffer("weight", torch.full((channels, 1, side, side), 1.0 / side**2))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H', W')."""
        return F.conv2d(x, self.weight, stride=self.stride, padding=self.padding, groups=self.weight.shape[0])


class EnlargeByCopy(EnlargeLike):
    """`EnlargeLike` that copies instead of resizing."""

    def twofold(self, x: Tensor, time: list[int]) -> Tensor:
        """(N, C, h, w) -> (N, C, 2 h, 2 w)."""
        assert not time
        _, channels, height, width = x.shape
        y = x.permute(0, 2, 3, 1)  # [N, h, w, C]
        y = torch.cat((y, y), dim=3).reshape(-1, height, 2 * width * channels)
        y = torch.cat((y, y), dim=2).reshape(-1, 2 * height, 2 * width, channels)
        return y.permute(0, 3, 1, 2)


class ChannelsLastBLVNet(nn.Module):
    """bLVNet on uint8 inputs (N, T/2, H, W, 3) with replaced modules; reuses the modules of `network`."""

    def __init__(self, network: BLVNet, stem: nn.Module) -> None:
        super().__init__()
        self.stem = stem
        self.layers = nn.Sequential(network.layer1, network.layer2, network.layer3, network.layer4)
        self.moments = network.moments

    def forward(self, little: Tensor, big: Tensor) -> Tensor:
        """Features (N, T/2, F)."""
        x = self.layers(self.stem(little, big))  # [N * T/2, F, h, w]
        return x.mean(dim=(2, 3)).unflatten(0, (-1, self.moments))  # type: ignore[no-any-return]


class ChannelsLastResNet(nn.Module):
    """TSN-, TSM- or TAM-ResNet on uint8 frames (N, T, H, W, 3) with replaced modules.

    Args:
        network: the network, whose modules are reused.
        first: the first convolution, with the result (N * T, C, H / 2, W / 2).
    """

    def __init__(self, network: FrameResNet, first: nn.Module) -> None:
        super().__init__()
        self.conv1 = first
        self.layers = nn.Sequential(
            network.maxpool, network.layer1, network.layer2, network.layer3, network.layer4
        )
        self.frames = network.frames

    def forward(self, frames: Tensor) -> Tensor:
        """Features (N, T, F)."""
        x = self.layers(F.relu(self.conv1(frames)))
        return x.mean(dim=(2, 3)).unflatten(0, (-1, self.frames))  # type: ignore[no-any-return]
