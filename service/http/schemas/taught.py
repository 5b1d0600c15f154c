"""Documents of `/v1/taught`: examples, trainings and taught models."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from service.clip.video import VideoInfo
from service.http.schemas.common import UNSURE, TimingMs, is_none
from service.http.schemas.models import BaseInfo
from service.packages.manifest import Manifest
from service.pipeline.classification import Prediction
from service.pipeline.models.entry import ModelEntry
from service.taught.lessons import MAX_TEXT
from service.taught.store import StoredExample
from service.taught.teacher import Added, Teacher


class ExampleParameters(BaseModel):
    """Query parameters of a new example."""

    model_config = ConfigDict(extra="forbid")

    label: str = Field(
        min_length=1, max_length=MAX_TEXT, description="What the clip shows; spaces around it are removed."
    )
    base: str | None = Field(
        None,
        min_length=1,
        max_length=128,
        description="Model whose features are used. Default: that of the other examples, or the default "
        "model of the service. It cannot be changed while there are examples.",
    )
    group: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_TEXT,
        description="Clips of one group, such as a person or a recording, are never split by the "
        "cross-validation. Default: the clip is its own group.",
    )


class TrainParameters(BaseModel):
    """Query parameters of a training."""

    model_config = ConfigDict(extra="forbid")

    mirror: bool = Field(
        False,
        description="Learn from mirrored clips too. The mirror image of a label with the word left is that "
        "with right, of one with clockwise that with counter-clockwise, and of any other the label itself.",
    )


class ExampleInfo(BaseModel):
    """An example of a taught model."""

    id: str = Field(description="Start of the SHA-256 of the clip's bytes.")
    label: str
    group: str | None
    added_at: str = Field(description="Time of RFC 3339.")
    bytes: int = Field(description="Size of the stored features.")

    @classmethod
    def of(cls, example_id: str, stored: StoredExample) -> Self:
        """The description of a stored example."""
        example = stored.example
        return cls(
            id=example_id,
            label=example.label,
            group=example.group,
            added_at=example.added_at,
            bytes=stored.size_bytes,
        )


class ExampleCounts(BaseModel):
    """Number of examples of a taught model, by label and in all."""

    labels: dict[str, int]
    examples: int

    @classmethod
    def of(cls, teacher: Teacher, name: str) -> Self:
        """Return the current counts."""
        return cls(labels=teacher.store.label_counts(name), examples=len(teacher.store.examples(name)))


class AddedExample(ExampleCounts):
    """A new example, and the counts with it."""

    id: str = Field(description="Start of the SHA-256 of the clip's bytes.")
    created: bool = Field(description="False if the same bytes were an example before, which counts once.")
    name: str
    label: str
    group: str | None
    base: BaseInfo
    video: VideoInfo
    predictions: tuple[Prediction, ...] | None = Field(
        description="Labels by the version that serves, best first; null before the first training."
    )
    unsure: bool | None = Field(default=None, exclude_if=is_none, description=UNSURE)
    timing_ms: TimingMs
    request_id: str

    @classmethod
    def of_added(
        cls, teacher: Teacher, name: str, added: Added, *, receive_ms: float, total_ms: float, request_id: str
    ) -> Self:
        """The answer for an example that was added."""
        example = added.stored.example
        return cls(
            **ExampleCounts.of(teacher, name).model_dump(),
            id=added.id,
            created=added.created,
            name=name,
            label=example.label,
            group=example.group,
            base=BaseInfo.of(example.base),
            video=added.features.video,
            predictions=added.predictions,
            unsure=added.unsure,
            timing_ms=TimingMs.of(added.features.timing, receive_ms=receive_ms, total_ms=total_ms),
            request_id=request_id,
        )


class TaughtVersion(BaseModel):
    """A version of a taught model."""

    version: int
    state: str = Field(description="As in `/v1/models`.")
    reason: str | None = Field(description="Why it is refused.")


class TaughtSummary(BaseModel):
    """A taught model in the list."""

    name: str
    base: BaseInfo | None = Field(description="Base of the examples; without any, of the serving version.")
    labels: dict[str, int] = Field(description="Number of examples of each label.")
    examples: int
    bytes: int = Field(description="Size of the examples.")
    versions: list[TaughtVersion]
    training: bool = Field(description="Whether a training is in progress.")

    @classmethod
    def fields(cls, teacher: Teacher, name: str, entries: list[ModelEntry]) -> dict[str, Any]:
        """The fields for one model, from its entries in the model repository."""
        store = teacher.store
        served = _served(entries)
        base = store.base(name) or (None if served is None else served.base)
        return {
            "name": name,
            "base": None if base is None else BaseInfo.of(base),
            "labels": store.label_counts(name),
            "examples": len(store.examples(name)),
            "bytes": sum(stored.size_bytes for stored in store.examples(name).values()),
            "versions": [
                TaughtVersion(version=entry.version, state=entry.state, reason=entry.reason)
                for entry in entries
            ],
            "training": teacher.is_training(name),
        }


class TaughtModel(BaseModel):
    """A taught model with its examples, and the report of its serving version."""

    name: str
    base: BaseInfo | None = Field(description="Base of the examples; without any, of the serving version.")
    labels: dict[str, int] = Field(description="Number of examples of each label.")
    examples: list[ExampleInfo] = Field(description="In the order in which they were added.")
    damaged: list[str] = Field(description="Files of examples that cannot be read and are left out.")
    bytes: int = Field(description="Size of the examples.")
    versions: list[TaughtVersion]
    training: bool = Field(description="Whether a training is in progress.")
    threshold: float | None = Field(description="Answers with a lower best score are unsure.")
    report: dict[str, Any] | None = Field(
        description="What the last training found; null if no version serves."
    )

    @classmethod
    def of(cls, teacher: Teacher, name: str, entries: list[ModelEntry]) -> Self:
        """The description of one model."""
        served = _served(entries)
        examples = [ExampleInfo.of(*item) for item in teacher.store.examples(name).items()]
        return cls(
            **TaughtSummary.fields(teacher, name, entries) | {"examples": examples},
            damaged=teacher.store.damaged(name),
            threshold=None if served is None else served.threshold,
            report=None if served is None else served.report,
        )


class TeachingLimits(BaseModel):
    """Limits of teaching."""

    max_examples: int = Field(description="Examples of a taught model.")
    max_bytes: int = Field(description="Size of all examples.")
    max_models: int


class TaughtList(BaseModel):
    """All taught models, and the limits."""

    taught: list[TaughtSummary]
    bytes: int = Field(description="Size of all examples.")
    limits: TeachingLimits


class TrainedVersion(BaseModel):
    """A version that was trained and serves."""

    name: str
    version: int
    labels: list[str]
    threshold: float | None = Field(description="Answers with a lower best score are unsure.")
    damaged: list[str] = Field(description="Files of examples that could not be read and were left out.")
    report: dict[str, Any] = Field(description="Cross-validated accuracy, confusion and suggestions.")
    seconds: float
    request_id: str

    @classmethod
    def of(cls, manifest: Manifest, damaged: list[str], *, seconds: float, request_id: str) -> Self:
        """The answer for a training."""
        return cls(
            name=manifest.name,
            version=manifest.version,
            labels=list(manifest.labels),
            threshold=manifest.threshold,
            damaged=damaged,
            report=manifest.report,
            seconds=round(seconds, 3),
            request_id=request_id,
        )


def _served(entries: list[ModelEntry]) -> Manifest | None:
    return next((entry.manifest for entry in entries if entry.manifest is not None), None)
