"""The protocol of inference sessions. Each engine implements it in its own module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.errors import BlvnetError

Inputs = Mapping[str, NDArray[np.uint8]]
"""Input name -> uint8 `(N, T_branch, size, size, 3)`, with the same N for all."""


def batch_length(inputs: Inputs) -> int:
    """N, the number of views in a batch."""
    return len(next(iter(inputs.values())))


class InferenceFailed(BlvnetError):
    """The engine failed to run the graph, for example because memory ran out or a device was lost."""


class Arithmetic(StrEnum):
    """Number format of the computation. With `int8`, the layers that the graph keeps in float use float32."""

    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"
    INT8 = "int8"


@dataclass(frozen=True)
class EngineInfo:
    """The engine that runs a graph and its configuration, for display.

    Attributes:
        engine: `onnxruntime` or `openvino`.
        version: Version of the engine.
        provider: `cpu`, `cuda`, `tensorrt` or `openvino`, as in the settings.
        arithmetic: Number format of the computation.
        threads: Threads of one run on the CPU.
        concurrency: Number of concurrent runs that the session is prepared for.
    """

    engine: str
    version: str
    provider: str
    arithmetic: Arithmetic
    threads: int
    concurrency: int

    @property
    def on_device(self) -> bool:
        """Whether runs use a GPU and leave the CPU cores free."""
        return self.provider in ("cuda", "tensorrt")

    def __str__(self) -> str:
        place = {"cpu": "the CPU", "cuda": "CUDA", "tensorrt": "TensorRT", "openvino": "the CPU"}
        return f"{self.engine} {self.version} on {place[self.provider]} in {self.arithmetic}"


@dataclass(frozen=True)
class Outputs:
    """Outputs of a batch.

    Attributes:
        logits: float32 `(N, C)`.
        evidence: float32 `(N, T', C)`; its mean over axis 1 is `logits`.
        features: float32 `(N, T', F)`, the classifier's input; None if the graph has no such output.
    """

    logits: NDArray[np.float32]
    evidence: NDArray[np.float32]
    features: NDArray[np.float32] | None = None

    @classmethod
    def concatenate(cls, parts: Sequence[Outputs]) -> Outputs:
        """Join outputs of the same graph along N."""
        features = [part.features for part in parts if part.features is not None]
        return cls(
            np.concatenate([part.logits for part in parts]),
            np.concatenate([part.evidence for part in parts]),
            np.concatenate(features) if features else None,
        )

    def __getitem__(self, rows: slice) -> Outputs:
        """Views on a range of rows."""
        features = None if self.features is None else self.features[rows]
        return Outputs(self.logits[rows], self.evidence[rows], features)

    @property
    def finite(self) -> bool:
        """Whether all values are finite."""
        arrays = (self.logits, self.evidence, self.features)
        return all(array is None or bool(np.isfinite(array).all()) for array in arrays)


@dataclass(frozen=True)
class Tensor:
    """An input or output as the graph declares it. None stands for an axis of any length."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


class Session(Protocol):
    """A loaded graph. Threads may call `run` concurrently."""

    @property
    def runtime(self) -> EngineInfo:
        """The engine and its configuration, as reported by the engine."""
        ...

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """Inputs of the graph."""
        ...

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """Outputs of the graph."""
        ...

    def run(self, inputs: Inputs) -> Outputs:
        """Run one batch.

        Raises:
            InferenceFailed: the engine failed. The message is for the log.
        """
        ...

    def close(self) -> None:
        """Free the memory. The session cannot be used afterwards."""
        ...
