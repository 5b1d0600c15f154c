"""What the service asks of an inference engine: one small protocol, with a module for each engine behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.errors import BlvnetError

Inputs = Mapping[str, NDArray[np.uint8]]
"""For each input of the graph uint8 `(N, T_branch, size, size, 3)`; N is the same for all."""


def rows_of(inputs: Inputs) -> int:
    """How many clips a batch has."""
    return len(next(iter(inputs.values())))


class InferenceFailed(BlvnetError):
    """The engine could not run the graph: out of memory, a device that is gone."""


class Arithmetic(StrEnum):
    """What a graph is computed in. With `int8`, layers that the graph keeps in float are float32."""

    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"
    INT8 = "int8"


@dataclass(frozen=True)
class Runtime:
    """What a graph runs on, as it is shown.

    Attributes:
        engine: `onnxruntime` or `openvino`.
        version: of the engine.
        provider: where it runs, in the words of the setting: `cpu`, `cuda`, `tensorrt`, `openvino`.
        arithmetic: what it computes in.
        threads: of one run, where it runs on the CPU.
        streams: runs that it is prepared to do side by side.
    """

    engine: str
    version: str
    provider: str
    arithmetic: Arithmetic
    threads: int
    streams: int

    @property
    def on_device(self) -> bool:
        """Whether runs have a device of their own, and the cores are free meanwhile."""
        return self.provider in ("cuda", "tensorrt")

    def __str__(self) -> str:
        place = {"cpu": "the CPU", "cuda": "CUDA", "tensorrt": "TensorRT", "openvino": "the CPU"}
        return f"{self.engine} {self.version} on {place[self.provider]} in {self.arithmetic}"


@dataclass(frozen=True)
class Outputs:
    """`logits` float32 `(N, C)`; `evidence` float32 `(N, T', C)`, whose mean over axis 1 is `logits`."""

    logits: NDArray[np.float32]
    evidence: NDArray[np.float32]


@dataclass(frozen=True)
class Tensor:
    """One input or output as the graph declares it; None stands for an axis that is not fixed."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


class Session(Protocol):
    """A graph, loaded. `run` may be called from any thread, and from several at once."""

    @property
    def runtime(self) -> Runtime:
        """What it really runs on, read from the engine."""
        ...

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What the graph takes."""
        ...

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """What the graph gives."""
        ...

    def run(self, inputs: Inputs) -> Outputs:
        """Run one batch.

        Raises:
            InferenceFailed: the engine gave up; the message is for the log.
        """
        ...

    def close(self) -> None:
        """Give the memory back; the session cannot be used afterwards."""
        ...
