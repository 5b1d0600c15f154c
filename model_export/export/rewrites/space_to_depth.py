"""The first convolution on blocks of 2 x 2 pixels instead of single pixels (space to depth).

A k x k convolution with stride 2 on three channels is, exactly, a convolution with stride 1 and about half
the kernel on the twelve channels of 2 x 2 blocks. Output i reads rows 2i - p .. 2i + p, which are the blocks
i - ceil(p/2) .. i + floor(p/2), and a kernel that is one row short of whole blocks gets a row of zeros. 7 x 7
on 3 channels becomes 4 x 4 on 12.

Integer and float16 kernels fill their tiles from the channels. Three channels leave them nearly empty; twelve
do not, and take a third to half of the time. In float32, onnxruntime has a kernel for three channels that
runs at the machine's full rate, so there the convolution stays as it is.
"""

from __future__ import annotations

import copy

import torch.nn.functional as F
from torch import Tensor, nn

from model_export.export.rewrites.fold import PixelConvolution
from model_export.networks.normalise import pixel_mean, pixel_std

BLOCK = 2
SPACE = 2  # spatial axes at the end of a kernel


class FirstConvolution(nn.Module):
    """A first convolution on pixels from 0 to 255, with the pixel normalisation.

    It reads blocks where the sides of the frames are whole blocks, else pixels.

    Args:
        convolution: k x k with stride 2, or t x k x k in 3D, with padding that keeps the size.
    """

    def __init__(self, convolution: nn.Conv2d | nn.Conv3d) -> None:
        super().__init__()
        self.blocks = SpaceToDepthConvolution(convolution)
        self.pixels = PixelConvolution(copy.deepcopy(convolution))
        self.is_3d = isinstance(convolution, nn.Conv3d)

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 (N, T, H, W, 3) -> (N * T, C, H / 2, W / 2); in 3D (N, C, T, H / 2, W / 2)."""
        height, width = frames.shape[2:4]
        if height % BLOCK == 0 and width % BLOCK == 0:
            return self.blocks(frames)  # type: ignore[no-any-return]
        if self.is_3d:
            return self.pixels(frames.permute(0, 4, 1, 2, 3))  # type: ignore[no-any-return]
        return self.pixels(frames.flatten(0, 1).permute(0, 3, 1, 2))  # type: ignore[no-any-return]


class SpaceToDepthConvolution(nn.Module):
    """`FirstConvolution` on blocks; see the module docstring."""

    def __init__(self, convolution: nn.Conv2d | nn.Conv3d) -> None:
        super().__init__()
        half = convolution.kernel_size[-1] // 2
        before, after = -(-half // BLOCK), half // BLOCK
        assert not isinstance(convolution.padding, str)
        time: tuple[int, ...] = convolution.padding[:-SPACE]
        self.padding = (before, after, before, after, *time, *time)
        weight = convolution.weight.detach()
        weight = weight / pixel_std().view(1, -1, *(1,) * (weight.dim() - 2))
        self.weight = nn.Parameter(_blocked(weight, half, before, after), requires_grad=False)
        bias = convolution.bias
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)
        self.is_3d = bool(time)
        self.shift: Tensor
        self.register_buffer("shift", -pixel_mean().repeat(BLOCK * BLOCK))

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 (N, T, H, W, 3) -> (N * T, C, H / 2, W / 2); in 3D (N, C, T, H / 2, W / 2)."""
        _, moments, height, width, colours = frames.shape
        rows, columns = height // BLOCK, width // BLOCK
        if self.is_3d:
            x = frames.reshape(-1, moments, rows, BLOCK, columns, BLOCK * colours).permute(0, 3, 5, 1, 2, 4)
            x = x.reshape(-1, BLOCK * BLOCK * colours, moments, rows, columns)
            x = x.to(self.shift.dtype) + self.shift.view(1, -1, 1, 1, 1)
            return F.conv3d(F.pad(x, self.padding), self.weight, self.bias)
        x = frames.reshape(-1, rows, BLOCK, columns, BLOCK * colours).permute(0, 1, 3, 2, 4)
        x = x.reshape(-1, rows, columns, BLOCK * BLOCK * colours)
        # Added along a whole row at once: onnxruntime is slower the shorter the repeated axis is.
        x = x.to(self.shift.dtype) + self.shift.repeat(columns).view(1, 1, columns, -1)
        return F.conv2d(F.pad(x.permute(0, 3, 1, 2), self.padding), self.weight, self.bias)


def _blocked(weight: Tensor, half: int, before: int, after: int) -> Tensor:
    """(O, 3, ..., k, k) -> (O, 12, ..., k', k'), channels in the order row of the block, column, colour."""
    outputs, colours, *time, _, _ = weight.shape
    side = before + 1 + after
    lead, trail = BLOCK * before - half, BLOCK * after + 1 - half  # rows of zeros, up to whole blocks
    wide = F.pad(weight, (lead, trail) * SPACE).reshape(outputs, colours, *time, side, BLOCK, side, BLOCK)
    rows = 2 + len(time)
    order = (0, rows + 1, rows + 3, 1, *range(2, rows), rows, rows + 2)
    return wide.permute(order).reshape(outputs, BLOCK * BLOCK * colours, *time, side, side).contiguous()
