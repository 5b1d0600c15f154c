"""Mixup and CutMix: each clip of a batch is mixed with another one, and so are their targets.

Mixup: Zhang et al., arXiv 1710.09412. CutMix: Yun et al., arXiv 1905.04899, with the same box in every frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from model_export.training.config import Augmentation


def mix(
    inputs: Sequence[Tensor], targets: Tensor, strength: Augmentation, generator: torch.Generator
) -> tuple[list[Tensor], Tensor]:
    """Mix a batch with itself in reverse order, by one of the two methods if both are asked for.

    Args:
        inputs: for each input float32 `(N, T_branch, 3, S, S)`.
        targets: float32 `(N, C)`.
        strength: the parameters of the beta distributions; 0 leaves a method out.
        generator: on the CPU.

    Returns:
        The mixed inputs and targets.
    """
    alphas = [alpha for alpha in (strength.mixup, strength.cutmix) if alpha]
    if not alphas:
        return list(inputs), targets
    rng = np.random.default_rng(int(torch.randint(torch.iinfo(torch.int64).max, (), generator=generator)))
    cut = rng.random() < 0.5 if len(alphas) == 2 else bool(strength.cutmix)
    kept = rng.beta(strength.cutmix, strength.cutmix) if cut else rng.beta(strength.mixup, strength.mixup)
    if not cut:
        return [x.lerp(x.flip(0), 1 - kept) for x in inputs], targets.lerp(targets.flip(0), 1 - kept)
    # The box is determined in pixels of the smallest input, so that all inputs lose exactly the same part.
    side = min(x.shape[-1] for x in inputs)
    half = side * np.sqrt(1 - kept) / 2
    box = [
        (round(max(0.0, centre - half)), round(min(float(side), centre + half)))
        for centre in rng.uniform(0, side, 2)
    ]
    mixed = [_paste(x, box, side) for x in inputs]
    area = (box[0][1] - box[0][0]) * (box[1][1] - box[1][0]) / side**2
    return mixed, targets.lerp(targets.flip(0), area)


def _paste(x: Tensor, box: Sequence[tuple[int, int]], side: int) -> Tensor:
    """Replace the box, given in pixels of an input of `side`, by that of the clips in reverse order."""
    (left, right), (top, bottom) = ([round(edge * x.shape[-1] / side) for edge in edges] for edges in box)
    mixed = x.clone()
    mixed[..., top:bottom, left:right] = x.flip(0)[..., top:bottom, left:right]
    return mixed
