"""Schemas that several routes and the command line share: part of the public API of `/v1`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from service.pipeline.classification import Timings

# Microseconds: container time bases and clocks are no more precise.
MS_DIGITS = 3
UNSURE = (
    "With a taught model: whether the best score is below the model's threshold, so that the video may show "
    "none of the labels. Left out for models without a threshold."
)


class RecognitionParameters(BaseModel):
    """Query parameters of every recognition route. Unknown names are refused, so typos are noticed."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(
        None,
        min_length=1,
        max_length=128,
        description="Name of the model. Default: the service's default model, or the first by name.",
    )


class ModelRef(BaseModel):
    """The model that produced the answer."""

    name: str
    version: int


class TimingMs(BaseModel):
    """Duration of each stage in milliseconds."""

    receive: float
    decode: float
    queue: float
    inference: float
    total: float

    @classmethod
    def of(cls, timings: Timings, *, receive_ms: float = 0.0, total_ms: float | None = None) -> Self:
        """The pipeline's stages with the upload and the total; without a server the total is their sum."""
        if total_ms is None:
            total_ms = receive_ms + timings.decode_ms + timings.queue_ms + timings.inference_ms
        return cls(
            receive=round(receive_ms, MS_DIGITS),
            decode=round(timings.decode_ms, MS_DIGITS),
            queue=round(timings.queue_ms, MS_DIGITS),
            inference=round(timings.inference_ms, MS_DIGITS),
            total=round(total_ms, MS_DIGITS),
        )

    def stages(self) -> dict[str, float]:
        """The stages without the total."""
        return self.model_dump(exclude={"total"})


class VideoForm(BaseModel):
    """Form with one field, the video."""

    model_config = ConfigDict(extra="forbid")

    file: str = Field(description="The video.", json_schema_extra={"format": "binary"})


class Health(BaseModel):
    """Successful health check; a failed one is answered with a problem document."""

    status: str


class ParameterError(BaseModel):
    """An invalid parameter and the reason."""

    parameter: str
    detail: str


class Problem(BaseModel):
    """Problem document (RFC 9457). Programs should branch on `code`."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[ParameterError] | None = Field(
        default=None, description="With `invalid_parameter`: the invalid parameters and the reasons."
    )
    limit: str | None = Field(default=None, description="With `over_limit`: name of the limit.")
    value: float | None = Field(default=None, description="With `over_limit`: value of the video.")
    maximum: float | None = Field(default=None, description="With `over_limit`: highest allowed value.")


def is_none(value: object) -> bool:
    """Return whether a field is left out of a document."""
    return value is None


def server_timing(timing_ms: Mapping[str, float]) -> str:
    """Return the value of the `Server-Timing` header for these stages, in milliseconds."""
    return ", ".join(f"{stage};dur={round(value, MS_DIGITS)}" for stage, value in timing_ms.items())
