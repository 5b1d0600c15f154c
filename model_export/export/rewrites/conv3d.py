"""The graph variant with time as a separate axis: every convolution is 3D, 1 x k x k.

A TAM is then a depthwise r x 1 x 1 convolution directly on the previous result: no reshape, no transposition
and no change of layout anywhere in the graph. OpenVINO's kernels run 2D and 3D at the same speed, and the
copies between layouts are saved, which otherwise take a third of the time or more. onnxruntime's 3D
convolutions are slow, so it has other variants.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from model_export.export.rewrites.constant_tam import ConstantAggregation, TimeFilter
from model_export.networks.blvnet import BLVNet
from model_export.networks.resnet import FrameResNet, I3DResNet
from model_export.networks.temporal import NoTemporalModule, TemporalAggregation, TemporalShift


class Conv3dBLVNet(nn.Module):
    """bLVNet in 3D on uint8 inputs (N, T/2, H, W, 3).

    Args:
        network: is taken apart.
        stem: gives the merged features (N, C, T/2, h, w).
    """

    def __init__(self, network: BLVNet, stem: nn.Module) -> None:
        super().__init__()
        self.stem = stem
        layers = (network.layer1, network.layer2, network.layer3, network.layer4)
        self.layers = nn.Sequential(*(to_3d(layer) for layer in layers))

    def forward(self, little: Tensor, big: Tensor) -> Tensor:
        """Features (N, T/2, F)."""
        return self.layers(self.stem(little, big)).mean(dim=(3, 4)).transpose(1, 2)  # type: ignore[no-any-return]


class Conv3dResNet(nn.Module):
    """TSN-, TSM-, TAM- and I3D-ResNet in 3D on uint8 frames (N, T, H, W, 3).

    Args:
        network: is taken apart.
        first: the first convolution, with the result (N, C, T, H / 2, W / 2).
    """

    def __init__(self, network: FrameResNet | I3DResNet, first: nn.Module) -> None:
        super().__init__()
        self.conv1 = first
        self.layers = to_3d(
            nn.Sequential(network.maxpool, network.layer1, network.layer2, network.layer3, network.layer4)
        )

    def forward(self, frames: Tensor) -> Tensor:
        """Features (N, T, F)."""
        return self.layers(F.relu(self.conv1(frames))).mean(dim=(3, 4)).transpose(1, 2)  # type: ignore[no-any-return]


class Conv3dFilter(TimeFilter):
    """`TimeFilter` on (N, C, T, H, W), without a reshape."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) -> (N, C, T', H, W)."""
        return self.filter(x)

    def convolve(self, x: Tensor) -> Tensor:
        """The convolution alone, with its padding."""
        padded = F.pad(x, (0, 0, *self.padding))
        weight = self.weight[..., None]
        return F.conv3d(padded, weight, stride=(self.stride, 1, 1), groups=weight.shape[0])


class FramePool(nn.Module):
    """`nn.AvgPool2d` that counts its padding, on each frame of (N, C, T, H, W)."""

    def __init__(self, pool: nn.AvgPool2d) -> None:
        super().__init__()
        assert pool.count_include_pad
        assert not pool.ceil_mode
        self.kernel, self.stride, self.padding = _with_time(pool)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) -> (N, C, T, H', W')."""
        padding = self.padding
        if min(x.shape[3:]) < self.kernel[-1]:  # PyTorch refuses such maps in 3D, even with padding
            side = padding[-1]
            x, padding = F.pad(x, (side, side, side, side)), (0, 0, 0)
        return F.avg_pool3d(x, self.kernel, self.stride, padding)


class Conv3dNoTemporalModule(nn.Module):
    """`NoTemporalModule` on (N, C, T, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the frames."""
        return x

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Even and odd frames."""
        return x[:, :, 0::2], x[:, :, 1::2]

    def split_merged(self, merged: Tensor) -> tuple[Tensor, Tensor]:
        """Both branches take the merged features."""
        return merged, merged


def to_3d(module: nn.Module) -> nn.Module:
    """A module on (N * T, C, H, W) as one on (N, C, T, H, W); one with children is changed in place."""
    match module:
        case TemporalAggregation() | TemporalShift():
            return ConstantAggregation(module, Conv3dFilter)
        case NoTemporalModule():
            return Conv3dNoTemporalModule()
        case nn.Conv2d():
            return convolution_to_3d(module)
        case nn.AvgPool2d():
            return FramePool(module)
        case nn.MaxPool2d():
            kernel, stride, padding = _with_time(module)
            return nn.MaxPool3d(kernel, stride, padding, ceil_mode=module.ceil_mode)
        case _:
            for name, child in module.named_children():
                setattr(module, name, to_3d(child))
            return module


def convolution_to_3d(flat: nn.Conv2d) -> nn.Conv3d:
    """A convolution of frames as one of (N, C, T, H, W), with the same weights."""
    height, width = flat.kernel_size
    assert not isinstance(flat.padding, str)
    deep = nn.Conv3d(
        flat.in_channels,
        flat.out_channels,
        (1, height, width),
        (1, flat.stride[0], flat.stride[1]),
        (0, flat.padding[0], flat.padding[1]),
        groups=flat.groups,
        bias=flat.bias is not None,
    )
    deep.weight = nn.Parameter(flat.weight.detach().unsqueeze(2))
    deep.bias = flat.bias
    return deep


Sides = tuple[int, int, int]


def _with_time(pool: nn.AvgPool2d | nn.MaxPool2d) -> tuple[Sides, Sides, Sides]:
    """Kernel, stride and padding of a pooling that leaves the time axis alone."""
    kernel, stride, padding = pool.kernel_size, pool.stride, pool.padding
    assert isinstance(kernel, int)
    assert isinstance(stride, int)
    assert isinstance(padding, int)
    return (1, kernel, kernel), (1, stride, stride), (0, padding, padding)
