"""The lines of `/v1/timeline`, and of `blvnet timeline --json`: the public contract of both."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from pydantic import BaseModel, Field, TypeAdapter

from service.http.schemas import (
    S_DIGITS,
    ModelRef,
    Prediction,
    Problem,
    RecognitionParameters,
    Sampled,
    Timing,
    Video,
)
from service.pipeline.timeline import (
    DEFAULT_WINDOW_S,
    LONGEST_S,
    SHORTEST_S,
    TimelineSummary,
    WindowRecognition,
)

Seconds = Annotated[float, Field(ge=SHORTEST_S, le=LONGEST_S)]


class TimelineParameters(RecognitionParameters):
    """The query of `/v1/timeline`."""

    window_s: Seconds = Field(DEFAULT_WINDOW_S, description="Length of a window in seconds.")
    stride_s: Seconds | None = Field(
        None,
        description="Seconds from the beginning of one window to that of the next; the length of a window if "
        "not given, and a sixteenth of it at least.",
    )
    top_k: int = Field(default=5, ge=1, le=100, description="How many labels for each window, best first.")


class TimelineWindow(BaseModel):
    """A line: what happens in one window."""

    window: int = Field(description="Its number, from 0 on.")
    windows: int = Field(description="How many there will be, as far as is known.")
    start_s: float = Field(description="Where it begins, from the first frame of the video.")
    end_s: float = Field(description="Where it ends; the last one ends with the video.")
    sampled: Sampled
    predictions: list[Prediction] = Field(description="Best first.")

    @classmethod
    def of(cls, recognition: WindowRecognition) -> TimelineWindow:
        """What the core found, as it is shown."""
        return cls(
            window=recognition.window,
            windows=recognition.windows,
            start_s=recognition.start_s,
            end_s=recognition.end_s,
            sampled=Sampled(
                frames=list(recognition.indices),
                timestamps_s=[round(time_s, S_DIGITS) for time_s in recognition.timestamps_s],
            ),
            predictions=[Prediction(**asdict(prediction)) for prediction in recognition.predictions],
        )


class TimelineSegment(BaseModel):
    """Windows in a row with the same best label."""

    label: str
    index: int = Field(description="Position in the model's labels.")
    start_s: float = Field(description="Where the first of them begins.")
    end_s: float = Field(description="Where the last of them ends.")
    score: float = Field(description="Mean of their scores for the label.")


class TimelineTotal(BaseModel):
    """The windows, summed up."""

    windows: int
    segments: list[TimelineSegment]


class TimelineEnd(BaseModel):
    """The last line, when all went well."""

    summary: TimelineTotal
    model: ModelRef
    video: Video
    timing_ms: Timing = Field(
        description="Sums over all windows. Windows are decoded while others are inferred, so the stages may "
        "be more than the total."
    )
    sha256: str = Field(description="Of the model's graph, as its package and `/v1/models` have it.")
    provider: str = Field(description="Where it ran: `cpu`, `cuda`, `tensorrt` or `openvino`.")
    request_id: str

    @classmethod
    def of(
        cls, summary: TimelineSummary, *, receive_ms: float, total_ms: float, request_id: str
    ) -> TimelineEnd:
        """What the core found, as it is shown."""
        return cls(
            summary=TimelineTotal(
                windows=summary.windows,
                segments=[TimelineSegment(**asdict(segment)) for segment in summary.segments],
            ),
            model=ModelRef(name=summary.manifest.name, version=summary.manifest.version),
            video=Video(**asdict(summary.video)),
            timing_ms=Timing.of(summary.timing, receive_ms=receive_ms, total_ms=total_ms),
            sha256=summary.manifest.sha256,
            provider=summary.provider,
            request_id=request_id,
        )


class TimelineError(BaseModel):
    """The last line, when the rest of the windows cannot be had."""

    error: Problem


TimelineLine = TimelineWindow | TimelineEnd | TimelineError
LINE: TypeAdapter[TimelineLine] = TypeAdapter(TimelineLine)
