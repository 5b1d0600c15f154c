"""Random augmentation of whole batches in torch: one draw for each clip, the same for its frames and inputs.

Spatial changes are computed in coordinates from -1 to 1, so a small and a large input of a clip change in the
same way. A clip is reversed before its inputs take their even and odd frames: frame k becomes frame T-1-k, so
the input of the even frames then shows frames that had odd positions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from model_export.datasets import Symmetry
from model_export.training.augmentation.rand_augment import LUMINANCE, rand_augment
from model_export.training.clips.batches import Batch
from model_export.training.config import Augmentation
from service.clip.spec import InputSpec

GREY = 0.5
COLOUR_ORDERS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))


def augment(
    batch: Batch,
    inputs: Sequence[InputSpec],
    symmetry: Symmetry,
    strength: Augmentation,
    generator: torch.Generator,
    count: int,
) -> tuple[list[Tensor], Tensor]:
    """Augment a batch of clips at random.

    Args:
        batch: all T frames of n clips for each input, and `rows`, which of the clips of the step they are.
        inputs: which of the T frames each input takes.
        symmetry: the labels of mirrored and reversed clips.
        strength: strengths of the changes.
        generator: on the CPU; its state determines every draw.
        count: the clips of the step. Draws are made for all of them, so a clip is changed in the same way
            whichever process it is in, and whether or not others can be read; only noise depends on that.

    Returns:
        For each input float32 `(n, T_branch, 3, S, S)` in 0..1, and the labels of the augmented clips.
    """
    device, rows, labels = batch.labels.device, batch.rows, batch.labels
    total = batch.frames[0].shape[1]
    reverse, labels = _choose(labels, symmetry.reversed, _chosen(count, strength.reverse, generator)[rows])
    mirror, labels = _choose(labels, symmetry.mirrored, _chosen(count, strength.mirror, generator)[rows])
    theta = _draw_affine(count, strength, generator)[rows].to(device)
    theta[:, 0, 0] = torch.where(mirror, -theta[:, 0, 0], theta[:, 0, 0])
    matrix, offset = (part[rows].to(device) for part in _draw_colours(count, strength, generator))
    box = _draw_boxes(count, strength, generator)[rows].to(device)
    deviation = (torch.rand(count, generator=generator)[rows] * strength.noise).to(device)
    # Noise is drawn where it is added: a CPU takes longer for the values of a batch than a GPU for the step.
    seed = int(torch.randint(torch.iinfo(torch.int32).max, (), generator=generator)) + int(rows[0])
    noise_generator = torch.Generator(device).manual_seed(seed)
    augmented = []
    for clips, spec in zip(batch.frames, inputs, strict=True):
        pixels = to_pixels(reverse_frames(clips, reverse)[:, spec.of(total)])
        if strength.geometry:
            pixels = transform(pixels, theta)
        elif strength.mirror:
            pixels = torch.where(_per_clip(mirror, pixels), pixels.flip(-1), pixels)
        if strength.recolours:
            pixels = recolour(pixels, matrix, offset)
        if strength.cutout:
            pixels = cut_out(pixels, box)
        if strength.noise:
            noise = torch.randn(pixels.shape, generator=noise_generator, device=device)
            pixels = (pixels + noise * _per_clip(deviation, pixels)).clamp(0, 1)
        augmented.append(pixels)
    if strength.rand_augment:
        magnitude = strength.rand_magnitude
        augmented = rand_augment(augmented, rows, count, strength.rand_augment, magnitude, generator)
    return augmented, labels


def plain_inputs(frames: Sequence[Tensor], inputs: Sequence[InputSpec]) -> list[Tensor]:
    """Return inputs and labels in the form of `augment`, but unchanged, for validation."""
    total = frames[0].shape[1]
    return [to_pixels(clips[:, spec.of(total)]) for clips, spec in zip(frames, inputs, strict=True)]


def to_pixels(clips: Tensor) -> Tensor:
    """uint8 `(N, T, H, W, 3)` -> float32 `(N, T, 3, H, W)` in 0..1."""
    return clips.permute(0, 1, 4, 2, 3).float().div(255)


def reverse_frames(clips: Tensor, reverse: Tensor) -> Tensor:
    """Reverse the clips `(N, T, ...)` where `reverse` (bool `(N,)`) is set."""
    return torch.where(_per_clip(reverse, clips), clips.flip(1), clips)


def transform(pixels: Tensor, theta: Tensor) -> Tensor:
    """Map each clip of `(N, T, 3, H, W)` by its affine map `theta (N, 2, 3)`; borders are reflected."""
    count, frames, channels, height, width = pixels.shape
    flat = pixels.reshape(count, frames * channels, height, width)
    grid = F.affine_grid(theta, list(flat.shape), align_corners=False)
    mapped = F.grid_sample(flat, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return mapped.reshape(pixels.shape)


def recolour(pixels: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """Multiply each pixel of `(N, T, 3, H, W)` by `matrix (N, 3, 3)`, add `offset (N,)`, clamp to 0..1."""
    mixed = torch.einsum("nij,ntjhw->ntihw", matrix, pixels)
    return (mixed + _per_clip(offset, pixels)).clamp(0, 1)


def cut_out(pixels: Tensor, box: Tensor) -> Tensor:
    """Fill a box of each clip with grey; `box (N, 4)` is left, top, right, bottom in -1..1."""
    height, width = pixels.shape[-2:]
    left, top, right, bottom = box.unbind(1)
    x = _pixel_centres(width, pixels.device)[None]
    y = _pixel_centres(height, pixels.device)[None]
    inside_x = (x >= left[:, None]) & (x < right[:, None])
    inside_y = (y >= top[:, None]) & (y < bottom[:, None])
    inside = inside_y[:, None, None, :, None] & inside_x[:, None, None, None, :]
    return pixels.masked_fill(inside, GREY)


def _chosen(count: int, probability: float, generator: torch.Generator) -> Tensor:
    """Choose some of `count` clips, bool `(N,)`."""
    return torch.rand(count, generator=generator) < probability


def _choose(labels: Tensor, table: tuple[int | None, ...], drawn: Tensor) -> tuple[Tensor, Tensor]:
    """Choose the drawn clips whose labels all have a counterpart; return them (bool) and the new labels."""
    drawn = drawn.to(labels.device)
    entries = torch.tensor([-1 if entry is None else entry for entry in table], device=labels.device)
    if labels.dim() == 1:
        counterpart = entries[labels]
        chosen = drawn & (counterpart >= 0)
        return chosen, torch.where(chosen, counterpart, labels)
    unknown = entries < 0
    chosen = drawn & ~labels[:, unknown].any(1)
    # A label without a counterpart stays in its column, which is 0 in every chosen clip.
    columns = torch.where(unknown, torch.arange(len(entries), device=labels.device), entries)
    changed = torch.zeros_like(labels).index_add_(1, columns, labels)
    return chosen, torch.where(chosen[:, None], changed, labels)


def _draw_affine(count: int, strength: Augmentation, generator: torch.Generator) -> Tensor:
    """Draw affine maps `(N, 2, 3)`: zoom and shift for some clips, the identity for the others.

    Resampling blurs a little. The unchanged clips keep the network used to frames as served.
    """
    moved = (torch.rand(count, generator=generator) < strength.geometry).float()
    zoom = 1 + moved * strength.zoom * _uniform(count, generator)
    shift = moved[:, None] * 2 * strength.shift * _uniform((count, 2), generator)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = zoom
    theta[:, 1, 1] = zoom
    theta[:, :, 2] = shift
    return theta


def _draw_colours(count: int, strength: Augmentation, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw matrices `(N, 3, 3)` and offsets `(N,)`: channel order, saturation, brightness, contrast."""
    shuffled = torch.rand(count, generator=generator) < strength.shuffle_colours
    orders = torch.randint(len(COLOUR_ORDERS), (count,), generator=generator) * shuffled
    permutation = torch.eye(3)[torch.tensor(COLOUR_ORDERS)[orders]]  # [N, 3, 3]
    saturation = 1 + strength.saturation * _uniform(count, generator)
    saturation[torch.rand(count, generator=generator) < strength.grey] = 0
    grey = torch.tensor(LUMINANCE).expand(3, 3)
    desaturate = saturation[:, None, None] * (torch.eye(3) - grey) + grey
    brightness = 1 + strength.brightness * _uniform(count, generator)
    contrast = 1 + strength.contrast * _uniform(count, generator)
    gain = (brightness * contrast)[:, None, None]
    return gain * desaturate @ permutation, GREY * (1 - contrast)


def _draw_boxes(count: int, strength: Augmentation, generator: torch.Generator) -> Tensor:
    """Draw boxes `(N, 4)` in coordinates from -1 to 1, empty for clips without a cutout."""
    cut = (torch.rand(count, generator=generator) < strength.cutout).float()[:, None]
    half = cut * strength.cutout_side * torch.rand((count, 2), generator=generator)
    centre = _uniform((count, 2), generator)
    return torch.cat([centre - half, centre + half], dim=1)


def _uniform(shape: int | tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw uniformly from -1 to 1."""
    return torch.rand(shape, generator=generator) * 2 - 1


def _pixel_centres(side: int, device: torch.device) -> Tensor:
    """Coordinates of the pixel centres along a side, in -1..1."""
    return (torch.arange(side, device=device) * 2 + 1) / side - 1


def _per_clip(values: Tensor, pixels: Tensor) -> Tensor:
    """Reshape `(N,)` to broadcast over the other axes of `pixels`."""
    return values.reshape(-1, *[1] * (pixels.dim() - 1))
