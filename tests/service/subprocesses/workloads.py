"""Workloads for tests, which processes load by name."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from service.errors import ProviderUnavailable
from service.subprocesses.workload import Arrays, RunBatch, Workload

HERE = __name__


def workload(
    factory: str, name: str | None = None, batches: tuple[int, ...] = (1,), **options: Any
) -> Workload:
    """A workload whose factory is a function of this module."""
    return Workload(name or factory, f"{HERE}:{factory}", options, 1, batches, gflop=2.0)


def clips(count: int) -> Arrays:
    """Clips of one pixel, which is their number."""
    return {"frames": np.arange(count, dtype=np.uint8).reshape(count, 1)}


def doubling() -> RunBatch:
    """The logits are twice the pixels."""
    return lambda clips: {"logits": 2.0 * clips["frames"]}


def logging(log: Path, word: str) -> RunBatch:
    """Write a word and the batch size to a file at each run."""

    def run(clips: Arrays) -> Arrays:
        with log.open("a") as file:
            file.write(f"{word} {len(clips['frames'])}\n")
        return {}

    return run


def spinning() -> RunBatch:
    """Start a thread that spins forever."""

    def spin() -> None:
        while True:
            pass

    threading.Thread(target=spin, daemon=True).start()
    return doubling()


def growing(megabytes: int) -> RunBatch:
    """Allocate `megabytes` for each clip of a batch."""
    return lambda clips: {"logits": np.ones((len(clips["frames"]), megabytes << 17))}


def unavailable() -> RunBatch:
    """Raise an error of this project."""
    raise ProviderUnavailable("no such engine here")


def broken() -> RunBatch:
    """Raise an unexpected error."""
    sys.stdout.write("loading ...\n")
    raise ValueError("the graph is upside down")


def dying(at_batch: int) -> RunBatch:
    """Be killed at the first batch of a size, as when memory runs out."""

    def run(clips: Arrays) -> Arrays:
        if len(clips["frames"]) == at_batch:
            os.kill(os.getpid(), signal.SIGKILL)
        return {}

    return run


def leaving() -> RunBatch:
    """Exit without a message."""
    sys.exit(3)


def threads_asked_for() -> RunBatch:
    """Return the number of threads in the environment."""
    return lambda clips: {"logits": np.array([int(os.environ["OMP_NUM_THREADS"])])}
