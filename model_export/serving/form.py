"""The forms of a network that are exported: the same function of the same clip, each for other kernels.

| form | for | time | first convolution on |
|---|---|---|---|
| `BLOCKED` | onnxruntime in float32, whose layout is blocked | stem: a tensor for each frame | pixels |
| `CHANNELS_LAST` | onnxruntime in int8, GPUs in float16 | a view of channels-last frames | patches |
| `VOLUME` | OpenVINO, every precision | an axis of its own, convolutions in 3D | patches |

Each form takes the streams as they come decoded, uint8 (N, T_b, H, W, 3), and gives evidence (N, T', C).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from enum import StrEnum

from torch import Tensor, nn

from model_export.networks.blvnet import BLVNet, DualStem, Enlarged, SharedStem
from model_export.networks.pixels import MEAN
from model_export.networks.residual import Bottleneck
from model_export.networks.resnet import FrameResNet, I3DResNet
from model_export.networks.temporal import TemporalAggregation, TemporalShift, shift_taps
from model_export.serving.channels_last import (
    BoxFilter,
    ChannelsLastBLVNet,
    ChannelsLastFilter,
    ChannelsLastResNet,
    Doubled,
)
from model_export.serving.normalisation import fold, fold_normalisations
from model_export.serving.patches import FirstConvolution
from model_export.serving.pixels import PixelConvolution
from model_export.serving.stem import FramewiseStem, StreamedStem, fold_branches
from model_export.serving.temporal import ConstantAggregation, TimeFilter
from model_export.serving.volume import VolumeBLVNet, VolumeResNet, lift_children, lifted_convolution


class Form(StrEnum):
    """Which kernels the graph is written for; see the module's docstring."""

    BLOCKED = "blocked"
    CHANNELS_LAST = "channels-last"
    VOLUME = "volume"


def for_serving(network: nn.Module, form: Form = Form.BLOCKED) -> nn.Module:
    """A copy in evaluation mode that takes uint8 streams (N, T_b, H, W, 3) and gives the same evidence.

    Batch normalisation is in its convolutions.
    """
    serving = copy.deepcopy(network).eval()
    fold_normalisations(serving)
    match form, serving:
        case Form.BLOCKED, _:
            _replace(serving, TimeFilter)
            return Blocked(serving)
        case Form.CHANNELS_LAST, BLVNet():
            _replace_pools(serving)
            stem = _streamed(serving, FirstConvolution)
            _replace(serving, ChannelsLastFilter)
            return ChannelsLastBLVNet(serving, stem)
        case Form.CHANNELS_LAST, FrameResNet():
            first = FirstConvolution(serving.conv1)
            _replace(serving, ChannelsLastFilter)
            return ChannelsLastResNet(serving, first)
        case Form.VOLUME, BLVNet():
            stem = _streamed(serving, _volume_convolution)
            lift_children(stem.stem)
            return VolumeBLVNet(serving, stem)
        case Form.VOLUME, FrameResNet():
            return VolumeResNet(serving, _volume_convolution(serving.conv1))
        case _, I3DResNet():
            return VolumeResNet(serving, FirstConvolution(serving.conv1))
        case _:
            raise TypeError(f"there is no {form} form of {type(network).__name__}")


def _streamed(network: BLVNet, first: Callable[[nn.Conv2d], FirstConvolution]) -> StreamedStem:
    """The stem with the first convolution of each stream, its normalisation folded in, made by `first`."""
    stem = network.stem
    fold_branches(stem)
    little = first(fold(stem.conv1, stem.bn1))
    big = first(fold(stem.conv1, stem.big_bn1)) if isinstance(stem, DualStem) else little
    return StreamedStem(stem, (little, big))


def _volume_convolution(convolution: nn.Conv2d) -> FirstConvolution:
    return FirstConvolution(lifted_convolution(convolution))


class Blocked(nn.Module):
    """A network on streams as they come decoded, channels first in front of the first convolution."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *streams: Tensor) -> Tensor:
        """See `for_serving`."""
        return self.network(*(frames.permute(0, 1, 4, 2, 3) for frames in streams))  # type: ignore[no-any-return]


def _replace(module: nn.Module, kind: type[TimeFilter]) -> None:
    for name, child in module.named_children():
        form = _replacement(child, kind)
        if form is None:
            _replace(child, kind)
        else:
            setattr(module, name, form)


def _replacement(module: nn.Module, kind: type[TimeFilter]) -> nn.Module | None:
    """What stands for a module in the graph; None keeps it, and looks into it."""
    blocked = kind is TimeFilter
    match module:
        case SharedStem() | DualStem() if blocked:
            return FramewiseStem(module)
        case TemporalAggregation():
            return ConstantAggregation(module.taps, module.frames, relu=module.relu, kind=kind)
        case TemporalShift():
            return ConstantAggregation(shift_taps(module.channels), module.frames, relu=False, kind=kind)
        case nn.Conv2d() | nn.Conv3d() if blocked and module.in_channels == len(MEAN):
            return PixelConvolution(module)
        case Enlarged() if not blocked:
            return Doubled()
        case _:
            return None


def _replace_pools(network: nn.Module) -> None:
    """The average pooling of shortcuts as convolutions; a block knows how many channels arrive there."""
    for block in network.modules():
        if isinstance(block, Bottleneck) and isinstance(block.downsample, nn.Sequential):
            for name, child in block.downsample.named_children():
                if isinstance(child, nn.AvgPool2d):
                    channels = block.conv1.in_channels
                    assert isinstance(channels, int)
                    setattr(block.downsample, name, BoxFilter(child, channels))
