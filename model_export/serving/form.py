"""The form of a network that is exported: the same function of the same clip, without what training needs."""

from __future__ import annotations

import copy

from torch import nn

from model_export.networks.blvnet import DualStem, SharedStem
from model_export.networks.pixels import MEAN
from model_export.networks.temporal import TemporalAggregation, TemporalShift, shift_taps
from model_export.serving.pixels import PixelConvolution
from model_export.serving.stem import FramewiseStem
from model_export.serving.temporal import ConstantAggregation


def for_serving(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode that takes uint8 streams (N, T_b, 3, H, W) and gives the same evidence.

    Batch normalisation behind the stem stays: the exporter folds it, where what follows what is explicit.
    """
    serving = copy.deepcopy(network).eval()
    _replace(serving)
    return serving


def _replace(module: nn.Module) -> None:
    for name, child in module.named_children():
        form = _serving_form(child)
        if form is None:
            _replace(child)
        else:
            setattr(module, name, form)


def _serving_form(module: nn.Module) -> nn.Module | None:
    """What stands for a module in the graph; None keeps it, and looks into it."""
    match module:
        case SharedStem() | DualStem():
            return FramewiseStem(module)
        case TemporalAggregation():
            return ConstantAggregation(module.taps, module.frames, relu=module.relu)
        case TemporalShift():
            return ConstantAggregation(shift_taps(module.channels), module.frames, relu=False)
        case nn.Conv2d() | nn.Conv3d() if module.in_channels == len(MEAN):
            return PixelConvolution(module)
        case _:
            return None
