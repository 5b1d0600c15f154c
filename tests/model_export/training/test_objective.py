"""The training loss agrees with torch's, in whole batches and in parts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from model_export.datasets import Example
from model_export.training.config import ClassWeights, TrainConfig
from model_export.training.objective import Objective

LABELS = torch.tensor([0, 2, 2, 1, 0, 2])
EXAMPLES = [Example(Path("x"), label) for label in (0, 0, 1, 2, 2, 2, 2, 2)]


def objective(
    smoothing: float = 0.0, weights: ClassWeights = ClassWeights.NONE, classes: int = 3
) -> Objective:
    config = TrainConfig(label_smoothing=smoothing, class_weights=weights)
    return Objective(classes, EXAMPLES, config, torch.device("cpu"))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", list(ClassWeights))
def test_sums_of_parts_are_the_mean_of_the_batch(smoothing: float, weights: ClassWeights) -> None:
    loss = objective(smoothing, weights)
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    targets = loss.targets(LABELS)
    total = loss.weight(targets)
    parts = [
        loss.loss(a, b) / total for a, b in zip(logits.tensor_split(2), targets.tensor_split(2), strict=True)
    ]
    expected = F.cross_entropy(logits, LABELS, weight=loss.weights, label_smoothing=smoothing)
    torch.testing.assert_close(torch.stack(parts).sum(), expected)


def test_balanced_weights_give_every_label_the_same_total() -> None:
    weights = objective(weights=ClassWeights.BALANCED).weights
    torch.testing.assert_close(weights * torch.tensor([2.0, 1.0, 5.0]), torch.full((3,), 8 / 3))


def test_label_without_clips_weighs_as_much_as_one_with_a_single_clip() -> None:
    weights = objective(weights=ClassWeights.BALANCED, classes=4).weights
    assert weights[3] == weights[1]
