"""Settings of the core, each with its default, range and help text. `service.settings` adds the server's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from service.clip.video import DecodeLimits
from service.engines.batch_sizes import MAX_BATCH, BatchSizes
from service.engines.providers import EngineConfig, Provider
from service.models.selection_cache import default_cache_dir
from service.packages.folders import bundled_models

BYTES_PER_MB = 1_000_000
# On CPUs a batch is no faster than its clips in sequence, because the activations of one clip already fill
# the caches; see `python -m benchmarks.inference --full`.
BATCH_ON_CPU = 1


class CoreConfig(BaseModel):
    """Settings of a `Recognizer`."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    models: Path = Field(
        default_factory=bundled_models,
        description="Folder of model packages, MODELS/NAME/VERSION; the bundled demo model by default.",
    )
    default_model: str | None = Field(
        default=None, description="Model for requests that do not name one; the first by name by default."
    )
    versions_kept: int = Field(
        default=1,
        ge=1,
        le=100,
        description="Versions of each model that serve at the same time, the highest first.",
    )
    teach_dir: Path | None = Field(
        default=None,
        description="Folder for examples and taught models; without one, models cannot be taught over HTTP.",
    )
    teach_max_examples: int = Field(
        default=10_000, ge=4, le=1_000_000, description="Maximum examples of a taught model."
    )
    teach_max_mb: float = Field(
        default=1000.0, gt=0, le=1_000_000, description="Maximum size of all examples, in MB of 10^6 bytes."
    )
    teach_max_models: int = Field(
        default=200, ge=1, le=10_000, description="Maximum number of taught models."
    )
    cache_dir: Path | None = Field(
        default_factory=default_cache_dir,
        description="Folder for engine measurements and TensorRT engines.",
    )

    provider: Provider = Field(default=Provider.AUTO, description="Where inference runs.")
    inference_threads: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="Inference threads; one for each CPU of the process by default. A single clip uses "
        "all of them, concurrent clips use one each.",
    )
    max_batch: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="Maximum clips in one inference run; by default 1 on CPUs, where more gain nothing, and "
        "on a GPU as many as measurements show to be worthwhile.",
    )
    batch_wait_ms: float = Field(
        default=2.0, ge=0, le=10_000, description="How long a clip waits for others to join its batch."
    )
    self_test_s: float = Field(
        default=20.0,
        ge=0.1,
        le=3600,
        description="Run a test inference on a model that has been idle this long; the result determines "
        "/readyz.",
    )

    queue_limit: int = Field(
        default=64, ge=1, le=100_000, description="Maximum requests waiting or in progress; above it 503."
    )
    latency_target_s: float = Field(
        default=1.0,
        gt=0,
        le=3600,
        description="Requests are accepted while they are expected to finish within this time; otherwise "
        "503. Up to 8 requests for each CPU are always accepted.",
    )
    request_timeout_s: float = Field(
        default=30.0, gt=0, le=3600, description="Time limit for a request including its upload; then 504."
    )
    timelines_at_once: int = Field(
        default=2,
        ge=1,
        le=1024,
        description="Maximum concurrent timelines, each with its own decode process; above it 503.",
    )
    timeline_timeout_s: float = Field(
        default=600.0,
        gt=0,
        le=86_400,
        description="Time limit for a timeline including its upload; then 504.",
    )

    decode_workers: int | None = Field(
        default=None, ge=1, le=1024, description="Number of decode processes; one for each CPU by default."
    )
    decode_timeout_s: float = Field(
        default=8.0, gt=0, le=3600, description="Time limit for decoding one video."
    )
    decode_memory_mb: int = Field(
        default=1024,
        ge=128,
        le=1_000_000,
        description="Memory limit of a decode process, in MB of 10^6 bytes.",
    )
    max_pixels: int = Field(
        default=DecodeLimits.max_pixels,
        ge=1,
        le=2**31 - 1,
        description="Maximum pixels in a frame of a video, width x height.",
    )
    max_duration_s: float = Field(
        default=DecodeLimits.max_duration_s, gt=0, le=864_000, description="Maximum duration of a video."
    )
    max_frames: int = Field(
        default=DecodeLimits.max_frames,
        ge=1,
        le=10_000_000,
        description="Maximum number of frames in a video.",
    )
    max_decoded_pixels: int = Field(
        default=DecodeLimits.max_decoded_pixels,
        ge=1,
        le=10**15,
        description="Maximum pixels decoded for a video, frames x width x height.",
    )
    max_streams: int = Field(
        default=DecodeLimits.max_streams,
        ge=1,
        le=1000,
        description="Maximum number of tracks in a video's file.",
    )
    max_edits: int = Field(
        default=DecodeLimits.max_edits,
        ge=1,
        le=1_000_000,
        description="Maximum entries in an mp4's edit list.",
    )
    max_windows: int = Field(
        default=DecodeLimits.max_windows, ge=1, le=1_000_000, description="Maximum windows of a timeline."
    )
    probe_mb: float = Field(
        default=DecodeLimits.probe_bytes / BYTES_PER_MB,
        ge=0.01,
        le=1000,
        description="How far into a file to search for its tracks, in MB of 10^6 bytes.",
    )

    @field_validator("provider", mode="before")
    @classmethod
    def _lower_provider(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @cached_property
    def limits(self) -> DecodeLimits:
        """Limits of a video."""
        return DecodeLimits(
            max_pixels=self.max_pixels,
            max_duration_s=self.max_duration_s,
            max_frames=self.max_frames,
            max_decoded_pixels=self.max_decoded_pixels,
            max_streams=self.max_streams,
            max_edits=self.max_edits,
            max_windows=self.max_windows,
            probe_bytes=round(self.probe_mb * BYTES_PER_MB),
        )

    @property
    def taught_models(self) -> Path | None:
        """Folder of the packages that are taught over HTTP; None if teaching is off."""
        return None if self.teach_dir is None else self.teach_dir / "models"

    @property
    def max_rows(self) -> int:
        """Largest number of views that any model may run at once."""
        return self.max_batch or MAX_BATCH

    def batch_sizes(self, prepared: BatchSizes | None) -> Sequence[int]:
        """Allowed views of a run, ascending: the sizes prepared on a device, any number on CPUs."""
        return range(1, (self.max_batch or BATCH_ON_CPU) + 1) if prepared is None else prepared.sizes

    def engine_config(self, cores: int) -> EngineConfig:
        """How to load and run graphs on a machine with `cores` cores."""
        return EngineConfig(
            provider=self.provider,
            threads=self.inference_threads or cores,
            max_batch=self.max_batch,
            cache_dir=self.cache_dir,
        )
