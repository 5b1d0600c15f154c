"""How to run graphs, as one frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

AUTO = "auto"


@dataclass(frozen=True)
class RuntimeConfig:
    """Settings of the engines.

    Attributes:
        provider: `auto`, `cpu`, `cuda`, `tensorrt` or `openvino`.
        threads: of one run, where it runs on the CPU.
        streams: runs to prepare for side by side.
        max_batch: largest batch of a run on a device; as large as pays, if None.
        cache_dir: where choices and TensorRT's engines are kept between starts; nowhere, if None.
    """

    provider: str = AUTO
    threads: int = 1
    streams: int = 1
    max_batch: int | None = None
    cache_dir: Path | None = None
