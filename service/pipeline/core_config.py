"""What the core wants to know, as one frozen dataclass; where the values come from is not its business."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from service.clip.video import DecodeLimits
from service.runtime.batches import MOST, Batches
from service.runtime.config import RuntimeConfig

# On cores a batch carries no more than its clips one by one, whose activations fill the caches as it is:
# `python -m benchmarks.inference --full` shows it.
BATCH_ON_CORES = 1


@dataclass(frozen=True)
class CoreConfig:
    """Settings of a `Recognizer`.

    Attributes:
        models: Folder of packages, `MODELS/NAME/VERSION`.
        provider: `auto`, `cpu`, `cuda`, `tensorrt` or `openvino`.
        default_model: Served to requests that name none; the alphabetically first, if None.
        versions_kept: Versions of a model that serve side by side, the highest good ones.
        inference_threads: Threads of inference in all; as many as there are cores, if None.
        cores: Cores that it was given; as many as the process may use, if None.
        max_batch: Most views in one run; if None, one on cores, and as many as pay on a device.
        batch_wait_ms: Longest wait for other requests that are on their way.
        queue_limit: Most requests accepted and not finished.
        latency_target_s: Requests are accepted while they should be answered within so many seconds.
        decode_workers: Processes that decode; as many as there are cores, if None.
        decode_timeout_s: Longest time for the decoding of one clip.
        decode_memory_mb: Address space that decoding may take in a worker, in MB of 10^6 bytes.
        timelines_at_once: Most timelines in work; each has a decode worker of its own.
        timeline_timeout_s: Longest that a timeline may take.
        self_test_s: A model that has run nothing for so long is tested with a black clip.
        inference_limit_s: Longest that a run may take, and that none may end while there are some to do.
        cache_dir: Folder for what takes long to find out or to build; nothing is kept, if None.
        limits: What a video may ask for.
    """

    models: Path
    provider: str = "auto"
    default_model: str | None = None
    versions_kept: int = 1
    inference_threads: int | None = None
    cores: int | None = None
    max_batch: int | None = None
    batch_wait_ms: float = 2.0
    queue_limit: int = 64
    latency_target_s: float = math.inf
    decode_workers: int | None = None
    decode_timeout_s: float = 8.0
    decode_memory_mb: int = 1024
    timelines_at_once: int = 2
    timeline_timeout_s: float = 600.0
    self_test_s: float = 20.0
    inference_limit_s: float = 30.0
    cache_dir: Path | None = None
    limits: DecodeLimits = field(default_factory=DecodeLimits)

    def threads(self, cores: int) -> int:
        """Threads of inference in all, on a machine of so many cores."""
        return self.inference_threads or cores

    @property
    def most_rows(self) -> int:
        """Most views that any model may ever have in one run."""
        return self.max_batch or MOST

    def batch_sizes(self, prepared: Batches | None) -> Sequence[int]:
        """Views that a run may have, ascending: what a device was prepared for, or any number on cores."""
        return range(1, (self.max_batch or BATCH_ON_CORES) + 1) if prepared is None else prepared.sizes

    def runtime(self, cores: int) -> RuntimeConfig:
        """How to run graphs, with so many cores to run them on."""
        return RuntimeConfig(
            provider=self.provider,
            threads=self.threads(cores),
            max_batch=self.max_batch,
            cache_dir=self.cache_dir,
        )
