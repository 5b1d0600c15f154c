"""The process of a training: `python -m service.taught.training_process PARENT`; standard input is the task.

It reads the features of the examples, learns a head and writes the package atomically. So a training never
blocks the event loop of the service, and its process can be killed at any time. The process ends with its
parent.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from enum import StrEnum
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from service.errors import PackageError
from service.packages.manifest import Manifest
from service.packages.taught import write_taught
from service.taught.store import SUFFIX, UNREADABLE, read_features
from service.teaching.examples import Examples, TeachingError
from service.teaching.learning.learn import learn
from service.teaching.views import stacked

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
NICENESS = 5  # requests have priority, but trainings still run on a busy machine


class LabelledFile(BaseModel):
    """One example of a task."""

    id: str
    label: str
    group: str | None


class TrainingTask(BaseModel):
    """What to train."""

    name: str
    base: Manifest
    examples_folder: Path
    examples: list[LabelledFile]
    models: Path
    mirror: bool


class TrainingOutcome(StrEnum):
    """How a training ended."""

    TRAINED = "trained"
    REFUSED = "refused"
    FULL = "full"
    FAILED = "failed"


class TaskResult(BaseModel):
    """The result of a task: a version, or a message; and the files that could not be read."""

    outcome: TrainingOutcome
    version: int | None = None
    message: str = ""
    damaged: list[str] = []


def train(task: TrainingTask) -> TaskResult:
    """Learn from the examples that can be read, and write the package."""
    features, read, damaged = [], [], []
    for example in task.examples:
        path = task.examples_folder / f"{example.id}{SUFFIX}"
        try:
            features.append(read_features(path))
            read.append(example)
        except UNREADABLE:
            damaged.append(path.name)
    groups = [example.group or example.id for example in read]
    try:
        examples = Examples(
            stacked(features, mirrored=task.mirror) if features else np.empty((0, 1, 1, 1), np.float32),
            labels=[example.label for example in read],
            names=[example.id for example in read],
            groups=groups if any(example.group for example in read) else None,
            mirrored=task.mirror,
        )
        taught = learn(examples)
        manifest = write_taught(task.models, task.name, task.base, taught)
    except TeachingError as exc:
        return TaskResult(outcome=TrainingOutcome.REFUSED, message=exc.message, damaged=damaged)
    except PackageError as exc:
        full = isinstance(exc.__cause__, OSError)
        return TaskResult(
            outcome=TrainingOutcome.FULL if full else TrainingOutcome.FAILED,
            message=exc.message,
            damaged=damaged,
        )
    return TaskResult(outcome=TrainingOutcome.TRAINED, version=manifest.version, damaged=damaged)


def main() -> None:
    """Read a task from standard input, and write its result to standard output."""
    task = TrainingTask.model_validate_json(sys.stdin.buffer.read())
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)  # the service ended before the call
    os.nice(NICENESS)
    sys.stdout.write(train(task).model_dump_json())


if __name__ == "__main__":
    main()
