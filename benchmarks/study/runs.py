"""One run of a row: train, test, and return the values for the report.

The training loop is that of `blvnet train`. Results are those of the weights after the last step, not of the
best ones by validation, so that no run is chosen by a lucky epoch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from threading import Event
from typing import Any

import torch
from torch import Tensor

from benchmarks.study import real
from benchmarks.study.data import Amount, split_data
from benchmarks.study.plan import Row
from benchmarks.study.results import Result, RunKey
from model_export.checkpoints.initialise import initialise_from
from model_export.networks.config import ModelConfig
from model_export.networks.registry import build, parse_architecture
from model_export.networks.residual import VideoClassifier
from model_export.profile import profile_network
from model_export.progress import ProgressReporter
from model_export.synthetic.tasks.names import Task
from model_export.training.augmentation.augment import plain_inputs
from model_export.training.checkpoints import LAST_FILE
from model_export.training.clips.batches import BatchLoader, SplitData, plain_draws
from model_export.training.config import Amp, Augmentation, OptimizerName, TrainConfig
from model_export.training.preparation import use_channels_last
from model_export.training.run_log import read_log
from model_export.training.step import standardise
from model_export.training.trainer import Trainer
from service.clip.spec import ClipSpec
from service.errors import BlvnetError

Change = Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]

# Generated data vary in place and colour already, and zoom, shift and cutout would hide small objects. Orders
# of the same events share a batch, and changes drawn for each clip separately would hide their only
# difference.
ON_GENERATED = Augmentation(geometry=0.0, cutout=0.0)
AUGMENTATIONS: dict[Task | None, Augmentation] = {
    Task.EVENTS: Augmentation.none(),
    Task.MOTIONS: ON_GENERATED,
    Task.APPEARANCE: ON_GENERATED,
    None: Augmentation(),  # real footage
}


@dataclass(frozen=True)
class Budget:
    """Number of examples of a run on generated data, and number of clips of a step."""

    train: Amount
    validation: Amount
    test: Amount
    batch: int


FULL = Budget(Amount(2400, takes=4), Amount(480), Amount(960), batch=48)
# Smaller batches: outlines are learned in fewer passes with more steps, and the few clips of real footage
# would fill only two larger batches.
APPEARANCE_BATCH, REAL_BATCH = 24, 16
SMALLER_BATCHES: dict[Task | None, int] = {Task.APPEARANCE: APPEARANCE_BATCH, None: REAL_BATCH}
QUICK = Budget(Amount(32), Amount(24), Amount(48), batch=16)


@dataclass(frozen=True)
class Folders:
    """Where runs read and write: rendered clips, checkpoints, and real footage if given."""

    cache: Path
    runs: Path
    gestures: Path | None


@dataclass(frozen=True)
class RunData:
    """The splits of a run."""

    train: SplitData
    validation: SplitData
    test: SplitData


def train_run(
    row: Row, key: RunKey, budget: Budget, folders: Folders, reporter: ProgressReporter, stop: Event
) -> Result | None:
    """Train and test one run, or continue a stopped run; None if `stop` is set before its end.

    The checkpoints stay in `folders.runs`, for rows that start from this one.

    Raises:
        BlvnetError: the weights to start from or the real footage is missing, or the loss is not finite.
    """
    config = parse_architecture(row.architecture, num_classes=1, frames=row.frames, size=row.size)
    clip = config.clip_spec()
    data = open_data(row, budget, clip, folders, reporter)
    labels = len(data.train.listing.labels)
    config = replace(config, num_classes=labels)
    torch.manual_seed(key.seed)
    network = build(config, row.tam_init)
    if row.starts_from is not None:
        initialise_from(network, config, start_weights(row, key, folders.runs), data.train.listing.labels)
    use_channels_last(network)
    folder = folders.runs / row.name / key.name
    folder.mkdir(parents=True, exist_ok=True)
    options = train_options(row, key, budget, data.train.source.phases)
    origin = {"dataset": f"study-{row.group}"}
    trainer = Trainer(
        network, config, data.train, data.validation, options, folder, origin=origin, reporter=reporter
    )
    began = time.process_time()
    ended = trainer.run(stop, resume=(folder / LAST_FILE).exists())
    if not ended.finished:
        return None
    cpu_s = time.process_time() - began  # only of the last part, if the run was stopped before
    predictions = predict(network, data.test, clip)
    epochs = [line for line in read_log(folder) if line["kind"] == "epoch"]
    return {
        "row": row.name,
        "seed": key.seed,
        "rate": key.rate,
        "architecture": config.architecture,
        "labels": labels,
        "curve": [[line["step"], line["validation_loss"], line["validation_top1"]] for line in epochs],
        "clips": ended.step * options.batch_size,
        "top1": _share_right(predictions, data.test),
        "predictions": "".join(chr(ord("A") + label) for label in predictions),
        "cpu_s": round(cpu_s, 1),
        **count_costs(config),
        **(on_footage(network, data.test, clip, predictions) if row.task is None else {}),
    }


def predict(
    network: VideoClassifier, data: SplitData, clip: ClipSpec, change: Change = lambda frames: frames
) -> list[int]:
    """The top label of every example, at its middle take, after `change` of its frames."""
    network.eval()
    found: list[int] = []
    # 96 clips are complete looks of the events task, so all 24 labels of a look share a batch.
    with torch.inference_mode():
        for batch in BatchLoader(data, workers=0).load(plain_draws(data.source, 96)):
            inputs = plain_inputs(change(batch.frames), clip.inputs)
            found += network(*(standardise(pixels) for pixels in inputs)).mean(1).argmax(1).tolist()
    return found


def open_data(
    row: Row, budget: Budget, clip: ClipSpec, folders: Folders, reporter: ProgressReporter
) -> RunData:
    """Open the splits of a row; real footage is validated and tested on the same held-out groups."""
    if row.task is None:
        train, held_out = (
            real.real_split(folders.gestures, split, clip, folders.cache, reporter)
            for split in ("train", "val")
        )
        return RunData(train, held_out, held_out)
    reporter.step(f"{row.name}: opening its clips")
    return RunData(
        split_data(row.task, "train", budget.train, clip, folders.cache),
        split_data(row.task, "val", budget.validation, clip, folders.cache),
        split_data(row.task, "test", budget.test, clip, folders.cache),
    )


def start_weights(row: Row, key: RunKey, runs: Path) -> Path:
    """The checkpoint that a run starts from: that of the same seed and rate of the other row.

    Raises:
        BlvnetError: it is missing, because results are kept in the repository and weights are not.
    """
    path = runs / str(row.starts_from) / key.name / LAST_FILE
    if not path.exists():
        raise BlvnetError(
            f"{row.name} starts from the weights of {row.starts_from}, and {path} is not there: remove the "
            "results of that row and run it again"
        )
    return path


def train_options(row: Row, key: RunKey, budget: Budget, phases: int) -> TrainConfig:
    """The options of the trainer."""
    return TrainConfig(
        epochs=row.epochs,
        batch_size=min(budget.batch, SMALLER_BATCHES.get(row.task, budget.batch)),
        optimizer=OptimizerName.ADAMW,
        lr=key.rate,
        warmup_epochs=min(1.0, row.epochs / 8),
        weight_decay=0.01,
        phases=phases,
        workers=0,
        seed=key.seed,
        amp=Amp.OFF,  # slower than float32 on CPUs without instructions for bfloat16
        augmentation=AUGMENTATIONS[row.task],
    )


def _share_right(predictions: list[int], data: SplitData) -> float:
    truths = [example.label for example in data.listing.examples]
    return sum(p == truth for p, truth in zip(predictions, truths, strict=True)) / len(truths)


def on_footage(
    network: VideoClassifier, data: SplitData, clip: ClipSpec, predictions: list[int]
) -> dict[str, Any]:
    """Top-1 by group, on shuffled frames and on the middle frame; the share of reversed swipes recognized."""
    return {
        "top1_by_group": real.share_by_group(predictions, data),
        "shuffled_top1": _share_right(predict(network, data, clip, real.shuffled), data),
        "middle_top1": _share_right(predict(network, data, clip, real.middle_alone), data),
        "backwards_opposite": real.opposite_share(predict(network, data, clip, real.backwards), data),
    }


@cache  # takes a second, and all seeds have the same costs
def count_costs(config: ModelConfig) -> dict[str, Any]:
    """The costs of a network, counted as by `blvnet profile`."""
    total = profile_network(config).total
    return {
        "parameters": total.parameters,
        "gmacs": round(total.gmacs, 5),
        "training_mb": round(total.training_activation_bytes / 1e6, 3),
    }
