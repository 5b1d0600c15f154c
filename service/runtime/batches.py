"""Which batches a device runs: a few sizes, up to the one past which more clips in a run gain little.

One clip leaves a GPU idle between its small kernels, so batches carry more. Its libraries prepare themselves
at each size that they have not seen, which can take seconds; so every size is run before anyone waits for it,
and no batch has a size between them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from service.runtime.session import InferenceFailed, Inputs, Outputs, Session, rows_of
from service.runtime.timing import median_run_s

MOST = 32  # past it a GPU that is worth its price is still not faster, and a clip waits long for its batch
ENOUGH = 0.95  # of the best rate: past that a larger batch only takes longer
MEASURING_S = 0.1  # of each size
PREPARING_S = 30.0  # past it no larger size is begun, unless it was asked for: a start has to end

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batches:
    """The sizes, ascending from 1, and how many seconds a run of each takes."""

    sizes: tuple[int, ...]
    seconds: tuple[float, ...]

    @property
    def rates(self) -> tuple[float, ...]:
        """Clips a second with each size."""
        return tuple(size / second for size, second in zip(self.sizes, self.seconds, strict=True))

    def worth_while(self) -> Batches:
        """Up to the smallest size that carries nearly as much as the best one."""
        enough = ENOUGH * max(self.rates)
        count = next(index for index, rate in enumerate(self.rates, 1) if rate >= enough)
        return Batches(self.sizes[:count], self.seconds[:count])


def sizes_up_to(most: int) -> tuple[int, ...]:
    """Powers of two, and `most` itself."""
    return (*(1 << power for power in range((most - 1).bit_length())), most)


def prepare_batches(
    session: Session, clips: Inputs, asked: int | None, check: Callable[[Outputs], None]
) -> Batches:
    """Run every size, check what comes out, and find those that are worth while.

    Args:
        session: on a device.
        clips: some to fill the batches with, over and over.
        asked: the largest size, whether it is worth while or not; None leaves it to the measurement.
        check: raises what is wrong with the answer to a batch of `clips`, row after row.

    Raises:
        PackageError: by `check`.
        InferenceFailed: one clip does not run, or a size that was asked for.
    """
    sizes: list[int] = []
    seconds: list[float] = []
    begin = time.perf_counter()
    for size in sizes_up_to(asked or MOST):
        if sizes and not asked and time.perf_counter() - begin > PREPARING_S:
            logger.info("batches have at most %d clips, as it takes long to prepare for more", sizes[-1])
            break
        batch = repeated(clips, size)
        try:
            check(session.run(batch))
            seconds.append(median_run_s(session, batch, MEASURING_S))
        except InferenceFailed as exc:
            if asked or size == 1:
                raise
            logger.info("batches have at most %d clips, as more do not run: %s", sizes[-1], exc.message)
            break
        sizes.append(size)
    found = Batches(tuple(sizes), tuple(seconds))
    return found if asked else found.worth_while()


def repeated(clips: Inputs, count: int) -> Inputs:
    """`count` clips: these, over and over."""
    rows = np.arange(count) % rows_of(clips)
    return {name: array[rows] for name, array in clips.items()}
