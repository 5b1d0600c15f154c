"""The timeline of a long video: its windows in order, each as soon as its labels are known.

    accepted ──> decoded ahead, a few windows ──> batched and run ──> scored ──> returned ──> summary
                            ^                                                       │
                            └──────────── continues when they are taken ────────────┘

The reader sets the pace: apart from a few waiting windows, nothing is decoded or run for a reader who does
not read. A timeline has one request at a time in the model's queue, with the windows that are ready at that
time, so it takes turns with other requests like a single clip.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import numpy as np

from service.clip.video import VideoInfo
from service.clip.windowing import US_PER_S, WindowRule
from service.errors import InvalidParameter
from service.packages.manifest import Manifest
from service.pipeline.accepted_request import AcceptedRequest
from service.pipeline.classification import Prediction, Sampled, Timings, check_top_k, is_unsure, predictions
from service.workers.shared_memory import VideoFile

DEFAULT_WINDOW_S = 4.0
SHORTEST_S, LONGEST_S = 0.1, 3600.0
# Number of windows that may overlap at one moment; a worker keeps the frames of all overlapping windows.
MOST_OVERLAPPING = 16


@dataclass(frozen=True)
class TimelineQuery:
    """The query for a long video; without a stride, windows neither overlap nor leave gaps."""

    model: str | None = None
    window_s: float = DEFAULT_WINDOW_S
    stride_s: float | None = None
    top_k: int = 5

    @property
    def rule(self) -> WindowRule:
        """The position of the windows."""
        return WindowRule.of(self.window_s, self.window_s if self.stride_s is None else self.stride_s)

    def check(self) -> None:
        """Raise `InvalidParameter` for a value that is out of range."""
        check_top_k(self.top_k)
        for name, value in (("window_s", self.window_s), ("stride_s", self.stride_s)):
            if value is not None and not SHORTEST_S <= value <= LONGEST_S:
                raise InvalidParameter(
                    f"{name} must be from {SHORTEST_S:g} to {LONGEST_S:g}, it is {value:g}."
                )
        if self.rule.length_us > MOST_OVERLAPPING * self.rule.stride_us:
            raise InvalidParameter(
                f"stride_s must be at least window_s / {MOST_OVERLAPPING}, it is {self.stride_s:g}."
            )


@dataclass(frozen=True)
class WindowClassification:
    """The labels of one window; `windows` is the number of windows as far as it is known.

    The inference times are the window's share of the run that it was part of.
    """

    window: int
    windows: int
    start_s: float
    end_s: float
    sampled: Sampled
    predictions: tuple[Prediction, ...]
    unsure: bool | None
    timing: Timings


@dataclass(frozen=True)
class Segment:
    """Consecutive windows with the same best label; `score` is the mean of their scores."""

    label: str
    index: int
    start_s: float
    end_s: float
    score: float


@dataclass(frozen=True)
class TimelineSummary:
    """The result of all windows. The stages of `timing` overlap in time."""

    manifest: Manifest
    provider: str
    windows: int
    segments: tuple[Segment, ...]
    video: VideoInfo
    timing: Timings


async def classify_windows(
    request: AcceptedRequest, video: VideoFile, query: TimelineQuery
) -> AsyncGenerator[WindowClassification | TimelineSummary]:
    """Label the windows of a video in order; the summary comes last. Close the generator if you stop early.

    Raises:
        RequestError: the subclass says why; `service.errors` lists them. Windows returned before are valid.
    """
    query.check()
    model = request.model.model
    total = _Total()
    with request.timelines.taken(), request.ticket.in_progress(measured=False):
        async with request.windows(video, query.rule) as stream:
            while decoded := await stream.take():
                inference = await request.model.infer(
                    {
                        name: np.concatenate([one.inputs[name] for one in decoded])
                        for name in decoded[0].inputs
                    }
                )
                for row, window in enumerate(decoded):
                    sample = window.sample
                    logits = inference.outputs.logits[row : row + 1]
                    best = predictions(model, logits, query.top_k)
                    classification = WindowClassification(
                        window=sample.window.number,
                        windows=sample.windows,
                        start_s=sample.window.start_us / US_PER_S,
                        end_s=sample.window.end_us / US_PER_S,
                        sampled=Sampled.of(sample.indices, sample.timestamps_s),
                        predictions=best,
                        unsure=is_unsure(model, best),
                        timing=Timings(
                            decode_ms=window.decode_ms,
                            queue_ms=inference.queue_ms / len(decoded),
                            inference_ms=inference.inference_ms / len(decoded),
                        ),
                    )
                    total.add(classification)
                    yield classification
            assert stream.result is not None
            yield TimelineSummary(
                manifest=model.manifest,
                provider=model.session.runtime.provider,
                windows=stream.result.windows,
                segments=tuple(segment.closed() for segment in total.segments),
                video=stream.result.video,
                timing=Timings(total.decode_ms, total.queue_ms, total.inference_ms),
            )


@dataclass
class _OpenSegment:
    """A segment that the next window may extend."""

    best: Prediction
    start_s: float
    end_s: float = 0.0
    windows: int = 0
    scores: float = 0.0

    def closed(self) -> Segment:
        score = self.scores / self.windows
        return Segment(self.best.label, self.best.index, self.start_s, self.end_s, score)


@dataclass
class _Total:
    """The sums over all windows, for the summary."""

    decode_ms: float = 0.0
    queue_ms: float = 0.0
    inference_ms: float = 0.0
    segments: list[_OpenSegment] = field(default_factory=list)

    def add(self, window: WindowClassification) -> None:
        self.decode_ms += window.timing.decode_ms
        self.queue_ms += window.timing.queue_ms
        self.inference_ms += window.timing.inference_ms
        best = window.predictions[0]
        if not self.segments or self.segments[-1].best.index != best.index:
            self.segments.append(_OpenSegment(best, window.start_s))
        segment = self.segments[-1]
        segment.windows += 1
        segment.scores += best.score
        segment.end_s = window.end_s
