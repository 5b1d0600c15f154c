"""How long a run takes."""

from __future__ import annotations

import time
from statistics import median

from service.runtime.session import Inputs, Session

LEAST_RUNS = 3


def median_run_s(session: Session, batch: Inputs, look_s: float) -> float:
    """Median seconds of a run, looked at for so long; the batch has run before.

    Raises:
        InferenceFailed: the graph does not run.
    """
    runs: list[float] = []
    begin = time.perf_counter()
    while len(runs) < LEAST_RUNS or time.perf_counter() - begin < look_s:
        start = time.perf_counter()
        session.run(batch)
        runs.append(time.perf_counter() - start)
    return median(runs)
