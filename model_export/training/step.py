"""One update of the weights: augmentation, forward and backward passes in parts, and the optimiser."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from model_export.datasets import Listing
from model_export.networks.normalise import MEAN, STD
from model_export.training.augmentation.augment import augment
from model_export.training.augmentation.mixing import mix
from model_export.training.clips.batches import Batch
from model_export.training.config import Amp, TrainConfig
from model_export.training.objective import make_objective
from model_export.training.optimizer import make_optimizer
from model_export.training.preparation import prepare, use_channels_last
from model_export.training.processes import Processes
from service.clip.spec import ClipSpec
from service.errors import BlvnetError

ORDER, AUGMENTATION, DROPOUT = range(3)  # purposes of derived generators
SMALLEST_SCALE = 1.0  # of a loss in fp16; gradients that overflow at this scale overflow at any


class TrainStep:
    """Updates a network with batches; `state_dict` has what a checkpoint needs besides the weights.

    Args:
        network: the network, on its device.
        listing: the training split, for labels and their symmetry.
        clip: the clip that the network gets.
        config: the options of the optimisation.
        processes: the processes that train together; each gets a part of the step's clips.
    """

    def __init__(
        self, network: nn.Module, listing: Listing, clip: ClipSpec, config: TrainConfig, processes: Processes
    ) -> None:
        self.network = network
        self.config = config
        self.processes = processes
        use_channels_last(network)
        self.average: AveragedModel | None = None
        if config.ema:
            # With the statistics of the last weights, the averaged ones may be at chance.
            update = moving_average(config.ema)
            self.average = AveragedModel(network, multi_avg_fn=update, use_buffers=True)
        self._model = prepare(network, config, processes)
        self.optimizer = make_optimizer(network, config)
        self._clip = clip
        self._symmetry = listing.symmetry
        self._objective = make_objective(listing, config, processes.device)
        self._scaler = torch.amp.GradScaler(processes.device.type, enabled=config.amp is Amp.FP16)

    def __call__(self, batch: Batch, step: int, lr: float) -> float | None:
        """Update the weights with this process' part of a batch.

        Returns:
            The loss over the clips of all processes before the update. None, and no update, if a process has
            no clip.

        Raises:
            BlvnetError: the loss or its gradient is not finite; the weights are not changed then.
        """
        fewest = self.processes.minimum(len(batch.labels))
        if not fewest:
            return None
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._backward(*self._augmented(batch.to(self.processes.device), step), fewest, step)
        self._scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        if self.config.clip_norm:
            norm = nn.utils.clip_grad_norm_(parameters, self.config.clip_norm).item()
        else:
            norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]).item()
        # A loss in fp16 is scaled up until its gradients overflow; the scaler skips the update then.
        overflow = self._scaler.is_enabled() and self._scaler.get_scale() > SMALLEST_SCALE
        if not (math.isfinite(loss) and (math.isfinite(norm) or overflow)):
            raise BlvnetError(
                f"training diverged: at step {step + 1} the loss is {loss} and its gradient's "
                f"norm {norm}; try a lower --lr, or --amp off"
            )
        self._scaler.step(self.optimizer)
        self._scaler.update()
        if self.average is not None:
            self.average.update_parameters(self.network)
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The state of the optimiser, the loss scaling and the average."""
        state: dict[str, Any] = {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }
        if self.average is not None:
            state["average"] = self.average.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self.optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state.get("scaler", {}))
        if self.average is not None:
            self.average.load_state_dict(state["average"])

    @property
    def averaged(self) -> nn.Module:
        """The network to validate and save: the moving average of the weights if there is one."""
        return self.network if self.average is None else self.average.module

    def _augmented(self, batch: Batch, step: int) -> tuple[list[Tensor], Tensor]:
        """The inputs (n, T_branch, 3, S, S) in 0..1, and the targets (n, C)."""
        config, rank = self.config, self.processes.rank
        generator = derived_generator(config.seed, AUGMENTATION, step)
        batch = replace(batch, rows=batch.rows + rank * config.batch_size)
        total = self.processes.count * config.batch_size
        strength = config.augmentation
        inputs, labels = augment(batch, self._clip.inputs, self._symmetry, strength, generator, total)
        return mix(inputs, self._objective.targets(labels), config.augmentation, generator)

    def _backward(self, inputs: list[Tensor], targets: Tensor, fewest: int, step: int) -> float:
        """Add up the gradients of the parts of the batch; return its loss."""
        # Dropout draws from torch's global generator, which this sets: nothing else needs its state.
        torch.manual_seed(derived_seed(self.config.seed, DROPOUT, step, self.processes.rank))
        weight = self.processes.sum(self._objective.weight(targets))
        loss = torch.zeros((), device=self.processes.device)
        # All processes have the same number of parts, because each synchronised norm waits for the others.
        parts = min(self.config.accumulate, fewest)
        split = zip(*(x.tensor_split(parts) for x in inputs), targets.tensor_split(parts), strict=True)
        for index, (*part, part_targets) in enumerate(split):
            if isinstance(self._model, DistributedDataParallel):
                # Gradients are exchanged once, with the last part; the exchange takes their mean.
                self._model.require_backward_grad_sync = index == parts - 1
            with autocast(self.processes.device, self.config.amp):
                logits = self._model(*map(standardise, part)).float().mean(1)
            part_loss = self._objective.loss(logits, part_targets) / weight
            scaled = self._scaler.scale(part_loss * self.processes.count)
            scaled.backward()  # type: ignore[no-untyped-call]
            loss += part_loss.detach()
        return self.processes.sum(loss).item()


def moving_average(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    """The update of a moving average, whose decay rises to `decay`.

    After n updates it is at most (1 + n) / (10 + n), as in TensorFlow: otherwise the first weights, which are
    nearly random, would be a large part of the average for several times 1 / (1 - decay) steps.
    """

    def update(average: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
        if average[0].is_floating_point():
            chosen = min(decay, (1 + int(count)) / (10 + int(count)))
            get_ema_multi_avg_fn(chosen)(average, current, count)  # type: ignore[no-untyped-call]
            return
        for kept, value in zip(average, current, strict=True):  # counters of batch norm
            kept.copy_(value)

    return update


def native_arithmetic(device: torch.device) -> Amp:
    """The fastest arithmetic that `device` has instructions for.

    bfloat16 that is emulated takes many times as long as float32.
    """
    if device.type == "cuda":
        return Amp.BF16 if torch.cuda.is_bf16_supported(including_emulation=False) else Amp.FP16
    if device.type == "cpu":
        abilities = torch.cpu.get_capabilities()
        if any(abilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16")):
            return Amp.BF16
    return Amp.OFF


def autocast(device: torch.device, amp: Amp) -> torch.autocast:
    """The arithmetic of forward passes; `amp` is not `Amp.AUTO`."""
    assert amp is not Amp.AUTO
    dtype = torch.float16 if amp is Amp.FP16 else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=amp is not Amp.OFF)


def standardise(pixels: Tensor) -> Tensor:
    """Pixels in 0..1, `(N, T, 3, H, W)` -> the network's values, of mean 0 and deviation 1 on ImageNet."""
    mean = torch.tensor(MEAN, device=pixels.device)[:, None, None]
    std = torch.tensor(STD, device=pixels.device)[:, None, None]
    return (pixels - mean) / std


def derived_seed(*key: int) -> int:
    """A seed for one purpose at one position (such as epoch or step), independent of all others."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def derived_generator(seed: int, purpose: int, position: int) -> torch.Generator:
    """A generator with a derived seed, on the CPU."""
    return torch.Generator().manual_seed(derived_seed(seed, purpose, position))
