"""Training randomness, on whole batches in torch: a draw per clip, the same for all frames and both streams.

Everything spatial works in coordinates from -1 to 1, so a little frame and a big frame of the same clip move
alike whatever their sizes. Time is turned round on all T frames, before the streams take their even and odd
ones: frame k becomes frame T-1-k, so what the little branch then sees comes from odd positions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from model_export.datasets import Symmetry
from model_export.train_config import Augmentation
from service.clip.spec import InputSpec

GREY = 0.5
LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601
COLOUR_ORDERS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))


def augment(
    frames: Sequence[Tensor],
    labels: Tensor,
    inputs: Sequence[InputSpec],
    symmetry: Symmetry,
    strength: Augmentation,
    generator: torch.Generator,
) -> tuple[list[Tensor], Tensor]:
    """Random variants of a batch of clips.

    Args:
        frames: for each input, all T frames at its size, uint8 `(N, T, S, S, 3)`.
        labels: int64 `(N,)`.
        inputs: which of the T frames each input receives.
        symmetry: what mirroring and reversing make of each label.
        strength: how far to go.
        generator: on the CPU; every draw comes from it, so a state replays a batch.

    Returns:
        For each input float32 `(N, T_branch, 3, S, S)` from 0 to 1, and the labels that the variants have.
    """
    device = labels.device
    count, total = frames[0].shape[:2]
    reverse, labels = _choose(labels, symmetry.reversed, strength.reverse, generator)
    mirror, labels = _choose(labels, symmetry.mirrored, strength.mirror, generator)
    theta = _random_view(count, strength, generator).to(device)
    theta[:, 0, 0] = torch.where(mirror, -theta[:, 0, 0], theta[:, 0, 0])
    matrix, offset = (part.to(device) for part in _random_colour(count, strength, generator))
    box = _random_box(count, strength, generator).to(device)
    deviation = (torch.rand(count, generator=generator) * strength.noise).to(device)
    noises = _on(device, generator)
    streams = []
    for clip, spec in zip(frames, inputs, strict=True):
        stream = to_stream(turn_round(clip, reverse)[:, spec.of(total)])
        stream = recolour(view(stream, theta), matrix, offset)
        stream = cut_out(stream, box)
        noise = torch.randn(stream.shape, generator=noises, device=device)
        streams.append((stream + noise * _per_clip(deviation, stream)).clamp(0, 1))
    return streams, labels


def plain_streams(frames: Sequence[Tensor], inputs: Sequence[InputSpec]) -> list[Tensor]:
    """The same tensors as `augment`, with nothing changed: for validation."""
    total = frames[0].shape[1]
    return [to_stream(clip[:, spec.of(total)]) for clip, spec in zip(frames, inputs, strict=True)]


def to_stream(clip: Tensor) -> Tensor:
    """uint8 `(N, T, H, W, 3)` to float32 `(N, T, 3, H, W)` from 0 to 1."""
    return clip.permute(0, 1, 4, 2, 3).float().div(255)


def turn_round(clip: Tensor, reverse: Tensor) -> Tensor:
    """Play the clips where `reverse` (bool `(N,)`) is set backwards; `clip` is `(N, T, ...)`."""
    return torch.where(_per_clip(reverse, clip), clip.flip(1), clip)


def view(stream: Tensor, theta: Tensor) -> Tensor:
    """Each clip of `(N, T, 3, H, W)` seen through its affine map `theta (N, 2, 3)`; borders are reflected."""
    count, frames, channels, height, width = stream.shape
    flat = stream.reshape(count, frames * channels, height, width)
    grid = F.affine_grid(theta, list(flat.shape), align_corners=False)
    seen = F.grid_sample(flat, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return seen.reshape(stream.shape)


def recolour(stream: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """`matrix (N, 3, 3)` times each pixel of `(N, T, 3, H, W)`, plus `offset (N,)`, kept within 0 to 1."""
    mixed = torch.einsum("nij,ntjhw->ntihw", matrix, stream)
    return (mixed + _per_clip(offset, stream)).clamp(0, 1)


def cut_out(stream: Tensor, box: Tensor) -> Tensor:
    """Grey out of each clip the box `(N, 4)` = left, top, right, bottom in coordinates from -1 to 1."""
    height, width = stream.shape[-2:]
    left, top, right, bottom = box.unbind(1)
    x = _centres(width, stream.device)[None]
    y = _centres(height, stream.device)[None]
    inside_x = (x >= left[:, None]) & (x < right[:, None])
    inside_y = (y >= top[:, None]) & (y < bottom[:, None])
    inside = inside_y[:, None, None, :, None] & inside_x[:, None, None, None, :]
    return stream.masked_fill(inside, GREY)


def _on(device: torch.device, generator: torch.Generator) -> torch.Generator:
    """A generator on the device, which a number from the other determines.

    Noise for the hundred million values of a batch, drawn on a CPU, takes longer than a GPU's training step.
    """
    if device == generator.device:
        return generator
    seed = int(torch.randint(torch.iinfo(torch.int64).max, (), generator=generator))
    return torch.Generator(device).manual_seed(seed)


def _choose(
    labels: Tensor, table: tuple[int | None, ...], probability: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Which clips to transform, and the labels afterwards; never one whose label has no counterpart."""
    counterpart = torch.tensor([-1 if entry is None else entry for entry in table], device=labels.device)[
        labels
    ]
    drawn = (torch.rand(len(labels), generator=generator) < probability).to(labels.device)
    chosen = drawn & (counterpart >= 0)
    return chosen, torch.where(chosen, counterpart, labels)


def _random_view(count: int, strength: Augmentation, generator: torch.Generator) -> Tensor:
    """Affine maps `(N, 2, 3)`: zoom and shift for some clips, the identity for the others.

    Resampling blurs a little; clips that are left alone keep the network used to frames as they are served.
    """
    moved = (torch.rand(count, generator=generator) < strength.geometry).float()
    zoom = 1 + moved * strength.zoom * _symmetric(count, generator)
    shift = moved[:, None] * 2 * strength.shift * _symmetric((count, 2), generator)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = zoom
    theta[:, 1, 1] = zoom
    theta[:, :, 2] = shift
    return theta


def _random_colour(count: int, strength: Augmentation, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Matrices `(N, 3, 3)` and offsets `(N,)`: channel order, then saturation, brightness and contrast."""
    shuffled = torch.rand(count, generator=generator) < strength.shuffle_colours
    orders = torch.randint(len(COLOUR_ORDERS), (count,), generator=generator) * shuffled
    permutation = torch.eye(3)[torch.tensor(COLOUR_ORDERS)[orders]]  # [N, 3, 3]
    saturation = 1 + strength.saturation * _symmetric(count, generator)
    saturation[torch.rand(count, generator=generator) < strength.grey] = 0
    grey = torch.tensor(LUMINANCE).expand(3, 3)
    desaturate = saturation[:, None, None] * (torch.eye(3) - grey) + grey
    brightness = 1 + strength.brightness * _symmetric(count, generator)
    contrast = 1 + strength.contrast * _symmetric(count, generator)
    gain = (brightness * contrast)[:, None, None]
    return gain * desaturate @ permutation, GREY * (1 - contrast)


def _random_box(count: int, strength: Augmentation, generator: torch.Generator) -> Tensor:
    """Boxes `(N, 4)` in coordinates from -1 to 1; empty for the clips that keep every pixel."""
    cut = (torch.rand(count, generator=generator) < strength.cutout).float()[:, None]
    half = cut * strength.cutout_side * torch.rand((count, 2), generator=generator)
    centre = _symmetric((count, 2), generator)
    return torch.cat([centre - half, centre + half], dim=1)


def _symmetric(shape: int | tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Uniform draws from -1 to 1."""
    return torch.rand(shape, generator=generator) * 2 - 1


def _centres(side: int, device: torch.device) -> Tensor:
    """Coordinates of pixel centres along a side, from -1 to 1."""
    return (torch.arange(side, device=device) * 2 + 1) / side - 1


def _per_clip(values: Tensor, stream: Tensor) -> Tensor:
    """`(N,)` shaped to spread over the other axes of `stream`."""
    return values.reshape(-1, *[1] * (stream.dim() - 1))
