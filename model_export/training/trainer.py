"""The training loop: from the first step, or the one at which a run was stopped, to the last.

Everything random is determined by the seed and the step or epoch. So an interrupted and resumed run computes
the same as an uninterrupted one, bit for bit on a CPU.

    RUN/config.yaml  the options, which `blvnet train --config` reads
    RUN/last.pt      weights, optimiser and step; every epoch and every few minutes
    RUN/best.pt      the weights with the best validation top-1 so far, or mean average precision
    RUN/log.jsonl    see `model_export.training.run_log`
    RUN/curves.png   drawn from the log

Several processes train one network together under `torchrun`; the main one writes these files.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

from model_export.datasets.reading import Unreadable
from model_export.metrics import Metric
from model_export.networks.config import ModelConfig
from model_export.progress import ProgressReporter
from model_export.training.checkpoints import BEST_FILE, LAST_FILE, RunCheckpoints, RunState
from model_export.training.clips.batches import BatchLoader, Draw, SplitData, epoch_draws
from model_export.training.config import Amp, Schedule, TrainConfig
from model_export.training.optimizer import learning_rate
from model_export.training.preparation import compile_errors, memory_errors, train_mode
from model_export.training.processes import Processes
from model_export.training.run_log import RunLog, RunReport, plot_curves
from model_export.training.step import ORDER, TrainStep, derived_generator, native_arithmetic
from model_export.training.validation import Validator
from service.clip.spec import ClipSpec
from service.errors import BlvnetError

PLOT_EVERY_S = 30.0  # drawing takes longer than a short epoch


@dataclass(frozen=True)
class RunResult:
    """The end of a run; `finished` is False if it was asked to stop, `best` is the metric's best value."""

    finished: bool
    step: int
    best: float
    elapsed_s: float


class Trainer:
    """Trains a network on one split and chooses the best weights by another.

    Args:
        network: the network, on its device.
        model: its configuration, which goes into every checkpoint.
        train: the split to learn from.
        validation: the split to choose `best.pt` by.
        config: the options of the optimisation; in the attribute of this name, the arithmetic `auto` is
            resolved.
        run: the folder to write to.
        clip: the clip that the network gets; None for the published one.
        origin: data set, folder, held-out group and whether clips are cached (plain values), for checkpoints
            and the log.
        reporter: shows progress.
        processes: the processes that train together; None for this one alone.

    Raises:
        BlvnetError: the training split has fewer examples than one batch.
    """

    def __init__(
        self,
        network: nn.Module,
        model: ModelConfig,
        train: SplitData,
        validation: SplitData,
        config: TrainConfig,
        run: Path,
        *,
        clip: ClipSpec | None = None,
        origin: dict[str, Any],
        reporter: ProgressReporter,
        processes: Processes | None = None,
    ) -> None:
        self.network = network
        self.model = model
        self.train_data = train
        self.validation_data = validation
        self.processes = processes or Processes(device=next(network.parameters()).device)
        if config.amp is Amp.AUTO:
            config = replace(config, amp=native_arithmetic(self.processes.device))
        self.config = config
        self.run_folder = run
        self.origin = origin
        self.reporter = reporter
        clip = clip or model.clip_spec()
        pinned = self.processes.device.type == "cuda"
        self.train_loader = BatchLoader(train, workers=config.workers, pinned=pinned)
        self.step_batch = config.batch_size * self.processes.count
        self.steps_per_epoch = len(train.source) // self.step_batch
        if not self.steps_per_epoch:
            fitting = len(train.source) // self.processes.count
            raise BlvnetError(
                f"{len(train.source)} training examples are fewer than one batch of {self.step_batch}: "
                f"use --batch-size {fitting} or less"
            )
        self.metric = Metric.of(multi_label=train.listing.multi_label)
        self.validation = Validator(
            BatchLoader(validation, workers=config.workers, pinned=pinned),
            self.metric,
            clip,
            config,
            self.processes,
        )
        self.train_step = TrainStep(network, train.listing, clip, config, self.processes)
        self.checkpoints = RunCheckpoints(
            run, self.train_step, model, clip, train.listing, config, origin, self.processes.count
        )
        self.state = RunState()

    def run(self, stop: threading.Event, *, resume: bool = False) -> RunResult:
        """Train to the end of the last epoch, or until `stop` is set in one of the processes.

        Args:
            stop: ends the run after the current step; the state is saved.
            resume: continue from `RUN/last.pt`.

        Raises:
            BlvnetError: the loss is no longer finite, a split has no readable example, a file cannot be
                written, or the checkpoint to resume from belongs to another run.
        """
        if resume:
            self.state = self.checkpoints.restore()
        main = self.processes.main
        log = RunLog(self.run_folder, self.state.step if resume else None, enabled=main)
        log.add("resume" if resume else "start", self.state.step, **self._describe())
        self.report = RunReport(log, self.reporter, self.config, self.steps_per_epoch, self.metric)
        self.saved = self.plotted = time.monotonic()
        self.started = self.saved - self.state.elapsed_s
        last_step = self.config.epochs * self.steps_per_epoch
        with memory_errors(), compile_errors(enabled=self.config.compile):
            while self.state.step < last_step and not self.processes.any(stop.is_set()):
                epoch, position = divmod(self.state.step, self.steps_per_epoch)
                with self.report.epoch(epoch + 1, position):
                    completed = self._train_epoch(epoch, position, stop)
                if completed:
                    self._validate()
        self._save(LAST_FILE)
        if main:
            plot_curves(self.run_folder)
        return RunResult(self.state.step >= last_step, self.state.step, self.state.best, self._elapsed())

    def _train_epoch(self, epoch: int, position: int, stop: threading.Event) -> bool:
        """Run the steps of an epoch from `position` on; return False if stopped before its end."""
        train_mode(self.network, self.config.batch_norm, self.config.freeze)
        trained = 0
        unreadable: list[Unreadable] = []
        waited_s = self.train_loader.waited_s
        for batch in self.train_loader.load(self._draws(epoch)[position:]):
            self._report_unreadable(batch.unreadable)
            unreadable += batch.unreadable
            trained += len(batch.labels)
            lr = learning_rate(self.state.step, self.steps_per_epoch, self.config, self.state.plateau)
            loss = self.train_step(batch, self.state.step, lr)
            self.state.step += 1  # even without a readable clip, as the step is the position in the epoch
            waited_s, waited_before_s = self.train_loader.waited_s, waited_s
            self.report.step(
                self.state.step,
                loss=loss,
                lr=lr,
                clips=len(batch.labels) * self.processes.count,
                waited_s=waited_s - waited_before_s,
            )
            ended = self.state.step % self.steps_per_epoch == 0
            if self.processes.any(stop.is_set()) and not ended:
                return False
            if not ended and time.monotonic() - self.saved > self.config.save_every_s:
                self._save(LAST_FILE)
        self._report_unreadable(unreadable := self.processes.gather(unreadable))
        # The rest of a resumed epoch may be a single bad batch, although the run has learnt from others.
        if self.processes.any(not trained) and (position == 0 or not self.train_step.optimizer.state):
            first = unreadable[0]
            raise BlvnetError(
                f"no example of the training split can be read; the first: {first.path} ({first.reason})"
            )
        return True

    def _draws(self, epoch: int) -> list[list[Draw]]:
        """The draws of an epoch for this process: its part of each batch."""
        order = derived_generator(self.config.seed, ORDER, epoch)
        first = self.processes.rank * self.config.batch_size
        return [
            batch[first : first + self.config.batch_size]
            for batch in epoch_draws(self.train_data.source, self.step_batch, order)
        ]

    def _validate(self) -> None:
        """Measure the weights at the end of an epoch, and keep them if they are the best."""
        network, step = self.train_step.averaged, self.state.step
        loss, score = self.validation.measure(network, step, self._report_unreadable)
        if self.config.schedule is Schedule.PLATEAU:
            self.state.plateau.add(loss, self.config.patience)
        best = score > self.state.best
        self.state.best = max(score, self.state.best)
        self.report.validation(step, loss=loss, score=score, best=best, elapsed_s=self._elapsed())
        if best:
            self._save(BEST_FILE)
        self._save(LAST_FILE)
        if self.processes.main and time.monotonic() - self.plotted > PLOT_EVERY_S:
            plot_curves(self.run_folder)
            self.plotted = time.monotonic()

    def _report_unreadable(self, items: Sequence[Unreadable]) -> None:
        self.report.unreadable(self.state.step, items)

    def _describe(self) -> dict[str, Any]:
        return {
            **self.origin,
            "model": self.model.to_json(),
            "training": self.config.to_dict(),
            "train_clips": len(self.train_data.source),
            "validation_clips": len(self.validation_data.source),
            "steps_per_epoch": self.steps_per_epoch,
            "torch": torch.__version__,
            "device": str(self.processes.device),
            "processes": self.processes.count,
        }

    def _elapsed(self) -> float:
        return time.monotonic() - self.started

    def _save(self, name: str) -> None:
        self.state.elapsed_s = self._elapsed()
        self.saved = time.monotonic()
        if self.processes.main:
            self.checkpoints.save(name, self.state)


@contextmanager
def stopping_on_signals() -> Iterator[threading.Event]:
    """Set the yielded event on SIGTERM or SIGINT while the block runs; a second signal acts as usual."""
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
