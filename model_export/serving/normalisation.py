"""Batch normalisation inside the convolutions in front of it.

In evaluation it is a factor and an offset for each channel, so it goes into weights and bias exactly. The
exporter would fold it too, but traces and decomposes every layer first: a third fewer of them saves a quarter
of its time.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model_export.networks.residual import BasicBlock, Bottleneck
from model_export.networks.resnet import FrameResNet, I3DResNet

Convolution = TypeVar("Convolution", nn.Conv2d, nn.Conv3d)
# What has a `bn1` behind its `conv1`, and so on. In a big-little stem two may stand behind one convolution.
NUMBERED = (BasicBlock, Bottleneck, FrameResNet, I3DResNet)


def fold_normalisations(network: nn.Module) -> None:
    """Fold those of blocks, shortcuts and a plain stem; where they stood nothing is done any more."""
    for module in network.modules():
        for convolution, norm in _pairs(module):
            folded = fold(getattr(module, convolution), getattr(module, norm))
            setattr(module, convolution, folded)
            setattr(module, norm, nn.Identity())


def fold(convolution: Convolution, norm: nn.Module) -> Convolution:
    """One convolution that gives what both give in a row."""
    assert isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d)
    return fuse_conv_bn_eval(convolution, norm)


def _pairs(module: nn.Module) -> list[tuple[str, str]]:
    """Names of a convolution and of the normalisation right behind it."""
    names = [name for name, _ in module.named_children()]
    if isinstance(module, NUMBERED):
        return [(name, f"bn{name.removeprefix('conv')}") for name in names if name.startswith("conv")]
    if isinstance(module, nn.Sequential):
        return [
            (before, behind)
            for before, behind in pairwise(names)
            if isinstance(module.get_submodule(behind), nn.BatchNorm2d | nn.BatchNorm3d)
        ]
    return []
