"""Loss and accuracy on the validation split, without augmentation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_export.datasets.reading import Unreadable
from model_export.metrics import Metric, mean_average_precision
from model_export.training.augmentation.augment import plain_inputs
from model_export.training.clips.batches import BatchLoader, plain_draws
from model_export.training.config import TrainConfig
from model_export.training.processes import Processes
from model_export.training.step import autocast, standardise
from service.clip.spec import ClipSpec
from service.errors import BlvnetError


class Validator:
    """Measures a network on a split, whose examples are divided among the processes.

    Args:
        loader: the split.
        metric: the metric to measure in addition to the loss.
        clip: the clip that the network gets.
        config: batch size and arithmetic.
        processes: the processes that train together.
    """

    def __init__(
        self,
        loader: BatchLoader,
        metric: Metric,
        clip: ClipSpec,
        config: TrainConfig,
        processes: Processes,
    ) -> None:
        self.loader = loader
        self.metric = metric
        self.clip = clip
        self.config = config
        self.processes = processes

    def measure(
        self, network: nn.Module, step: int, unreadable: Callable[[Sequence[Unreadable]], None]
    ) -> tuple[float, float]:
        """Return the mean loss, without weights and smoothing, and the metric.

        Args:
            network: the network, on its device.
            step: the steps of the run so far.
            unreadable: called with the examples that cannot be read.

        Raises:
            BlvnetError: no example can be read, or the loss is not finite.
        """
        network.eval()
        device = self.processes.device
        self.processes.copy_from_main(network.buffers())
        sums = torch.zeros(3, dtype=torch.float64, device=device)  # loss, correct, clips
        scored: list[tuple[Tensor, Tensor]] = []  # logits and targets on the CPU, for the average precision
        bad: list[Unreadable] = []
        draws = plain_draws(self.loader.source, self.config.batch_size)
        with torch.inference_mode():
            for batch in self.loader.load(draws[self.processes.rank :: self.processes.count]):
                bad += batch.unreadable
                if not len(batch.labels):
                    continue
                batch = batch.to(device)
                with autocast(device, self.config.amp):
                    inputs = plain_inputs(batch.frames, self.clip.inputs)
                    # bfloat16 has three digits: rounded once more, many scores would be equal.
                    logits = network(*map(standardise, inputs)).float().mean(1)
                if self.metric is Metric.MAP:
                    loss = F.binary_cross_entropy_with_logits(logits, batch.labels.float(), reduction="none")
                    loss = loss.mean(1).sum()
                    correct = torch.zeros((), device=device)
                    scored.append((logits.cpu(), batch.labels.cpu()))
                else:
                    loss = F.cross_entropy(logits, batch.labels, reduction="sum")
                    correct = (logits.argmax(1) == batch.labels).sum()
                sums += torch.stack([loss, correct, torch.tensor(len(logits), device=device)])
        unreadable(self.processes.gather(bad))
        loss_sum, correct_sum, count = self.processes.sum(sums).tolist()
        if not count:
            raise BlvnetError("no example of the validation split can be read")
        if not math.isfinite(loss_sum):
            raise BlvnetError(
                f"training diverged: the validation loss after step {step} is {loss_sum}; "
                "try a lower --lr, or --amp off"
            )
        if self.metric is Metric.TOP1:
            return loss_sum / count, correct_sum / count
        logits_parts, target_parts = zip(*self.processes.gather(scored), strict=True)
        score = mean_average_precision(
            np.concatenate([part.numpy() for part in logits_parts]),
            np.concatenate([part.numpy() for part in target_parts]),
        )
        return loss_sum / count, score
