"""Mixup, CutMix and RandAugment."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from model_export.training.augmentation.mixing import mix
from model_export.training.augmentation.rand_augment import (
    OPERATIONS,
    Operation,
    equalize,
    identity,
    posterize,
    rand_augment,
)
from model_export.training.config import Augmentation


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mixed(seed: int, **strength: float) -> tuple[list[Tensor], Tensor]:
    """Two clips, one all 0 of label 0, one all 1 of label 1, at two sizes."""
    inputs = [torch.stack([torch.zeros(2, 3, s, s), torch.ones(2, 3, s, s)]) for s in (16, 8)]
    chosen = Augmentation(**{**vars(Augmentation.none()), **strength})
    return mix(inputs, torch.eye(2), chosen, generator(seed))


@pytest.mark.parametrize("strength", [{"mixup": 1.0}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_targets_have_the_share_of_each_clip_that_is_shown(strength: dict[str, float]) -> None:
    shares = set()
    for seed in range(20):
        inputs, targets = mixed(seed, **strength)
        torch.testing.assert_close(targets.sum(1), torch.ones(2))
        for x in inputs:
            torch.testing.assert_close(x.mean(dim=(1, 2, 3, 4)), targets[:, 1])
        shares.add(round(float(targets[0, 1]), 3))
    assert len(shares) > 5


def test_cutmix_cuts_the_same_box_from_all_frames_and_mixup_none() -> None:
    for x in mixed(1, cutmix=1.0)[0]:
        assert set(x.flatten().tolist()) == {0.0, 1.0}
        assert torch.equal(x, x[:, :1].expand_as(x))
    assert all(len(set(x.flatten().tolist())) == 2 and x.min() > 0 for x in mixed(1, mixup=1.0)[0])


def test_nothing_is_mixed_by_default() -> None:
    inputs, targets = mixed(0)
    assert torch.equal(targets, torch.eye(2))
    assert inputs[0][0].max() == 0


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
@pytest.mark.parametrize("strength", [-1.0, 1.0])
def test_every_operation_keeps_shape_and_range(operation: Operation, strength: float) -> None:
    clip = torch.rand(2, 3, 12, 12, generator=generator(0))
    changed = operation(clip, strength)
    assert changed.shape == clip.shape
    assert changed.min() >= -1e-6
    assert changed.max() <= 1 + 1e-6
    assert torch.equal(changed, clip) == (operation is identity)


def test_clip_gets_the_same_operations_in_all_frames_and_whatever_the_process() -> None:
    still = torch.rand(4, 1, 3, 8, 8, generator=generator(0)).expand(4, 2, 3, 8, 8)
    (whole,) = rand_augment([still], torch.arange(4), 4, 2, 20.0, generator(3))
    (part,) = rand_augment([still[2:]], torch.tensor([2, 3]), 4, 2, 20.0, generator(3))
    assert torch.equal(whole[:, 0], whole[:, 1])
    assert torch.equal(whole[2:], part)
    assert not torch.equal(whole, still)


def test_equalized_ramp_of_few_levels_fills_the_range() -> None:
    clip = (torch.arange(16.0) / 64).reshape(1, 1, 4, 4).expand(1, 3, 4, 4)
    even = equalize(clip, 1.0)
    torch.testing.assert_close(even[0, 0].flatten(), torch.arange(16.0) / 15)
    assert torch.equal(equalize(torch.full((1, 3, 4, 4), 0.5), 1.0), torch.full((1, 3, 4, 4), 0.5))


def test_posterize_keeps_four_bits_at_full_strength() -> None:
    clip = (torch.arange(256.0) / 255).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert len(set(posterize(clip, 1.0).flatten().tolist())) == 16
