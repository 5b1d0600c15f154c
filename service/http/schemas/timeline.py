"""Query and NDJSON lines of `/v1/timeline`; `blvnet timeline --json` prints the same documents."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, Field, TypeAdapter

from service.clip.video import VideoInfo
from service.http.schemas.common import UNSURE, ModelRef, Problem, RecognitionParameters, TimingMs, is_none
from service.pipeline.classification import MAX_TOP_K, Prediction, Sampled
from service.pipeline.timeline import (
    DEFAULT_WINDOW_S,
    LONGEST_S,
    SHORTEST_S,
    Segment,
    TimelineSummary,
    WindowClassification,
)

Seconds = Annotated[float, Field(ge=SHORTEST_S, le=LONGEST_S)]


class TimelineParameters(RecognitionParameters):
    """Query parameters of `/v1/timeline`."""

    window_s: Seconds = Field(DEFAULT_WINDOW_S, description="Length of a window in seconds.")
    stride_s: Seconds | None = Field(
        None,
        description="Seconds between the starts of consecutive windows; at least a sixteenth of `window_s`. "
        "Default: `window_s`.",
    )
    top_k: int = Field(
        default=5, ge=1, le=MAX_TOP_K, description="Number of labels for each window, best first."
    )


class TimelineWindow(BaseModel):
    """Line with the labels of one window."""

    window: int = Field(description="Number of the window, starting at 0.")
    windows: int = Field(description="Expected number of windows.")
    start_s: float = Field(description="Start of the window, in seconds from the first frame of the video.")
    end_s: float = Field(description="End of the window; the last window ends with the video.")
    sampled: Sampled
    predictions: tuple[Prediction, ...] = Field(description="Best first.")
    unsure: bool | None = Field(default=None, exclude_if=is_none, description=UNSURE)

    @classmethod
    def of(cls, classification: WindowClassification) -> Self:
        """The line for a window's result."""
        return cls(
            window=classification.window,
            windows=classification.windows,
            start_s=classification.start_s,
            end_s=classification.end_s,
            sampled=classification.sampled,
            predictions=classification.predictions,
            unsure=classification.unsure,
        )


class TimelineTotal(BaseModel):
    """Summary of all windows."""

    windows: int
    segments: tuple[Segment, ...]


class TimelineEnd(BaseModel):
    """Last line of a complete timeline."""

    summary: TimelineTotal
    model: ModelRef
    video: VideoInfo
    timing_ms: TimingMs = Field(
        description="Sums over all windows. Decoding and inference overlap, so the stages may add up to more "
        "than the total."
    )
    sha256: str = Field(description="SHA-256 of the model's graph, as in its package and in `/v1/models`.")
    provider: str = Field(description="Where inference ran: `cpu`, `cuda`, `tensorrt` or `openvino`.")
    request_id: str

    @classmethod
    def of(
        cls,
        summary: TimelineSummary,
        *,
        receive_ms: float = 0.0,
        total_ms: float | None = None,
        request_id: str = "",
    ) -> Self:
        """The line for the pipeline's summary; without a server it has neither upload nor request id."""
        return cls(
            summary=TimelineTotal(windows=summary.windows, segments=summary.segments),
            model=ModelRef(name=summary.manifest.name, version=summary.manifest.version),
            video=summary.video,
            timing_ms=TimingMs.of(summary.timing, receive_ms=receive_ms, total_ms=total_ms),
            sha256=summary.manifest.sha256,
            provider=summary.provider,
            request_id=request_id,
        )


class TimelineError(BaseModel):
    """Last line of a timeline that failed after the first window."""

    error: Problem


TimelineLine = TimelineWindow | TimelineEnd | TimelineError
LINE: TypeAdapter[TimelineLine] = TypeAdapter(TimelineLine)
