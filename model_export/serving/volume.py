"""The serving form with time as an axis of its own: every convolution in three dimensions, 1 x k x k.

A frame's convolution is then a volume's with a kernel one frame deep, and a TAM is a depthwise r x 1 x 1
convolution right on what the last one gave: no reshape, no transposition, no other layout anywhere in the
graph. OpenVINO's kernels run both at the same speed, and what it otherwise spends on copies between layouts,
a third of the time and more, is saved. onnxruntime's convolutions in three dimensions are slow, so it keeps
the other forms.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from model_export.networks.blvnet import BLVNet
from model_export.networks.resnet import FrameResNet, I3DResNet
from model_export.networks.temporal import (
    NoAggregation,
    TemporalAggregation,
    TemporalShift,
    shift_taps,
)
from model_export.serving.temporal import ConstantAggregation, TimeFilter


class VolumeBLVNet(nn.Module):
    """bLVNet in three dimensions: uint8 streams (N, T / 2, H, W, 3) -> evidence (N, T / 2, classes).

    Args:
        network: is taken apart.
        stem: gives merged features (N, C, T / 2, h, w).
    """

    def __init__(self, network: BLVNet, stem: nn.Module) -> None:
        super().__init__()
        self.stem = stem
        layers = (network.layer1, network.layer2, network.layer3, network.layer4)
        self.layers = nn.Sequential(*(lifted(layer) for layer in layers))
        self.fc = network.fc

    def forward(self, little: Tensor, big: Tensor) -> Tensor:
        """See the class."""
        return _classified(self.layers(self.stem(little, big)), self.fc)


class VolumeResNet(nn.Module):
    """TSN-, TSM-, TAM- and I3D-ResNet in three dimensions: uint8 (N, T, H, W, 3) -> evidence (N, T, classes).

    Args:
        network: is taken apart.
        first: the first convolution, which gives (N, C, T, H / 2, W / 2).
    """

    def __init__(self, network: FrameResNet | I3DResNet, first: nn.Module) -> None:
        super().__init__()
        self.conv1 = first
        self.layers = lifted(
            nn.Sequential(network.maxpool, network.layer1, network.layer2, network.layer3, network.layer4)
        )
        self.fc = network.fc

    def forward(self, frames: Tensor) -> Tensor:
        """See the class."""
        return _classified(self.layers(F.relu(self.conv1(frames))), self.fc)


def _classified(x: Tensor, classifier: nn.Linear) -> Tensor:
    """Features (N, C, T, h, w) -> evidence (N, T, classes)."""
    x = x.mean(dim=(3, 4)).transpose(1, 2)  # [N, T, C]
    # As a matrix, so that the classifier's weights are those of the other forms.
    return classifier(x.flatten(0, 1)).unflatten(0, (-1, x.shape[1]))  # type: ignore[no-any-return]


class VolumeFilter(TimeFilter):
    """`TimeFilter` on volumes (N, C, T, H, W), without a reshape."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) -> (N, C, T', H, W)."""
        return self.filter(x)

    def _convolve(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (0, 0, *self.padding))
        weight = self.weight[..., None]
        return F.conv3d(padded, weight, stride=(self.stride, 1, 1), groups=weight.shape[0])


class VolumePool(nn.Module):
    """`nn.AvgPool2d` that counts its padding, on volumes, each frame by itself."""

    def __init__(self, pool: nn.AvgPool2d) -> None:
        super().__init__()
        assert pool.count_include_pad
        assert not pool.ceil_mode
        self.kernel, self.stride, self.padding = _deep(pool)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) -> (N, C, T, H', W')."""
        padding = self.padding
        if min(x.shape[3:]) < self.kernel[-1]:  # which PyTorch refuses in three dimensions, padding or not
            side = padding[-1]
            x, padding = F.pad(x, (side, side, side, side)), (0, 0, 0)
        return F.avg_pool3d(x, self.kernel, self.stride, padding)


class NoVolumeAggregation(nn.Module):
    """`NoAggregation` on volumes."""

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Even and odd frames."""
        return x[:, :, 0::2], x[:, :, 1::2]

    def split_merged(self, merged: Tensor) -> tuple[Tensor, Tensor]:
        """Both branches see the merged features."""
        return merged, merged


def lifted(module: nn.Module) -> nn.Module:
    """A module on frames (N * T, C, H, W) as one on volumes (N, C, T, H, W); one with children is changed."""
    form = _volume_of(module)
    if form is None:
        lift_children(module)
        return module
    return form


def lift_children(module: nn.Module) -> None:
    """Replace what a module consists of by the same on volumes."""
    for name, child in module.named_children():
        setattr(module, name, lifted(child))


def _volume_of(module: nn.Module) -> nn.Module | None:
    """What stands for a module in three dimensions; None where its children decide."""
    match module:
        case TemporalAggregation():
            return ConstantAggregation(module.taps, module.frames, relu=module.relu, kind=VolumeFilter)
        case TemporalShift():
            taps = shift_taps(module.channels)
            return ConstantAggregation(taps, module.frames, relu=False, kind=VolumeFilter)
        case NoAggregation():
            return NoVolumeAggregation()
        case nn.Conv2d():
            return lifted_convolution(module)
        case nn.AvgPool2d():
            return VolumePool(module)
        case nn.MaxPool2d():
            kernel, stride, padding = _deep(module)
            return nn.MaxPool3d(kernel, stride, padding, ceil_mode=module.ceil_mode)
        case _:
            return None


def lifted_convolution(flat: nn.Conv2d) -> nn.Conv3d:
    """A convolution of frames as one of volumes, with the same weights."""
    height, width = _sides(flat.kernel_size)
    volume = nn.Conv3d(
        flat.in_channels,
        flat.out_channels,
        (1, height, width),
        (1, *_sides(flat.stride)),
        (0, *_sides(flat.padding)),
        groups=flat.groups,
        bias=flat.bias is not None,
    )
    volume.weight = nn.Parameter(flat.weight.detach().unsqueeze(2))
    volume.bias = flat.bias
    return volume


def _sides(pair: tuple[int, ...] | str) -> tuple[int, int]:
    assert not isinstance(pair, str)
    height, width = pair
    return height, width


Sides = tuple[int, int, int]


def _deep(pool: nn.AvgPool2d | nn.MaxPool2d) -> tuple[Sides, Sides, Sides]:
    """Kernel, stride and padding with an axis of time that is left alone."""
    kernel, stride, padding = pool.kernel_size, pool.stride, pool.padding
    assert isinstance(kernel, int)
    assert isinstance(stride, int)
    assert isinstance(padding, int)
    return (1, kernel, kernel), (1, stride, stride), (0, padding, padding)
