"""The first convolution on patches of 2 x 2 pixels instead of single ones.

A k x k convolution with stride 2 on three channels is, exactly, a convolution with stride 1 and about half
the kernel on the twelve channels of 2 x 2 patches: output i reads rows 2i - p .. 2i + p, that is the
patches i - ceil(p/2) .. i + floor(p/2), and a kernel that is one row short of whole patches gets a row of
zeros. 7 x 7 on 3 channels becomes 4 x 4 on 12.

Integer and half precision kernels fill their tiles from the channels: three leave them nearly empty, twelve
do not, and take half to a third of the time. In float32 onnxruntime has a kernel for three channels that runs
at the machine's full rate, so there the convolution stays as it is.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_export.networks.pixels import MEAN, STD
from model_export.serving.pixels import PixelConvolution

PATCH = 2
SPACE = 2  # axes at the end of a kernel


class FirstConvolution(nn.Module):
    """A first convolution on pixels 0 .. 255, normalisation included.

    On patches where the frames' sides are whole patches, else on pixels.

    Args:
        convolution: k x k with stride 2, or t x k x k in three dimensions, and padding that keeps the size.
    """

    def __init__(self, convolution: nn.Conv2d | nn.Conv3d) -> None:
        super().__init__()
        self.patches = PatchConvolution(convolution)
        self.pixels = PixelConvolution(copy.deepcopy(convolution))
        self.volume = isinstance(convolution, nn.Conv3d)

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 (N, T, H, W, 3) -> (N * T, C, H / 2, W / 2); in three dimensions (N, C, T, H / 2, W / 2)."""
        height, width = frames.shape[2:4]
        if height % PATCH == 0 and width % PATCH == 0:
            return self.patches(frames)  # type: ignore[no-any-return]
        if self.volume:
            return self.pixels(frames.permute(0, 4, 1, 2, 3))  # type: ignore[no-any-return]
        return self.pixels(frames.flatten(0, 1).permute(0, 3, 1, 2))  # type: ignore[no-any-return]


class PatchConvolution(nn.Module):
    """`FirstConvolution` on patches; see the module's docstring."""

    def __init__(self, convolution: nn.Conv2d | nn.Conv3d) -> None:
        super().__init__()
        half = convolution.kernel_size[-1] // 2
        before, after = -(-half // PATCH), half // PATCH
        assert not isinstance(convolution.padding, str)
        time: tuple[int, ...] = convolution.padding[:-SPACE]
        self.padding = (before, after, before, after, *time, *time)
        weight = convolution.weight.detach() / (255.0 * _colours(STD, convolution.weight.dim()))
        self.weight = nn.Parameter(_patched(weight, half, before, after), requires_grad=False)
        bias = convolution.bias
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)
        self.volume = bool(time)
        self.shift: Tensor
        self.register_buffer("shift", -255.0 * torch.tensor(MEAN).repeat(PATCH * PATCH))

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 (N, T, H, W, 3) -> (N * T, C, H / 2, W / 2); in three dimensions (N, C, T, H / 2, W / 2)."""
        _, moments, height, width, colours = frames.shape
        rows, columns = height // PATCH, width // PATCH
        if self.volume:
            x = frames.reshape(-1, moments, rows, PATCH, columns, PATCH * colours).permute(0, 3, 5, 1, 2, 4)
            x = x.reshape(-1, PATCH * PATCH * colours, moments, rows, columns)
            x = x.to(self.shift.dtype) + self.shift.view(1, -1, 1, 1, 1)
            return F.conv3d(F.pad(x, self.padding), self.weight, self.bias)
        x = frames.reshape(-1, rows, PATCH, columns, PATCH * colours).permute(0, 1, 3, 2, 4)
        x = x.reshape(-1, rows, columns, PATCH * PATCH * colours)
        # Along a whole row at once: the shorter the axis that is repeated, the slower onnxruntime adds it.
        x = x.to(self.shift.dtype) + self.shift.repeat(columns).view(1, 1, columns, -1)
        return F.conv2d(F.pad(x.permute(0, 3, 1, 2), self.padding), self.weight, self.bias)


def _colours(values: tuple[float, ...], dimensions: int) -> Tensor:
    return torch.tensor(values).view(1, -1, *(1,) * (dimensions - 2))


def _patched(weight: Tensor, half: int, before: int, after: int) -> Tensor:
    """(O, 3, ..., k, k) -> (O, 12, ..., k', k'), channels in the order row of the patch, column, colour."""
    outputs, colours, *time, _, _ = weight.shape
    side = before + 1 + after
    lead, trail = PATCH * before - half, PATCH * after + 1 - half  # rows of zeros, up to whole patches
    wide = F.pad(weight, (lead, trail) * SPACE).reshape(outputs, colours, *time, side, PATCH, side, PATCH)
    rows = 2 + len(time)
    order = (0, rows + 1, rows + 3, 1, *range(2, rows), rows, rows + 2)
    return wide.permute(order).reshape(outputs, PATCH * PATCH * colours, *time, side, side).contiguous()
