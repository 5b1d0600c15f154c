"""What takes part in a measurement, and the messages between the measuring process and a contender's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from service.errors import BlvnetError

Arrays = Mapping[str, NDArray[Any]]
"""By name; the first axis of inputs and outputs is the clip."""

Workload = Callable[[Arrays], Arrays]
"""A loaded thing that answers a batch of inputs."""

# Read by the libraries below numpy and torch when they are loaded; engines are told in their own ways.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Contender:
    """One way to compute something.

    Attributes:
        name: what it is called; in one heat no two have the same.
        factory: `module:function`, called with `options` in the contender's process; gives a `Workload`.
        options: for the factory; anything that pickles.
        threads: how many it computes with, for the libraries that are told by an environment variable.
        batches: sizes of the batches it is measured with, ascending.
        gflop: 10^9 floating-point operations of one clip, a multiply-accumulate being two; None if not known.
    """

    name: str
    factory: str
    options: Mapping[str, Any]
    threads: int
    batches: tuple[int, ...] = (1,)
    gflop: float | None = None

    @property
    def title(self) -> str:
        """Its name with its threads, for those who watch."""
        return f"{self.name}, {self.threads} thread{'s' if self.threads > 1 else ''}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables of its process."""
        return dict.fromkeys(THREAD_VARIABLES, str(self.threads))


@dataclass(frozen=True)
class Load:
    """Make the workload and answer the first clip of `clips`, which later turns take their batches from."""

    contender: Contender
    clips: Arrays


@dataclass(frozen=True)
class Loaded:
    """`load_s`: from the call of the factory, which imports its engine, to the end of the first answer."""

    load_s: float


@dataclass(frozen=True)
class Turn:
    """Run batches of `batch` clips: `untimed` of them first, then for `turn_s`, and once at least."""

    batch: int
    turn_s: float
    untimed: int


@dataclass(frozen=True)
class Timed:
    """Seconds of each run, and the most memory that the process ever had, in bytes."""

    runs_s: list[float]
    peak_bytes: int


@dataclass(frozen=True)
class Question:
    """Answer these clips, in one batch."""

    clips: Arrays


@dataclass(frozen=True)
class Answered:
    """The outputs for a `Question`."""

    outputs: Arrays = field(repr=False)


@dataclass(frozen=True)
class Failed:
    """The contender cannot do it, and why."""

    error: BlvnetError
