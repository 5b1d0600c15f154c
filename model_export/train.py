"""A training run from the first step to the last, or from where it was stopped.

SGD with Nesterov momentum; the learning rate climbs linearly and falls along half a cosine. Everything random
is either drawn from a generator that the seed and the step determine, or from torch's global generator, whose
state is in the checkpoint: an interrupted and resumed run computes what an uninterrupted one does, bit by bit
on a CPU.

    RUN/last.pt      weights, optimiser, step and random state; every epoch and every few minutes, atomically
    RUN/best.pt      the weights with the best validation top-1 so far
    RUN/log.jsonl    see `model_export.runlog`
    RUN/curves.png   drawn from the log
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

from model_export.augment import augment, plain_streams
from model_export.cache import Unreadable
from model_export.checkpoint import read_checkpoint, save_checkpoint
from model_export.config import ModelConfig
from model_export.datasets import Listing
from model_export.loading import Batch, CachedClips, ClipSource, Draw, epoch_draws, load_batches, plain_draws
from model_export.networks.pixels import MEAN, STD
from model_export.progress import progress_bar
from model_export.runlog import RunLog, plot_curves
from model_export.train_config import Amp, TrainConfig
from service.clip.spec import ClipSpec
from service.errors import BlvnetError
from service.manifest import inputs_to_json

BEST_FILE = "best.pt"
LAST_FILE = "last.pt"
VALIDATION_BATCH = 64
ORDER, VARIANTS = range(2)  # what a derived generator is for


@dataclass
class RunState:
    """Where a run is: everything beside weights and optimiser that a checkpoint must carry."""

    step: int = 0
    best_top1: float = -1.0
    elapsed_s: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """How a run ended; `finished` is false when it was asked to stop."""

    finished: bool
    step: int
    best_top1: float
    elapsed_s: float


@dataclass(frozen=True)
class Half:
    """One split to train or validate on: its listing and where its frames come from, index by index."""

    listing: Listing
    source: ClipSource


def learning_rate(step: int, steps_per_epoch: int, config: TrainConfig) -> float:
    """The rate of a step: linear warm-up from nearly 0, then half a cosine that ends at 0."""
    total = config.epochs * steps_per_epoch
    warm = round(config.warmup_epochs * steps_per_epoch)
    if step < warm:
        return config.lr * (step + 1) / warm
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))


def make_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.SGD:
    """SGD with Nesterov momentum; only kernels are decayed, not norms, biases and temporal taps."""
    kernels = {
        id(module.weight)
        for module in network.modules()
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear)
    }
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if id(p) in kernels], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if id(p) not in kernels], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0)


def derived_generator(seed: int, purpose: int, position: int) -> torch.Generator:
    """A generator for one purpose at one position (epoch or step), independent of all others."""
    state = np.random.SeedSequence([seed, purpose, position]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


class Trainer:
    """One run: a network, two splits, and the state that moves from step to step.

    Args:
        network: on its device.
        model: what the network is; goes into every checkpoint.
        train_half: what to learn from.
        validation_half: what to choose `best.pt` by.
        config: the optimisation.
        run: the folder to write to.
        clip: what is seen of a clip; default as the network is published.
        origin: what was trained on what (plain values), for checkpoints and log.
        console: where progress is shown.
    """

    def __init__(
        self,
        network: nn.Module,
        model: ModelConfig,
        train_half: Half,
        validation_half: Half,
        config: TrainConfig,
        run: Path,
        *,
        clip: ClipSpec | None = None,
        origin: dict[str, Any],
        console: Console,
    ) -> None:
        self.network = network
        self.model = model
        self.train_half = train_half
        self.validation_half = validation_half
        self.config = config
        self.run_folder = run
        self.origin = origin
        self.console = console
        self.device = next(network.parameters()).device
        self.clip = clip or model.clip_spec()
        self.optimizer = make_optimizer(network, config)
        self.state = RunState()
        self.steps_per_epoch = len(train_half.source) // config.batch_size
        if not self.steps_per_epoch:
            raise BlvnetError(
                f"{len(train_half.source)} training clips are fewer than one batch of {config.batch_size}"
            )
        self.unreadable: set[Path] = set()

    def run(self, stop: threading.Event, *, resume: bool = False) -> Outcome:
        """Train to the end of the last epoch, or until `stop` is set; then everything is saved.

        Args:
            stop: asks the run to end after the step in hand.
            resume: continue from `RUN/last.pt`.

        Raises:
            BlvnetError: the loss is no longer finite, or `resume` finds a checkpoint of another run.
        """
        if resume:
            self._restore()
        self.log = RunLog(self.run_folder, self.state.step if resume else None)
        self.log.add("resume" if resume else "start", self.state.step, **self._describe())
        self.saved = time.monotonic()
        self.started = self.saved - self.state.elapsed_s
        total = self.config.epochs * self.steps_per_epoch
        while self.state.step < total and not stop.is_set():
            if self._train_epoch(stop):
                self._finish_epoch()
        self._save(LAST_FILE)
        plot_curves(self.run_folder)
        finished = self.state.step >= total
        return Outcome(finished, self.state.step, self.state.best_top1, self._elapsed())

    def _train_epoch(self, stop: threading.Event) -> bool:
        """The steps that are left of the current epoch; False when stopped before its end."""
        self.network.train()
        epoch, position = divmod(self.state.step, self.steps_per_epoch)
        draws = epoch_draws(
            self.train_half.source, self.config.batch_size, derived_generator(self.config.seed, ORDER, epoch)
        )[position:]
        recent = _Recent()
        with self._shown(f"epoch {epoch + 1}/{self.config.epochs}", position) as show:
            for batch in self._load(self.train_half, draws):
                if len(batch.labels):
                    recent.add(self._update(batch), len(batch.labels))
                self.state.step += 1  # also where no clip could be read: the step is the place in the epoch
                if self.state.step % self.config.log_every == 0 and recent.steps:
                    show(self._log_step(epoch, recent))
                    recent = _Recent()
                ended = self.state.step % self.steps_per_epoch == 0
                if stop.is_set() and not ended:
                    return False
                if not ended and time.monotonic() - self.saved > self.config.save_every_s:
                    self._save(LAST_FILE)
        return True

    def _update(self, batch: Batch) -> float:
        """One step of the optimiser; returns the loss before it."""
        streams, labels = augment(
            [clip.to(self.device) for clip in batch.frames],
            batch.labels.to(self.device),
            self.clip.inputs,
            self.train_half.listing.symmetry,
            self.config.augmentation,
            derived_generator(self.config.seed, VARIANTS, self.state.step),
        )
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.state.step, self.steps_per_epoch, self.config)
        with self._autocast():
            logits = self._logits(streams)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=self.config.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        self.optimizer.step()
        value = loss.item()
        if not math.isfinite(value):
            raise BlvnetError(
                f"the loss at step {self.state.step + 1} is {value}; try a lower --lr, or --amp off"
            )
        return value

    def _finish_epoch(self) -> None:
        """Validate, log, save, draw."""
        epoch = self.state.step // self.steps_per_epoch
        loss, top1 = self._validate()
        best = top1 > self.state.best_top1
        self.state.best_top1 = max(top1, self.state.best_top1)
        self.log.add(
            "epoch",
            self.state.step,
            epoch=epoch,
            validation_loss=round(loss, 4),
            validation_top1=round(top1, 4),
            elapsed_s=round(self._elapsed(), 1),
        )
        self.console.print(
            f"epoch {epoch}/{self.config.epochs}: validation loss {loss:.3f}, top-1 {100 * top1:.1f} %"
            f"{' (best)' if best else ''}, {self._elapsed() / 60:.1f} min"
        )
        if best:
            self._save(BEST_FILE)
        self._save(LAST_FILE)
        plot_curves(self.run_folder)

    def _validate(self) -> tuple[float, float]:
        """Mean cross-entropy and top-1 on the validation split, unaugmented."""
        self.network.eval()
        loss, correct, count = 0.0, 0, 0
        draws = plain_draws(self.validation_half.source, VALIDATION_BATCH)
        with torch.inference_mode():
            for batch in self._load(self.validation_half, draws):
                if not len(batch.labels):
                    continue
                frames = [clip.to(self.device) for clip in batch.frames]
                labels = batch.labels.to(self.device)
                with self._autocast():
                    logits = self._logits(plain_streams(frames, self.clip.inputs)).float()
                loss += F.cross_entropy(logits, labels, reduction="sum").item()
                correct += int((logits.argmax(1) == labels).sum())
                count += len(labels)
        if count == 0:
            raise BlvnetError("no clip of the validation split can be read")
        return loss / count, correct / count

    def _logits(self, streams: Sequence[Tensor]) -> Tensor:
        """Pixels from 0 to 1, `(N, T_branch, 3, S, S)` each -> logits `(N, C)`."""
        evidence: Tensor = self.network(*(standardise(stream) for stream in streams))
        return evidence.mean(1)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.amp is Amp.BF16)

    def _load(self, half: Half, draws: Sequence[Sequence[Draw]]) -> Iterator[Batch]:
        """A batch for each of `draws`; files that cannot be read are missing there and named, once each."""
        workers = 0 if isinstance(half.source, CachedClips) else self.config.workers
        for batch in load_batches(half.source, half.listing, draws, workers=workers):
            for item in batch.unreadable:
                self._name_unreadable(item)
            yield batch

    def _name_unreadable(self, item: Unreadable) -> None:
        if item.path not in self.unreadable:
            self.unreadable.add(item.path)
            self.log.add("unreadable", self.state.step, path=str(item.path), reason=item.reason)
            self.console.print(f"unreadable: {item.path} ({item.reason})", markup=False)

    @contextmanager
    def _shown(self, description: str, position: int) -> Iterator[Callable[[dict[str, float]], None]]:
        """A bar on a terminal, plain lines elsewhere; call the yielded function with each logged step."""
        if not self.console.is_terminal:
            yield lambda line: self.console.print(
                _step_line(description, line), highlight=False, soft_wrap=True
            )
            return
        with progress_bar(self.console) as progress:
            task = progress.add_task(description, total=self.steps_per_epoch, completed=position)

            def show(line: dict[str, float]) -> None:
                text = _step_line(description, line)
                progress.update(
                    task, completed=(int(line["step"]) - 1) % self.steps_per_epoch + 1, description=text
                )

            yield show

    def _log_step(self, epoch: int, recent: _Recent) -> dict[str, float]:
        line = {
            "epoch": epoch + 1,
            "loss": round(recent.loss / recent.steps, 4),
            "lr": round(self.optimizer.param_groups[0]["lr"], 6),
            "clips_per_s": round(recent.clips / (time.monotonic() - recent.since), 1),
        }
        self.log.add("step", self.state.step, **line)
        return {"step": self.state.step, **line}

    def _describe(self) -> dict[str, Any]:
        return {
            **self.origin,
            "model": self.model.to_json(),
            "training": self.config.to_dict(),
            "train_clips": len(self.train_half.source),
            "validation_clips": len(self.validation_half.source),
            "steps_per_epoch": self.steps_per_epoch,
            "torch": torch.__version__,
            "device": str(self.device),
        }

    def _elapsed(self) -> float:
        return time.monotonic() - self.started

    def _save(self, name: str) -> None:
        """Write a checkpoint; `last.pt` also holds what it takes to continue."""
        self.state.elapsed_s = self._elapsed()
        training: dict[str, Any] = {
            **self.origin,
            "labels": list(self.train_half.listing.labels),
            "clip": clip_to_json(self.clip),
            "options": self.config.to_dict(),
            "step": self.state.step,
            "best_top1": self.state.best_top1,
            "elapsed_s": self.state.elapsed_s,
        }
        if name == LAST_FILE:
            training["optimizer"] = self.optimizer.state_dict()
            training["rng"] = torch.get_rng_state()
            training["cuda_rng"] = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        save_checkpoint(self.run_folder / name, self.model, self.network.state_dict(), training)
        self.saved = time.monotonic()

    def _restore(self) -> None:
        """Take up `RUN/last.pt` where it was written.

        Raises:
            BlvnetError: there is none, or it belongs to another run: other options, labels, clip or network.
        """
        checkpoint = read_checkpoint(self.run_folder / LAST_FILE)
        training = checkpoint.training
        same = {
            "network": checkpoint.config == self.model,
            "clip": training.get("clip") == clip_to_json(self.clip),
            "labels": training.get("labels") == list(self.train_half.listing.labels),
            "options": _deciding(training.get("options", {})) == _deciding(self.config.to_dict()),
        }
        for what, equal in same.items():
            if not equal:
                raise BlvnetError(
                    f"{checkpoint.path} was written by a run with another {what}; give the same again"
                )
        self.network.load_state_dict(checkpoint.weights)
        self.optimizer.load_state_dict(training["optimizer"])
        self.state = RunState(training["step"], training["best_top1"], training["elapsed_s"])
        torch.set_rng_state(training["rng"])
        if torch.cuda.is_available():
            torch.cuda.set_rng_state_all(training["cuda_rng"])


class _Recent:
    """Sums over the steps since the last line of the log."""

    def __init__(self) -> None:
        self.loss = 0.0
        self.steps = 0
        self.clips = 0
        self.since = time.monotonic()

    def add(self, loss: float, clips: int) -> None:
        self.loss += loss
        self.steps += 1
        self.clips += clips


def _deciding(options: dict[str, Any]) -> dict[str, Any]:
    """The options that decide what is computed, less those that only say how it is run and shown."""
    return {
        name: value for name, value in options.items() if name not in {"workers", "log_every", "save_every_s"}
    }


def clip_to_json(spec: ClipSpec) -> dict[str, Any]:
    """The clip that a network was trained on, in the words of a package's manifest."""
    return {
        "frames": spec.frames,
        "sampling": spec.sampling.value,
        "stride": spec.stride,
        "inputs": inputs_to_json(spec),
    }


def standardise(stream: Tensor) -> Tensor:
    """`(N, T, 3, H, W)` from 0 to 1, to mean 0 and deviation 1 as the network takes it."""
    mean = torch.tensor(MEAN, device=stream.device)[:, None, None]
    std = torch.tensor(STD, device=stream.device)[:, None, None]
    return (stream - mean) / std


def _step_line(description: str, line: dict[str, float]) -> str:
    numbers = f"loss {line['loss']:.3f}, lr {line['lr']:.4f}, {line['clips_per_s']} clips/s"
    return f"{description}: step {line['step']}, {numbers}"


@contextmanager
def stopping_on_signals() -> Iterator[threading.Event]:
    """SIGTERM and SIGINT set the yielded event while the block runs; a second one acts as usual."""
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def request(number: int, _frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, request)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
