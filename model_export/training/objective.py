"""The training loss: cross-entropy with soft targets, label smoothing and weights of the labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from model_export.datasets import Example
from model_export.training.config import ClassWeights, TrainConfig


class Objective:
    """Cross-entropy whose sums over parts of a batch add up to its mean over the batch.

    Args:
        classes: C.
        examples: the training split, which determines balanced weights.
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
            labels = torch.tensor([example.label for example in examples], dtype=torch.int64)
            counts = torch.bincount(labels, minlength=classes)
            # A label without clips gets the weight of a label with one.
            weights = len(labels) / (classes * counts.clamp(min=1))
        self.weights = weights.to(device)

    def targets(self, labels: Tensor) -> Tensor:
        """Labels, int64 (N,), as probabilities (N, C) before smoothing."""
        return F.one_hot(labels, self.classes).float()

    def weight(self, targets: Tensor) -> Tensor:
        """The total weight of targets (N, C), by which the sums of `loss` are divided."""
        return (targets * self.weights).sum()

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The weighted sum over a part of a batch: logits (n, C) in float32 and targets (n, C)."""
        smoothed = (
            targets * (1 - self.smoothing) + targets.sum(1, keepdim=True) * self.smoothing / self.classes
        )
        return -(smoothed * self.weights * F.log_softmax(logits, dim=1)).sum()
