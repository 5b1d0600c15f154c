"""The training loss: cross-entropy of videos with one label each, binary cross-entropy with several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from model_export.datasets import Example, Listing
from model_export.training.config import ClassWeights, TrainConfig


class Objective(Protocol):
    """A loss whose sums over parts of a batch add up to its mean over the batch."""

    def targets(self, labels: Tensor) -> Tensor:
        """Labels, as a `Batch` has them, as float32 probabilities (N, C) before smoothing."""
        ...

    def weight(self, targets: Tensor) -> Tensor:
        """The total weight of targets (N, C), by which the sums of `loss` are divided."""
        ...

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The weighted sum over a part of a batch: logits (n, C) in float32 and targets (n, C)."""
        ...


def make_objective(listing: Listing, config: TrainConfig, device: torch.device) -> Objective:
    """The loss for the videos of a training split.

    Args:
        listing: the split, which determines balanced weights.
        config: label smoothing and the kind of weights.
        device: of the targets.
    """
    kind = BinaryCrossEntropy if listing.multi_label else CrossEntropy
    return kind(len(listing.labels), listing.examples, config, device)


class CrossEntropy:
    """Cross-entropy with soft targets, label smoothing and weights of the labels.

    Args:
        classes: C.
        examples: the training split.
        config: label smoothing and the kind of weights.
        device: of the targets.
    """

    def __init__(
        self, classes: int, examples: Sequence[Example], config: TrainConfig, device: torch.device
    ) -> None:
        self.classes = classes
        self.smoothing = config.label_smoothing
        weights = torch.ones(classes)
        if config.class_weights is ClassWeights.BALANCED:
            # A label without clips gets the weight of a label with one.
            weights = len(examples) / (classes * _label_counts(classes, examples).clamp(min=1))
        self.weights = weights.to(device)

    def targets(self, labels: Tensor) -> Tensor:
        """Labels, int64 (N,), as probabilities (N, C) before smoothing."""
        return F.one_hot(labels, self.classes).float()

    def weight(self, targets: Tensor) -> Tensor:
        """See `Objective`."""
        return (targets * self.weights).sum()

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """See `Objective`."""
        smoothed = (
            targets * (1 - self.smoothing) + targets.sum(1, keepdim=True) * self.smoothing / self.classes
        )
        return -(smoothed * self.weights * F.log_softmax(logits, dim=1)).sum()


class BinaryCrossEntropy:
    """Binary cross-entropy of each label separately, averaged over clips and labels.

    Label smoothing moves each target towards one half. Balanced weights multiply the loss of a label where
    it is present by the number of training clips without it for each clip with it.

    Args:
        classes: C.
        examples: the training split.
        config: label smoothing and the kind of weights.
        device: of the targets.
    """

    def __init__(
        self, classes: int, examples: Sequence[Example], config: TrainConfig, device: torch.device
    ) -> None:
        self.smoothing = config.label_smoothing
        weights = torch.ones(classes)
        if config.class_weights is ClassWeights.BALANCED:
            counts = _label_counts(classes, examples)
            # A label that every clip has, or none, must not get a weight of 0 or infinity.
            weights = (len(examples) - counts).clamp(min=1) / counts.clamp(min=1)
        self.weights = weights.to(device)

    def targets(self, labels: Tensor) -> Tensor:
        """Labels, (N, C) of zeros and ones, as probabilities (N, C) before smoothing."""
        return labels.float()

    def weight(self, targets: Tensor) -> Tensor:
        """See `Objective`."""
        return torch.tensor(float(targets.numel()), device=targets.device)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """See `Objective`."""
        smoothed = targets * (1 - self.smoothing) + self.smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, smoothed, pos_weight=self.weights, reduction="sum")


def _label_counts(classes: int, examples: Sequence[Example]) -> Tensor:
    """The examples of each label, int64 (C,)."""
    labels = torch.tensor([label for example in examples for label in example.labels], dtype=torch.int64)
    return torch.bincount(labels, minlength=classes)
