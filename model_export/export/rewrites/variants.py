"""Graph variants: the same function of a clip, written for the kernels of different engines.

| variant | for | time axis | first convolution on |
|---|---|---|---|
| `BLOCKED` | onnxruntime in float32, whose layout is blocked | in the stem, a tensor per frame | pixels |
| `CHANNELS_LAST` | onnxruntime in int8, GPUs in float16 | a view of channels-last frames | 2 x 2 blocks |
| `CONV3D` | OpenVINO in every precision | a separate axis, 3D convolutions | 2 x 2 blocks |

3D networks have time as an axis in every variant; `BLOCKED` differs only in the first convolution.
"""

from __future__ import annotations

import copy
from enum import StrEnum

from torch import Tensor, nn

from model_export.export.rewrites.channels_last import (
    AveragePoolConvolution,
    ChannelsLastBLVNet,
    ChannelsLastFilter,
    ChannelsLastResNet,
    EnlargeByCopy,
)
from model_export.export.rewrites.constant_tam import ConstantAggregation, TimeFilter
from model_export.export.rewrites.conv3d import Conv3dBLVNet, Conv3dResNet, convolution_to_3d, to_3d
from model_export.export.rewrites.fold import PixelConvolution, fold, fold_batch_norms
from model_export.export.rewrites.space_to_depth import FirstConvolution
from model_export.export.rewrites.stem import BatchedStem, FramewiseStem
from model_export.networks.blvnet import BLVNet, DualStem, EnlargeLike, SharedStem
from model_export.networks.normalise import MEAN
from model_export.networks.residual import Bottleneck, VideoClassifier
from model_export.networks.resnet import FrameResNet, I3DResNet
from model_export.networks.temporal import TemporalAggregation, TemporalShift


class GraphVariant(StrEnum):
    """The kernels that a graph is written for; see the module docstring."""

    BLOCKED = "blocked"
    CHANNELS_LAST = "channels-last"
    CONV3D = "conv3d"


def serving_network(network: VideoClassifier, variant: GraphVariant) -> nn.Module:
    """A copy in evaluation mode, from uint8 inputs (N, T_b, H, W, 3) to the features (N, T', F).

    Normalisations are folded into the convolutions.
    """
    copied = copy.deepcopy(network).eval()
    fold_batch_norms(copied)
    match variant, copied:
        case GraphVariant.BLOCKED, _:
            _replace_modules(copied, TimeFilter)
            return BlockedNetwork(copied)
        case GraphVariant.CHANNELS_LAST, BLVNet():
            _replace_pools(copied)
            stem = _batched_stem(copied, conv3d=False)
            _replace_modules(copied, ChannelsLastFilter)
            return ChannelsLastBLVNet(copied, stem)
        case GraphVariant.CHANNELS_LAST, FrameResNet():
            first = FirstConvolution(copied.conv1)
            _replace_modules(copied, ChannelsLastFilter)
            return ChannelsLastResNet(copied, first)
        case GraphVariant.CONV3D, BLVNet():
            stem = _batched_stem(copied, conv3d=True)
            to_3d(stem.stem)
            return Conv3dBLVNet(copied, stem)
        case GraphVariant.CONV3D, FrameResNet():
            return Conv3dResNet(copied, FirstConvolution(convolution_to_3d(copied.conv1)))
        case _, I3DResNet():
            return Conv3dResNet(copied, FirstConvolution(copied.conv1))
        case _:
            raise TypeError(f"{type(network).__name__} has no {variant} variant")


class BlockedNetwork(nn.Module):
    """A network on uint8 inputs (N, T_b, H, W, 3), channels first before the first convolution."""

    def __init__(self, network: VideoClassifier) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Tensor:
        """Features (N, T', F)."""
        return self.network.features(*(frames.permute(0, 1, 4, 2, 3) for frames in inputs))


def _batched_stem(network: BLVNet, *, conv3d: bool) -> BatchedStem:
    """The stem with a new first convolution for each input."""

    def first_convolution(norm: nn.Module) -> FirstConvolution:
        convolution = fold(stem.conv1, norm)
        return FirstConvolution(convolution_to_3d(convolution) if conv3d else convolution)

    stem = network.stem
    little = first_convolution(stem.bn1)
    return BatchedStem(
        stem, little, first_convolution(stem.big_bn1) if isinstance(stem, DualStem) else little
    )


def _replace_modules(module: nn.Module, filter_type: type[TimeFilter]) -> None:
    """Replace the modules that the variant writes differently, at any depth."""
    blocked = filter_type is TimeFilter
    for name, child in module.named_children():
        match child:
            case SharedStem() | DualStem() if blocked:
                setattr(module, name, FramewiseStem(child))
            case TemporalAggregation() | TemporalShift():
                setattr(module, name, ConstantAggregation(child, filter_type))
            case nn.Conv2d() | nn.Conv3d() if blocked and child.in_channels == len(MEAN):
                setattr(module, name, PixelConvolution(child))
            case EnlargeLike() if not blocked:
                setattr(module, name, EnlargeByCopy())
            case _:
                _replace_modules(child, filter_type)


def _replace_pools(network: nn.Module) -> None:
    """Replace the average pooling of shortcuts; a block knows the number of channels."""
    for block in network.modules():
        if isinstance(block, Bottleneck) and isinstance(block.downsample, nn.Sequential):
            for name, child in block.downsample.named_children():
                if isinstance(child, nn.AvgPool2d):
                    channels = block.conv1.in_channels
                    assert isinstance(channels, int)
                    setattr(block.downsample, name, AveragePoolConvolution(child, channels))
