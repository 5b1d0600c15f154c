"""The optimiser and its learning rate schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from model_export.training.config import Decay, OptimizerName, Schedule, TrainConfig

FACTOR = 0.1  # by which the step and plateau schedules multiply the learning rate
MIN_IMPROVEMENT = 1e-4  # relative decrease of the validation loss, as in torch's ReduceLROnPlateau


def make_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Make the optimiser; with `Decay.KERNELS` it does not decay norms, biases and temporal taps.

    `momentum` is that of SGD, and the decay rate of AdamW's first moment.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if config.decay is Decay.ALL:
        decayed = {id(parameter) for parameter in parameters}
    else:
        decayed = {
            id(module.weight)
            for module in network.modules()
            if isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear)
        }
    groups = [
        {"params": [p for p in parameters if id(p) in decayed], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if id(p) not in decayed], "weight_decay": 0.0},
    ]
    # One pass over each parameter instead of one for each operation; on GPUs torch chooses.
    fused = True if parameters[0].device.type == "cpu" else None
    if config.optimizer is OptimizerName.ADAMW:
        return torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, 0.999), fused=fused)
    return torch.optim.SGD(
        groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0, fused=fused
    )


@dataclass
class Plateau:
    """The factor of the plateau schedule, and what determines it.

    Attributes:
        factor: factor of the learning rate.
        best_loss: lowest validation loss so far.
        waited: number of epochs since it or the factor was last lowered.
    """

    factor: float = 1.0
    best_loss: float = math.inf
    waited: int = 0

    def add(self, loss: float, patience: int) -> None:
        """Take the validation loss of an epoch into account."""
        if loss < self.best_loss * (1 - MIN_IMPROVEMENT):
            self.best_loss, self.waited = loss, 0
            return
        self.waited += 1
        if self.waited > patience:
            self.factor, self.waited = self.factor * FACTOR, 0


def learning_rate(step: int, steps_per_epoch: int, config: TrainConfig, plateau: Plateau) -> float:
    """Learning rate of a step: linear warm-up from nearly 0, then the schedule."""
    total = config.epochs * steps_per_epoch
    warmup = round(config.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    match config.schedule:
        case Schedule.COSINE:
            return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
        case Schedule.STEP:
            passed = sum(step >= round(epoch * steps_per_epoch) for epoch in config.decay_epochs())
            return config.lr * FACTOR**passed
        case Schedule.PLATEAU:
            return config.lr * plateau.factor
