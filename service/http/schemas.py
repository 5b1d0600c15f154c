"""The shapes of requests and answers: the public contract of `/v1`, and of `--json` on the command line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from enum import IntEnum

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from service.manifest import inputs_to_json
from service.pipeline.model_repository import ModelEntry as StoredModel
from service.pipeline.recognition import Recognition, Timings
from service.runtime.choice import Opened

# A microsecond: what a clock and a container's time base can mean.
MS_DIGITS = 3
S_DIGITS = 6


CLASSIFY_EXAMPLE: dict[str, JsonValue] = {
    "model": {"name": "blvnet-tam-mini", "version": 2},
    "predictions": [
        {"label": "Moving something from left to right", "index": 4, "score": 0.97},
        {"label": "Moving something up", "index": 7, "score": 0.02},
    ],
    "video": {
        "container": "mp4",
        "codec": "h264",
        "width": 320,
        "height": 240,
        "rotation": 0,
        "frames": 48,
        "fps": 12.0,
        "duration_s": 4.0,
        "broken_packets": 0,
    },
    "sampled": {"frames": [6, 18, 30, 42], "timestamps_s": [0.5, 1.5, 2.5, 3.5]},
    "evidence": {"timestamps_s": [1.0, 3.0], "scores": [[0.91, 0.06], [0.99, 0.01]]},
    "timing_ms": {"receive": 1.2, "decode": 14.8, "queue": 0.1, "inference": 21.5, "total": 38.2},
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "provider": "cpu",
    "request_id": "6f1f9f0c2f8e4b0f9c59ad0c9bfa0a3c",
}


class Crops(IntEnum):
    """Crops of each frame: the centre; three along the longer side; five; ten, the five and their mirrors."""

    ONE = 1
    THREE = 3
    FIVE = 5
    TEN = 10


class RecognitionParameters(BaseModel):
    """What any query for labels may have. A name that is not here is refused, as it is a typing error."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(
        None,
        min_length=1,
        max_length=128,
        description="Name of the model; the only or first one if not given.",
    )


class ClassifyParameters(RecognitionParameters):
    """The query of `/v1/classify`."""

    top_k: int = Field(default=5, ge=1, le=100, description="How many labels to answer with, best first.")
    clips: int = Field(
        default=1, ge=1, le=10, description="Clips sampled from the video; their scores are averaged."
    )
    crops: Crops = Field(default=Crops.ONE, description="Crops of each frame; their scores are averaged.")
    evidence: bool = Field(default=False, description="Also say what each moment contributed to each label.")


class ModelRef(BaseModel):
    """Which model answered."""

    name: str
    version: int


class Prediction(BaseModel):
    """One label with its probability."""

    label: str
    index: int = Field(description="Position in the model's labels.")
    score: float = Field(description="Probability, 0 to 1.")


class Video(BaseModel):
    """What the file is, as coded."""

    container: str
    codec: str
    width: int
    height: int
    rotation: int = Field(
        description="Degrees clockwise to turn a frame for display; frames are turned before use."
    )
    frames: int = Field(description="Frames that decode.")
    fps: float
    duration_s: float
    broken_packets: int = Field(
        description="Packets that the decoder refused or made a damaged frame of, of those it was given."
    )


class Sampled(BaseModel):
    """The frames that the network saw."""

    frames: list[int]
    timestamps_s: list[float]


class Evidence(BaseModel):
    """What each moment said, before averaging."""

    timestamps_s: list[float]
    scores: list[list[float]] = Field(description="Per moment, one score for each prediction in their order.")


class Timing(BaseModel):
    """Where the time went, in milliseconds."""

    receive: float
    decode: float
    queue: float
    inference: float
    total: float

    @classmethod
    def of(cls, timings: Timings, *, receive_ms: float, total_ms: float) -> Timing:
        """What the core took, between what came before it and the whole."""
        return cls(
            receive=round(receive_ms, MS_DIGITS),
            decode=round(timings.decode_ms, MS_DIGITS),
            queue=round(timings.queue_ms, MS_DIGITS),
            inference=round(timings.inference_ms, MS_DIGITS),
            total=round(total_ms, MS_DIGITS),
        )

    def stages(self) -> dict[str, float]:
        """The stages without their total."""
        return self.model_dump(exclude={"total"})


class Classification(BaseModel):
    """What is happening in a clip."""

    model: ModelRef
    predictions: list[Prediction] = Field(description="Best first.")
    video: Video
    sampled: Sampled
    evidence: Evidence | None
    timing_ms: Timing
    sha256: str = Field(description="Of the model's graph, as its package and `/v1/models` have it.")
    provider: str = Field(description="Where it ran: `cpu`, `cuda`, `tensorrt` or `openvino`.")

    @classmethod
    def of(cls, recognition: Recognition, *, receive_ms: float, total_ms: float) -> Classification:
        """What the core found, as it is shown."""
        evidence = recognition.evidence
        return cls(
            model=ModelRef(name=recognition.manifest.name, version=recognition.manifest.version),
            predictions=[Prediction(**asdict(prediction)) for prediction in recognition.predictions],
            video=Video(**asdict(recognition.video)),
            sampled=Sampled(frames=list(recognition.indices), timestamps_s=_times(recognition.timestamps_s)),
            evidence=None
            if evidence is None
            else Evidence(
                timestamps_s=_times(evidence.timestamps_s), scores=list(map(list, evidence.scores))
            ),
            timing_ms=Timing.of(recognition.timing, receive_ms=receive_ms, total_ms=total_ms),
            sha256=recognition.manifest.sha256,
            provider=recognition.provider,
        )


class ClassifyAnswer(Classification):
    """The answer of `/v1/classify`."""

    model_config = ConfigDict(json_schema_extra={"example": CLASSIFY_EXAMPLE})

    request_id: str


class GraphInput(BaseModel):
    """One input of the network, uint8 `(N, T_branch, size, size, 3)`."""

    name: str
    frames: str
    size: int
    scale: int


class Runtime(BaseModel):
    """What a model runs on, and how that was chosen."""

    engine: str = Field(description="`onnxruntime` or `openvino`.")
    version: str = Field(description="Of the engine.")
    arithmetic: str = Field(description="What it computes in: `f32`, `f16`, `bf16` or `int8`.")
    threads: int = Field(description="Threads of a lone clip's inference, where it runs on the CPU.")
    streams: int = Field(
        description="Inferences of one thread each that run side by side when several clips are under way; "
        "1, where there are none."
    )
    batches: list[int] = Field(
        description="Clips that one inference may have on a device; those that it was prepared for. Empty "
        "where cores infer."
    )
    chosen: str = Field(
        description="`asked`: by the setting; `measured`: as the fastest; `remembered`: as such from an "
        "earlier start; `first`: as the first that works, there being no reference to compare engines by."
    )
    measured_ms: dict[str, float] = Field(
        description="Time of one clip on each candidate that was compared, in milliseconds."
    )

    @classmethod
    def of(cls, opened: Opened) -> Runtime:
        """What the core chose, as it is shown."""
        runtime = opened.session.runtime
        return cls(
            engine=runtime.engine,
            version=runtime.version,
            arithmetic=runtime.arithmetic,
            threads=runtime.threads,
            streams=1 if opened.streams is None else opened.streams.pace.streams,
            batches=[] if opened.batches is None else list(opened.batches.sizes),
            chosen=opened.chosen,
            measured_ms=dict(opened.measured_ms),
        )


class ModelEntry(BaseModel):
    """One version of a model. One that was refused has a `reason`; what is not loaded has little else."""

    name: str
    version: int
    state: str = Field(description="`loading`, `ready`, `unloading`, `unloaded` or `refused`.")
    reason: str | None = Field(
        default=None,
        description="Why it was refused. Of one that is ready: its package has changed since it was loaded, "
        "and is refused as it is now.",
    )
    inputs: list[GraphInput] = []
    labels: list[str] = []
    precision: str | None = None
    provider: str | None = Field(default=None, description="Where it runs.")
    runtime: Runtime | None = Field(default=None, description="What it runs on there.")
    sha256: str | None = None

    @classmethod
    def of(cls, model: StoredModel) -> ModelEntry:
        """The entry for a model as the core has it."""
        entry = cls(name=model.name, version=model.version, state=model.state, reason=model.reason)
        if model.manifest is None or model.opened is None:
            return entry
        manifest = model.manifest
        return entry.model_copy(
            update={
                "inputs": [GraphInput(**item) for item in inputs_to_json(manifest.clip)],
                "labels": list(manifest.labels),
                "precision": manifest.precision,
                "provider": model.provider,
                "runtime": Runtime.of(model.opened),
                "sha256": manifest.sha256,
            }
        )


class Limits(BaseModel):
    """What a request may ask for."""

    max_upload_bytes: int
    max_pixels: int
    max_duration_s: float
    max_frames: int
    max_decoded_pixels: int
    max_streams: int
    max_edits: int
    max_windows: int = Field(description="Of a timeline.")
    request_timeout_s: float
    timeline_timeout_s: float
    key_requests_per_minute: int | None = Field(description="With one API key; any number, if null.")
    key_requests_at_once: int | None = Field(description="Under way with one API key; any number, if null.")
    decode_sandbox: list[str] = Field(
        description="The kernel's fences around decoding: of `seccomp` and `landlock` those that it has."
    )


class ModelList(BaseModel):
    """The models that are served, and the limits of requests."""

    models: list[ModelEntry]
    limits: Limits


class Health(BaseModel):
    """All is well; when it is not, the answer is a problem."""

    status: str


class ServerMetadata(BaseModel):
    """The server, as the Open Inference Protocol describes it."""

    name: str
    version: str
    extensions: list[str]


class ServerLive(BaseModel):
    """That the server answers."""

    live: bool


class ServerReady(BaseModel):
    """That the server takes requests."""

    ready: bool


class TensorMetadata(BaseModel):
    """An input or output of a graph; -1 stands for an axis that is free."""

    name: str
    datatype: str
    shape: list[int]


class V2Model(BaseModel):
    """A model, as the Open Inference Protocol describes it."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class V2ModelReady(BaseModel):
    """That a model takes requests."""

    name: str
    ready: bool


class InferredTensor(BaseModel):
    """An output of a graph; its values are in `data`, or behind the document as so many bytes."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, int] = {}
    data: list[float] | list[str] | None = None


class InferenceResponse(BaseModel):
    """What came out of a graph, as the Open Inference Protocol has it."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[InferredTensor]


class RepositoryEntry(BaseModel):
    """A version of a model, as Triton's model repository extension lists it."""

    name: str
    version: str
    state: str = Field(description="`READY`, `LOADING`, `UNLOADING` or `UNAVAILABLE`.")
    reason: str = Field(description="Why it is unavailable; empty where there is nothing to say.")


class ParameterError(BaseModel):
    """One parameter that is not valid."""

    parameter: str
    detail: str


class Problem(BaseModel):
    """An RFC 9457 problem document; `code` is what a program should look at."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[ParameterError] | None = Field(
        default=None, description="With `invalid_parameter`: which and why."
    )
    limit: str | None = Field(default=None, description="With `over_limit`: the name of the limit.")
    value: float | None = Field(default=None, description="With `over_limit`: what the video has.")
    maximum: float | None = Field(default=None, description="With `over_limit`: what is allowed.")


def _times(values_s: Iterable[float]) -> list[float]:
    return [round(value, S_DIGITS) for value in values_s]


def server_timing(timing_ms: Mapping[str, float]) -> str:
    """The value of a `Server-Timing` header: stages, and perhaps their total, in milliseconds."""
    return ", ".join(f"{stage};dur={round(value, MS_DIGITS)}" for stage, value in timing_ms.items())
