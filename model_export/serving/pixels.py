"""Normalisation inside the first convolution, so that the graph takes the pixels as they are.

With mean m and deviation s of pixels in 0 .. 255, a convolution w of normalised pixels is

    w * ((x - m) / s) = (w / s) * (x - m)

so the division goes into the weights. The mean does not go into a bias: the convolution pads with zeros
behind the normalisation, where a bias would count m at the border too. One subtraction is exact everywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model_export.networks.pixels import MEAN, STD


class PixelConvolution(nn.Module):
    """A first convolution on pixels 0 .. 255, normalisation included (module docs)."""

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
