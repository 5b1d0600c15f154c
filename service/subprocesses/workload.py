"""Workloads to measure, and the messages between the measuring process and a workload's process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from service.errors import BlvnetError

Arrays = Mapping[str, NDArray[Any]]
"""Arrays by name. The first axis of inputs and outputs is the clip."""

RunBatch = Callable[[Arrays], Arrays]
"""A loaded workload: computes the outputs of a batch of inputs."""

# The libraries that numpy and torch use read these variables at import. Engines have their own options.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Workload:
    """A computation to measure.

    Attributes:
        name: Name, unique within a group of workloads that are compared.
        factory: `module:function`, called with `options` in the workload's process; returns a `RunBatch`.
        options: Keyword arguments of the factory, which must be picklable.
        threads: Number of threads for libraries that read it from an environment variable.
        batches: Batch sizes to measure, ascending.
        gflop: 10^9 floating-point operations of one clip, where a multiply-accumulate counts as two; None if
            unknown.
    """

    name: str
    factory: str
    options: Mapping[str, Any]
    threads: int
    batches: tuple[int, ...] = (1,)
    gflop: float | None = None

    @property
    def title(self) -> str:
        """Name and threads, for progress reports."""
        return f"{self.name}, {self.threads} thread{'s' if self.threads > 1 else ''}"

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of the process."""
        return dict.fromkeys(THREAD_VARIABLES, str(self.threads))


@dataclass(frozen=True)
class Load:
    """Load the workload and compute the first of `clips`, from which repeats take their batches."""

    workload: Workload
    clips: Arrays


@dataclass(frozen=True)
class Loaded:
    """The workload is loaded; `load_s` is the seconds from the factory's call, with imports, to an output."""

    load_s: float


@dataclass(frozen=True)
class Repeat:
    """Run batches of `batch` clips: `untimed` runs, then timed ones for `duration_s`, at least one."""

    batch: int
    duration_s: float
    untimed: int


@dataclass(frozen=True)
class Timed:
    """Seconds of each timed run, and the peak memory of the process in bytes."""

    runs_s: list[float]
    peak_bytes: int


@dataclass(frozen=True)
class Compute:
    """Compute the outputs of `clips` in one batch."""

    clips: Arrays


@dataclass(frozen=True)
class Computed:
    """Outputs of a `Compute`."""

    outputs: Arrays = field(repr=False)


@dataclass(frozen=True)
class Failed:
    """The request failed with `error`."""

    error: BlvnetError
