"""Documents of the Open Inference Protocol v2 and of Triton's extensions to it."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, Field

from service.monitoring.metrics import DurationTotal, ModelUsage

MAX_TENSORS = 16

Parameters = dict[str, Any]


class ServerMetadata(BaseModel):
    """Name, version and extensions of the server."""

    name: str
    version: str
    extensions: list[str]


class ServerLive(BaseModel):
    """Answer of the liveness probe."""

    live: bool


class ServerReady(BaseModel):
    """Answer of the readiness probe."""

    ready: bool


class TensorMetadata(BaseModel):
    """Input or output of a graph; -1 marks an axis of any length."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """Versions and tensors of a model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelReady(BaseModel):
    """Answer of a model's readiness probe."""

    name: str
    ready: bool


class InferenceError(BaseModel):
    """Error of the protocol."""

    error: str


class RequestInput(BaseModel):
    """Input tensor. Its values are in `data`, or in the binary section with `binary_data_size` bytes."""

    name: str
    shape: list[Annotated[int, Field(ge=0, le=2**31)]] = Field(max_length=8)
    datatype: str
    parameters: Parameters = Field(default_factory=dict)
    data: list[Any] | None = None


class RequestOutput(BaseModel):
    """Requested output tensor."""

    name: str
    parameters: Parameters = Field(default_factory=dict)


class InferenceRequest(BaseModel):
    """JSON section of an inference request."""

    id: str | None = None
    parameters: Parameters = Field(default_factory=dict)
    inputs: list[RequestInput] = Field(min_length=1, max_length=MAX_TENSORS)
    outputs: list[RequestOutput] = Field(default_factory=list, max_length=MAX_TENSORS)


class ResponseOutput(BaseModel):
    """Output tensor. Its values are in `data`, or in the binary section with `binary_data_size` bytes."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, int] = {}
    data: list[float] | list[str] | None = None


class InferenceResponse(BaseModel):
    """JSON section of an inference response."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[ResponseOutput]


class RepositoryEntry(BaseModel):
    """Row of the model repository index."""

    name: str
    version: str
    state: str = Field(description="`READY`, `LOADING`, `UNLOADING` or `UNAVAILABLE`.")
    reason: str = Field(description="Why the version is unavailable; empty if there is no reason.")


class ModelConfigTensor(BaseModel):
    """Input or output in a model configuration; `dims` leave out the batch axis."""

    name: str
    data_type: str
    dims: list[int]


class TritonModelConfig(BaseModel):
    """Model configuration, as far as it applies here."""

    name: str
    platform: str
    backend: str
    version_policy: dict[str, dict[str, list[int]]]
    max_batch_size: int
    input: list[ModelConfigTensor]
    output: list[ModelConfigTensor]


class DurationStatistics(BaseModel):
    """Number of events and their total duration in nanoseconds."""

    count: int
    ns: int

    @classmethod
    def of(cls, total: DurationTotal) -> Self:
        """Convert a total to nanoseconds."""
        return cls(count=total.count, ns=round(total.seconds * 1e9))


class InferenceStatistics(BaseModel):
    """Durations of requests by result and stage; decoding counts as `compute_input`."""

    success: DurationStatistics
    fail: DurationStatistics
    queue: DurationStatistics
    compute_input: DurationStatistics
    compute_infer: DurationStatistics


class ModelStatistics(BaseModel):
    """Statistics of one model since the start of the process."""

    name: str
    version: str
    last_inference: int = Field(description="Time of the last successful request, in ms since 1970; 0: none.")
    inference_count: int = Field(description="Clips, counting each row of a batch.")
    execution_count: int = Field(description="Batches.")
    inference_stats: InferenceStatistics

    @classmethod
    def of(cls, name: str, version: int, usage: ModelUsage) -> Self:
        """Create the statistics from the totals of the metrics."""
        return cls(
            name=name,
            version=str(version),
            last_inference=round(usage.last_success * 1e3),
            inference_count=usage.rows,
            execution_count=usage.batches,
            inference_stats=InferenceStatistics(
                success=DurationStatistics.of(usage.success),
                fail=DurationStatistics.of(usage.failure),
                queue=DurationStatistics.of(usage.stages["queue"]),
                compute_input=DurationStatistics.of(usage.stages["decode"]),
                compute_infer=DurationStatistics.of(usage.stages["inference"]),
            ),
        )


class StatisticsList(BaseModel):
    """Statistics of several models."""

    model_stats: list[ModelStatistics]
