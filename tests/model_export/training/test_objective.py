"""The training losses agree with torch's, in whole batches and in parts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from model_export.datasets import Example
from model_export.training.config import ClassWeights, TrainConfig
from model_export.training.objective import BinaryCrossEntropy, CrossEntropy

LABELS = torch.tensor([0, 2, 2, 1, 0, 2])
EXAMPLES = [Example(Path("x"), label) for label in (0, 0, 1, 2, 2, 2, 2, 2)]


def objective(
    smoothing: float = 0.0, weights: ClassWeights = ClassWeights.NONE, classes: int = 3
) -> CrossEntropy:
    config = TrainConfig(label_smoothing=smoothing, class_weights=weights)
    return CrossEntropy(classes, EXAMPLES, config, torch.device("cpu"))


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


SEVERAL = [
    Example(Path("x"), first, others=others) for first, others in ((0, (1,)), (0, ()), (0, (2,)), (1, ()))
]


def several(smoothing: float = 0.0, weights: ClassWeights = ClassWeights.NONE) -> BinaryCrossEntropy:
    config = TrainConfig(label_smoothing=smoothing, class_weights=weights)
    return BinaryCrossEntropy(4, SEVERAL, config, torch.device("cpu"))


@pytest.mark.parametrize(
    ("smoothing", "weights"),
    [(0.0, ClassWeights.NONE), (0.1, ClassWeights.NONE), (0.0, ClassWeights.BALANCED)],
)
def test_sums_of_parts_of_several_labels_are_the_mean_of_the_batch(
    smoothing: float, weights: ClassWeights
) -> None:
    loss = several(smoothing, weights)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 4, generator=generator)
    targets = loss.targets(torch.randint(2, (6, 4), generator=generator))
    total = loss.weight(targets)
    parts = [
        loss.loss(a, b) / total for a, b in zip(logits.tensor_split(2), targets.tensor_split(2), strict=True)
    ]
    smoothed = targets * (1 - smoothing) + smoothing / 2
    expected = F.binary_cross_entropy_with_logits(logits, smoothed, pos_weight=loss.weights)
    torch.testing.assert_close(torch.stack(parts).sum(), expected)


def test_balanced_weights_of_several_labels_are_the_clips_without_a_label_for_each_with_it() -> None:
    """Of four clips three have label 0, two have label 1, one has label 2 and none has label 3."""
    weights = several(weights=ClassWeights.BALANCED).weights
    torch.testing.assert_close(weights, torch.tensor([1 / 3, 2 / 2, 3 / 1, 4 / 1]))


def test_label_that_every_clip_has_keeps_a_weight() -> None:
    config = TrainConfig(class_weights=ClassWeights.BALANCED)
    weights = BinaryCrossEntropy(2, [Example(Path("x"), 0)] * 3, config, torch.device("cpu")).weights
    torch.testing.assert_close(weights, torch.tensor([1 / 3, 3.0]))
