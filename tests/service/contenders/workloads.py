"""Workloads for the tests of the race, loaded by name in processes of their own."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from service.contenders.contender import Arrays, Contender, Workload
from service.errors import ProviderUnavailable

HERE = __name__


def contender(
    factory: str, name: str | None = None, batches: tuple[int, ...] = (1,), **options: Any
) -> Contender:
    """A contender whose factory is a function of this module."""
    return Contender(name or factory, f"{HERE}:{factory}", options, 1, batches, gflop=2.0)


def clips(count: int) -> Arrays:
    """Clips that are told apart by their only pixel."""
    return {"frames": np.arange(count, dtype=np.uint8).reshape(count, 1)}


def doubling() -> Workload:
    """The logits are twice the pixels."""
    return lambda clips: {"logits": 2.0 * clips["frames"]}


def logging(log: Path, word: str) -> Workload:
    """Write a word and batch size into a file at each run."""

    def run(clips: Arrays) -> Arrays:
        with log.open("a") as file:
            file.write(f"{word} {len(clips['frames'])}\n")
        return {}

    return run


def spinning() -> Workload:
    """Leave a thread behind that never rests."""

    def spin() -> None:
        while True:
            pass

    threading.Thread(target=spin, daemon=True).start()
    return doubling()


def growing(megabytes: int) -> Workload:
    """Take so much memory for each clip of a batch."""
    return lambda clips: {"logits": np.ones((len(clips["frames"]), megabytes << 17))}


def unavailable() -> Workload:
    """Cannot be had."""
    raise ProviderUnavailable("no such engine here")


def broken() -> Workload:
    """Fails with an error that nobody foresaw."""
    sys.stdout.write("loading ...\n")
    raise ValueError("the graph is upside down")


def dying(at_batch: int) -> Workload:
    """Is killed by the first batch of that size, as when memory ends."""

    def run(clips: Arrays) -> Arrays:
        if len(clips["frames"]) == at_batch:
            os.kill(os.getpid(), signal.SIGKILL)
        return {}

    return run


def leaving() -> Workload:
    """Ends its process without a word."""
    sys.exit(3)


def threads_asked_for() -> Workload:
    """What the environment says of threads."""
    return lambda clips: {"logits": np.array([int(os.environ["OMP_NUM_THREADS"])])}
