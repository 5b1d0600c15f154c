"""Normalisations folded into convolutions.

Batch normalisation in evaluation mode is a factor and an offset per channel, so it goes exactly into the
weights and bias of the convolution before it. The exporter would fold it too, but only after it has traced
and decomposed every layer: a third fewer layers save a quarter of its time.

Pixel normalisation goes into the first convolution, so that the graph takes pixels as they are. With mean m
and deviation s of pixels from 0 to 255, a convolution w of normalised pixels is

    w * ((x - m) / s) = (w / s) * (x - m)

so the division goes into the weights. The mean does not go into a bias: the convolution pads the normalised
pixels with zeros, and a bias would count m at the border too. One subtraction is exact everywhere.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model_export.networks.batch_norms import convolutions_with_norm
from model_export.networks.normalise import pixel_mean, pixel_std

Convolution = TypeVar("Convolution", nn.Conv2d, nn.Conv3d)


def fold_batch_norms(network: nn.Module) -> None:
    """Fold all batch normalisations of a network except those after the conv1 of a big-little stem."""
    for module in network.modules():
        for convolution, norm in convolutions_with_norm(module):
            folded = fold(getattr(module, convolution), getattr(module, norm))
            setattr(module, convolution, folded)
            setattr(module, norm, nn.Identity())


def fold(convolution: Convolution, norm: nn.Module) -> Convolution:
    """One convolution with the result of the two modules in sequence."""
    assert isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d)
    return fuse_conv_bn_eval(convolution, norm)


class PixelConvolution(nn.Module):
    """A first convolution on pixels from 0 to 255, with the pixel normalisation (module docstring)."""

    def __init__(self, convolution: nn.Conv2d | nn.Conv3d) -> None:
        super().__init__()
        shape = (1, -1, *(1,) * (convolution.weight.dim() - 2))
        with torch.no_grad():
            convolution.weight /= pixel_std().view(shape)
        self.convolution = convolution
        self.mean: Tensor
        self.register_buffer("mean", pixel_mean().view(shape))

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 (..., 3, H, W) -> the convolution of the normalised pixels."""
        return self.convolution(pixels.float() - self.mean)  # type: ignore[no-any-return]
