"""Answers of `/v1/models`: the model packages and the limits of requests."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, Field

from service.models.engine_selection import Opened
from service.packages.manifest import BaseReference, inputs_to_json
from service.pipeline.models.entry import ModelEntry


class GraphInput(BaseModel):
    """Input of the network, uint8 `(N, T_branch, size, size, 3)`."""

    name: str
    frames: str
    size: int
    scale: int


class BaseInfo(BaseModel):
    """The model whose features a taught model classifies."""

    name: str
    version: int
    sha256: str = Field(description="SHA-256 of the base's graph.")

    @classmethod
    def of(cls, reference: BaseReference) -> Self:
        """Copy the reference in the manifest."""
        return cls(name=reference.name, version=reference.version, sha256=reference.sha256)


class RuntimeInfo(BaseModel):
    """The inference engine of a model, and how it was selected."""

    engine: str = Field(description="`onnxruntime` or `openvino`.")
    version: str = Field(description="Version of the engine.")
    arithmetic: str = Field(description="Number format of the computation: `f32`, `f16`, `bf16` or `int8`.")
    threads: int = Field(description="CPU threads of an inference that runs alone.")
    streams: int = Field(
        description="Single-threaded inferences that run concurrently when several clips wait; 1 if the "
        "engine runs one inference at a time."
    )
    batches: list[int] = Field(
        description="Batch sizes that the engine was prepared for on a GPU; empty on the CPU."
    )
    chosen: str = Field(
        description="How the engine was selected. `asked`: by the setting; `measured`: it was the fastest; "
        "`remembered`: it was the fastest at an earlier start; `first`: it was the first that works, because "
        "the package has no reference outputs to compare engines with."
    )
    measured_ms: dict[str, float] = Field(
        description="Inference time of one clip in milliseconds, for each engine that was measured."
    )

    @classmethod
    def of(cls, opened: Opened) -> Self:
        """The description of an opened package."""
        runtime = opened.session.runtime
        return cls(
            engine=runtime.engine,
            version=runtime.version,
            arithmetic=runtime.arithmetic,
            threads=runtime.threads,
            streams=1 if opened.concurrent is None else opened.concurrent.profile.concurrency,
            batches=[] if opened.batches is None else list(opened.batches.sizes),
            chosen=opened.chosen,
            measured_ms=dict(opened.measured_ms),
        )


class ModelInfo(BaseModel):
    """One version of a model. Fields after `reason` are set only while it is loaded."""

    name: str
    version: int
    state: str = Field(description="`loading`, `ready`, `unloading`, `unloaded` or `refused`.")
    reason: str | None = Field(
        default=None,
        description="Why the package was refused. For a `ready` model: its package has changed since it was "
        "loaded, and the changed package is refused.",
    )
    inputs: list[GraphInput] = []
    labels: list[str] = []
    scores: str | None = Field(
        default=None,
        description="How logits become scores. `softmax`: a video shows one of the labels, and scores add up "
        "to 1; `sigmoid`: it may show several or none, and each score is the probability of that label.",
    )
    precision: str | None = None
    provider: str | None = Field(default=None, description="Where the model runs.")
    runtime: RuntimeInfo | None = Field(default=None, description="The engine that runs the model.")
    sha256: str | None = Field(default=None, description="SHA-256 of the graph, or of a taught model's head.")
    base: BaseInfo | None = Field(
        default=None, description="Base of a taught model; null for models with a graph of their own."
    )
    threshold: float | None = Field(
        default=None, description="Answers of a taught model with a lower best score are unsure."
    )
    feature_size: int | None = Field(
        default=None,
        description="Length of the feature vector of each moment; null for models that cannot be the base of "
        "taught ones.",
    )
    trained_on: str | None = Field(
        default=None,
        description="The data set of the training, if the package says: `synthetic` for the demo.",
    )

    @classmethod
    def of(cls, entry: ModelEntry) -> Self:
        """The description of a package that the repository knows."""
        info = cls(name=entry.name, version=entry.version, state=entry.state, reason=entry.reason)
        if entry.manifest is None or entry.opened is None:
            return info
        manifest = entry.manifest
        training = manifest.provenance.get("training")
        dataset = training.get("dataset") if isinstance(training, dict) else None
        return info.model_copy(
            update={
                "inputs": [GraphInput(**item) for item in inputs_to_json(manifest.clip)],
                "labels": list(manifest.labels),
                "scores": manifest.scores.value,
                "precision": manifest.precision,
                "provider": entry.provider,
                "runtime": RuntimeInfo.of(entry.opened),
                "sha256": manifest.sha256,
                "base": None if manifest.base is None else BaseInfo.of(manifest.base),
                "threshold": manifest.threshold,
                "feature_size": entry.feature_size,
                "trained_on": dataset if isinstance(dataset, str) else None,
            }
        )


class Limits(BaseModel):
    """Limits of requests."""

    max_upload_bytes: int
    max_pixels: int
    max_duration_s: float
    max_frames: int
    max_decoded_pixels: int
    max_streams: int
    max_edits: int
    max_windows: int = Field(description="Windows of a timeline.")
    max_json_bytes: int = Field(description="JSON document of an inference request.")
    request_timeout_s: float
    timeline_timeout_s: float
    key_requests_per_minute: int | None = Field(description="Requests with one API key; null: no limit.")
    key_requests_at_once: int | None = Field(
        description="Concurrent requests with one API key; null: no limit."
    )
    decode_sandbox: list[str] = Field(
        description="Kernel sandboxes around the decode workers: `seccomp` and `landlock`, where available."
    )


class ModelList(BaseModel):
    """All model packages, and the limits of requests."""

    models: list[ModelInfo]
    limits: Limits
