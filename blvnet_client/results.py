"""The documents of the service as typed, immutable structures.

Unknown fields are ignored, so a client works with later versions of the service. The `to_dict` method of each
structure returns the plain document.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the documents."""

    def to_dict(self) -> dict[str, Any]:
        """Return the document as dicts, lists, strings and numbers, as in JSON."""
        converted: dict[str, Any] = msgspec.to_builtins(self)
        return converted


class UsedModel(Document, frozen=True):
    """The model that produced a result."""

    name: str
    version: int


class ScoredLabel(Document, frozen=True):
    """A label, its index in the model's labels, and its probability from 0 to 1."""

    label: str
    index: int
    score: float


class VideoProperties(Document, frozen=True):
    """Properties of the coded video; `frames` is the number of frames that decode."""

    container: str
    codec: str
    width: int
    height: int
    rotation: int
    frames: int
    fps: float | None
    duration_s: float
    broken_packets: int = 0
    timestamps: str = "exact"
    track: int = 0


class SampledFrames(Document, frozen=True):
    """The frames that the network saw, as indices in the video, and their times in seconds."""

    frames: tuple[int, ...]
    timestamps_s: tuple[float, ...]


class ScoresOverTime(Document, frozen=True):
    """Scores of the predicted labels at each moment: a row per moment, in the order of the predictions.

    `margins` has the same shape: the evidence of a label minus that of the video's runner-up, in logits.
    Without a runner-up, as for a model with sigmoid scores, it is the evidence of the label.
    """

    timestamps_s: tuple[float, ...]
    scores: tuple[tuple[float, ...], ...]
    margins: tuple[tuple[float, ...], ...] | None = None
    runner_up: ScoredLabel | None = None


class SampledImage(Document, frozen=True):
    """A frame as an input of the network received it, a square of `size` pixels; `image` is a data URL."""

    input: str
    frame: int
    timestamp_s: float
    size: int
    image: str


class StageTimes(Document, frozen=True):
    """Duration of each stage in milliseconds."""

    receive: float
    decode: float
    queue: float
    inference: float
    total: float


class ClassifyResult(Document, frozen=True, omit_defaults=True):
    """Labels of a video; with a threshold, the answer is `unsure` if the best score is below it."""

    model: UsedModel
    predictions: tuple[ScoredLabel, ...]
    video: VideoProperties
    sampled: SampledFrames
    evidence: ScoresOverTime | None
    timing_ms: StageTimes
    sha256: str
    provider: str
    request_id: str = ""
    frames: tuple[SampledImage, ...] | None = None
    unsure: bool | None = None
    cached: bool = False

    @property
    def best(self) -> ScoredLabel:
        """The label with the highest score."""
        return self.predictions[0]


class WindowResult(Document, frozen=True, omit_defaults=True):
    """Labels of one window of a long video; `windows` is the expected number of windows."""

    window: int
    windows: int
    start_s: float
    end_s: float
    sampled: SampledFrames
    predictions: tuple[ScoredLabel, ...]
    unsure: bool | None = None


class LabelledSegment(Document, frozen=True):
    """Consecutive windows with the same best label; `score` is their mean score."""

    label: str
    index: int
    start_s: float
    end_s: float
    score: float


class SegmentList(Document, frozen=True):
    """All segments of a timeline, and the number of its windows."""

    windows: int
    segments: tuple[LabelledSegment, ...]


class TimelineResult(Document, frozen=True):
    """The last line of a timeline."""

    summary: SegmentList
    model: UsedModel
    video: VideoProperties
    timing_ms: StageTimes
    sha256: str
    provider: str
    request_id: str = ""


class InputDescription(Document, frozen=True):
    """Input of a network: uint8 `(N, T_branch, size, size, 3)`."""

    name: str
    frames: str
    size: int
    scale: int


class BaseModelReference(Document, frozen=True):
    """The model whose features a taught model uses."""

    name: str
    version: int
    sha256: str


class ModelDescription(Document, frozen=True):
    """One version of a model; fields after `reason` are set while it is loaded."""

    name: str
    version: int
    state: str
    reason: str | None = None
    inputs: tuple[InputDescription, ...] = ()
    labels: tuple[str, ...] = ()
    scores: str | None = None
    precision: str | None = None
    provider: str | None = None
    runtime: dict[str, Any] | None = None
    sha256: str | None = None
    base: BaseModelReference | None = None
    threshold: float | None = None
    feature_size: int | None = None
    trained_on: str | None = None


class ModelsResult(Document, frozen=True):
    """The models of a service, and the limits of requests by name."""

    models: tuple[ModelDescription, ...]
    limits: dict[str, Any]


class Readiness(Document, frozen=True):
    """Whether the service accepts requests, and the reason if not. True or false as a condition."""

    ready: bool
    reason: str | None = None

    def __bool__(self) -> bool:
        return self.ready


class ExampleResult(Document, frozen=True):
    """An added example; `created` is false if the same bytes were already an example.

    `labels` counts the examples of each label. `predictions` come from the serving version; they are None
    before the first training.
    """

    id: str
    created: bool
    name: str
    label: str
    group: str | None
    base: BaseModelReference
    labels: dict[str, int]
    examples: int
    video: VideoProperties
    predictions: tuple[ScoredLabel, ...] | None
    unsure: bool | None = None
    timing_ms: StageTimes | None = None
    request_id: str = ""


class ExamplesLeft(Document, frozen=True):
    """Number of examples, in total and for each label, after one was deleted."""

    labels: dict[str, int]
    examples: int


class TrainingResult(Document, frozen=True):
    """A new version of a taught model, which serves from now on."""

    name: str
    version: int
    labels: tuple[str, ...]
    threshold: float | None
    report: dict[str, Any]
    seconds: float
    request_id: str = ""
    damaged: tuple[str, ...] = ()


class TaughtExample(Document, frozen=True):
    """A stored example."""

    id: str
    label: str
    group: str | None
    added_at: str
    bytes: int


class TaughtDescription(Document, frozen=True):
    """A taught model; in a list, `examples` is the number of examples."""

    name: str
    base: BaseModelReference | None
    labels: dict[str, int]
    examples: tuple[TaughtExample, ...] | int
    versions: tuple[dict[str, Any], ...] = ()
    training: bool = False
    threshold: float | None = None
    report: dict[str, Any] | None = None
    damaged: tuple[str, ...] = ()
    bytes: int = 0


class TaughtModels(Document, frozen=True):
    """All taught models, and the limits of teaching by name."""

    taught: tuple[TaughtDescription, ...]
    limits: dict[str, Any]
    bytes: int = 0


class InvalidValue(Document, frozen=True):
    """An invalid parameter and the reason."""

    parameter: str
    detail: str


class ProblemDocument(Document, frozen=True):
    """Problem document (RFC 9457); the last four members belong to certain codes."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: tuple[InvalidValue, ...] | None = None
    limit: str | None = None
    value: float | None = None
    maximum: float | None = None


class JobProgress(Document, frozen=True):
    """Number of finished windows of a timeline, and their expected number."""

    windows: int
    of: int


class JobWebhook(Document, frozen=True):
    """Deliveries of a finished job to the URL that was given on submission."""

    url: str
    attempts: int
    delivered: bool


class Job(Document, frozen=True, tag_field="kind"):
    """Base of the two kinds of jobs; times are in RFC 3339 format.

    `state` is `queued`, `running`, `done` or `failed`. A failed job has a `problem`. `attempts` counts how
    often the job was started; it is started again if the service ends while it runs.
    """

    id: str
    state: str
    parameters: dict[str, Any]
    created_at: str
    started_at: str | None = None
    finished_at: str | None = None
    expires_at: str | None = None
    attempts: int = 0
    progress: JobProgress | None = None
    result_url: str | None = None
    problem: ProblemDocument | None = None
    webhook: JobWebhook | None = None
    request_id: str = ""

    @property
    def finished(self) -> bool:
        """Whether the job is done or has failed."""
        return self.state in ("done", "failed")


class ClassifyJob(Job, frozen=True, tag="classify"):
    """A video to classify; `result` is set when the job is done."""

    result: ClassifyResult | None = None


class TimelineJob(Job, frozen=True, tag="timeline"):
    """A long video; when it is done, `result` is its summary; `Client.jobs.windows` yields its windows."""

    result: TimelineResult | None = None


class TimelineFailure(Document, frozen=True):
    """The last line of a timeline that failed after its first window."""

    error: ProblemDocument


def parse_timeline_line(line: bytes) -> WindowResult | TimelineResult | TimelineFailure:
    """One line of a timeline.

    Raises:
        msgspec.DecodeError: the line is none of the three documents.
    """
    document = msgspec.json.decode(line)
    kinds = {"window": WindowResult, "summary": TimelineResult, "error": TimelineFailure}
    names = document if isinstance(document, dict) else ()
    for name, kind in kinds.items():
        if name in names:
            parsed: WindowResult | TimelineResult | TimelineFailure = msgspec.convert(document, kind)
            return parsed
    raise msgspec.ValidationError("the line is neither a window nor a summary nor an error")
