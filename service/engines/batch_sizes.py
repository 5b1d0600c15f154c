"""Batch sizes for a GPU: prepared before the first request, up to the size beyond which throughput stalls.

A single clip leaves a GPU idle between its small kernels, so a batch has several clips. CUDA libraries need
preparation for each new batch size, which can take seconds. Therefore every size runs once at load time, and
requests only use those sizes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np

from service.engines.session import InferenceFailed, Inputs, Outputs, Session, batch_length

MAX_BATCH = 32  # larger batches gain little on any tested GPU, and delay the clips in them
SUFFICIENT_RATE = 0.95  # share of the best throughput; a larger batch would mainly take longer
MEASURING_S = 0.1  # for each size
MIN_RUNS = 3
PREPARING_S = 30.0  # after this time no larger size is tried, so that loading ends

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchSizes:
    """Batch sizes, ascending from 1, and the seconds that a run of each takes."""

    sizes: tuple[int, ...]
    seconds: tuple[float, ...]

    @property
    def rates(self) -> tuple[float, ...]:
        """Clips per second with each size."""
        return tuple(size / second for size, second in zip(self.sizes, self.seconds, strict=True))

    def worthwhile(self) -> BatchSizes:
        """The sizes up to the smallest one with nearly the best throughput."""
        sufficient = SUFFICIENT_RATE * max(self.rates)
        count = next(index for index, rate in enumerate(self.rates, 1) if rate >= sufficient)
        return BatchSizes(self.sizes[:count], self.seconds[:count])


def sizes_up_to(largest: int) -> tuple[int, ...]:
    """Powers of two below `largest`, and `largest`."""
    return (*(1 << power for power in range((largest - 1).bit_length())), largest)


def prepare_batches(
    session: Session, clips: Inputs, max_batch: int | None, check: Callable[[Outputs], None]
) -> BatchSizes:
    """Run and check every batch size, and return the worthwhile ones.

    Args:
        session: Session on a GPU.
        clips: Clips that fill the batches, repeated as needed.
        max_batch: Largest size, used even if it is not worthwhile; None measures which sizes are worthwhile.
        check: Raises `PackageError` for wrong outputs of a batch of repeated `clips`.

    Raises:
        PackageError: raised by `check`.
        InferenceFailed: a single clip fails, or a batch size up to an explicit `max_batch` fails.
    """
    sizes: list[int] = []
    seconds: list[float] = []
    begin = time.perf_counter()
    for size in sizes_up_to(max_batch or MAX_BATCH):
        if sizes and not max_batch and time.perf_counter() - begin > PREPARING_S:
            logger.info("batches are limited to %d clips: preparing larger ones takes too long", sizes[-1])
            break
        batch = repeated(clips, size)
        try:
            check(session.run(batch))
            seconds.append(median_run_s(session, batch, MEASURING_S))
        except InferenceFailed as exc:
            if max_batch or size == 1:
                raise
            logger.info("batches are limited to %d clips: larger ones fail: %s", sizes[-1], exc.message)
            break
        sizes.append(size)
    measured = BatchSizes(tuple(sizes), tuple(seconds))
    return measured if max_batch else measured.worthwhile()


def median_run_s(session: Session, batch: Inputs, duration_s: float) -> float:
    """Median seconds of a run, over `duration_s` and at least `MIN_RUNS` runs, without the first one.

    Raises:
        InferenceFailed: the graph does not run.
    """
    runs: list[float] = []
    begin = time.perf_counter()
    while len(runs) < MIN_RUNS or time.perf_counter() - begin < duration_s:
        start = time.perf_counter()
        session.run(batch)
        runs.append(time.perf_counter() - start)
    return median(runs)


def repeated(clips: Inputs, count: int) -> Inputs:
    """Return a batch of `count` clips that repeats `clips`."""
    rows = np.arange(count) % batch_length(clips)
    return {name: array[rows] for name, array in clips.items()}
