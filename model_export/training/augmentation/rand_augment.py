"""RandAugment (Cubuk et al., arXiv 1909.13719): operations drawn at random, with one common magnitude.

The operations and their ranges are those of torchvision. A clip gets the same operations in all its frames
and inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_MAGNITUDE = 30.0
GREY = 0.5
LEVELS = 256
LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601

Operation = Callable[[Tensor, float], Tensor]
"""Pixels of a clip, `(T, 3, H, W)` in 0..1, and a signed strength in -1..1, to new pixels."""


def rand_augment(
    inputs: Sequence[Tensor],
    rows: Tensor,
    count: int,
    operations: int,
    magnitude: float,
    generator: torch.Generator,
) -> list[Tensor]:
    """Apply operations to each clip of a batch.

    Args:
        inputs: for each input float32 `(n, T_branch, 3, S, S)` in 0..1.
        rows: which of the clips of the step these are, int64 `(n,)`.
        count: the clips of the step, for which operations are drawn.
        operations: number of operations for each clip.
        magnitude: 0 to `MAX_MAGNITUDE`.
        generator: on the CPU.
    """
    drawn = torch.randint(len(OPERATIONS), (count, operations), generator=generator)[rows].tolist()
    signs = (torch.randint(2, (count, operations), generator=generator) * 2 - 1)[rows].tolist()
    changed = []
    for x in inputs:
        clips = list(x)
        for row, clip in enumerate(clips):
            for operation, sign in zip(drawn[row], signs[row], strict=True):
                clip = OPERATIONS[operation](clip, sign * magnitude / MAX_MAGNITUDE)
            clips[row] = clip
        changed.append(torch.stack(clips) if clips else x)
    return changed


def identity(x: Tensor, _strength: float) -> Tensor:
    """Change nothing."""
    return x


def shear_x(x: Tensor, strength: float) -> Tensor:
    """Shear by up to 0.3 along the rows."""
    return _mapped(x, [[1.0, 0.3 * strength, 0.0], [0.0, 1.0, 0.0]])


def shear_y(x: Tensor, strength: float) -> Tensor:
    """Shear by up to 0.3 along the columns."""
    return _mapped(x, [[1.0, 0.0, 0.0], [0.3 * strength, 1.0, 0.0]])


def translate_x(x: Tensor, strength: float) -> Tensor:
    """Move by up to 150/331 of the width."""
    return _mapped(x, [[1.0, 0.0, 2 * 150 / 331 * strength], [0.0, 1.0, 0.0]])


def translate_y(x: Tensor, strength: float) -> Tensor:
    """Move by up to 150/331 of the height."""
    return _mapped(x, [[1.0, 0.0, 0.0], [0.0, 1.0, 2 * 150 / 331 * strength]])


def rotate(x: Tensor, strength: float) -> Tensor:
    """Turn by up to 30 degrees."""
    cosine, sine = math.cos(math.radians(30 * strength)), math.sin(math.radians(30 * strength))
    return _mapped(x, [[cosine, -sine, 0.0], [sine, cosine, 0.0]])


def brightness(x: Tensor, strength: float) -> Tensor:
    """Multiply by a factor of 0.1 to 1.9."""
    return (x * (1 + 0.9 * strength)).clamp(0, 1)


def saturation(x: Tensor, strength: float) -> Tensor:
    """Move away from the grey clip, or towards it."""
    return _away_from(_grey(x), x, strength)


def contrast(x: Tensor, strength: float) -> Tensor:
    """Move away from the mean grey of each frame, or towards it."""
    return _away_from(_grey(x).mean(dim=(1, 2, 3), keepdim=True), x, strength)


def sharpness(x: Tensor, strength: float) -> Tensor:
    """Move away from the smoothed clip, or towards it; the border is unchanged."""
    kernel = torch.ones(3, 3, device=x.device)
    kernel[1, 1] = 5.0
    kernel = (kernel / kernel.sum()).expand(3, 1, 3, 3)
    smooth = x.clone()
    smooth[..., 1:-1, 1:-1] = F.conv2d(x, kernel, groups=3)
    return _away_from(smooth, x, strength)


def posterize(x: Tensor, strength: float) -> Tensor:
    """Keep 8 to 4 bits of each value."""
    step = 1 << round(4 * abs(strength))
    return (x * (LEVELS - 1)).round().div(step, rounding_mode="floor") * step / (LEVELS - 1)


def solarize(x: Tensor, strength: float) -> Tensor:
    """Invert the values from a threshold on."""
    return torch.where(x >= 1 - abs(strength), 1 - x, x)


def autocontrast(x: Tensor, _strength: float) -> Tensor:
    """Stretch each channel of each frame to 0..1."""
    low, high = x.amin(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
    return torch.where(high > low, (x - low) / (high - low).clamp(min=1 / LEVELS), x)


def equalize(x: Tensor, _strength: float) -> Tensor:
    """Give each channel of each frame an even histogram."""
    values = (x * (LEVELS - 1)).round().long().flatten(0, 1).flatten(1)  # [T * 3, H * W]
    counts = torch.zeros(len(values), LEVELS, device=x.device)
    counts.scatter_add_(1, values, torch.ones_like(values, dtype=counts.dtype))
    cumulated = counts.cumsum(1)
    lowest = torch.where(counts > 0, cumulated, cumulated[:, -1:]).amin(1, keepdim=True)
    table = (cumulated - lowest) / (cumulated[:, -1:] - lowest).clamp(min=1)
    even = table.gather(1, values).reshape(x.shape)
    flat = (cumulated[:, -1:] == lowest).reshape(*x.shape[:2], 1, 1)  # a single value is unchanged
    return torch.where(flat, x, even)


OPERATIONS: tuple[Operation, ...] = (
    identity, shear_x, shear_y, translate_x, translate_y, rotate, brightness, saturation, contrast, sharpness,
    posterize, solarize, autocontrast, equalize,
)  # fmt: skip


def _mapped(x: Tensor, theta: list[list[float]]) -> Tensor:
    """Map the frames by an affine map in coordinates from -1 to 1; grey comes in at the borders."""
    grid = F.affine_grid(torch.tensor([theta], device=x.device), [1, 3, *x.shape[-2:]], align_corners=False)
    grid = grid.expand(len(x), -1, -1, -1)
    return F.grid_sample(x - GREY, grid, mode="bilinear", padding_mode="zeros", align_corners=False) + GREY


def _away_from(base: Tensor, x: Tensor, strength: float) -> Tensor:
    """Multiply the difference to `base` by a factor of 0.1 to 1.9."""
    return (base + (x - base) * (1 + 0.9 * strength)).clamp(0, 1)


def _grey(x: Tensor) -> Tensor:
    """The luminance, (T, 1, H, W)."""
    weights = torch.tensor(LUMINANCE, device=x.device)[:, None, None]
    return (x * weights).sum(1, keepdim=True)
