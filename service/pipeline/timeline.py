"""From a long video to what happens in it when, without HTTP: window by window, each as soon as it is known.

    admitted ──> decoded ahead, a few windows ──> batched and run ──> scored ──> told ──> summed up
                            ^                                                     │
                            └──────────── goes on when they are taken ────────────┘

Whoever reads sets the pace: nothing is decoded or run for a reader who does not read, but for the few windows
that wait. A timeline has one request in a model's queue at a time, of the windows that are ready by then, so
it takes its turn among others as any clip does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from service.clip.video import VideoInfo
from service.clip.windows import US_PER_S, WindowRule
from service.errors import DeadlineExceeded, InvalidParameter
from service.manifest import Manifest
from service.packages import Model
from service.pipeline import scoring
from service.pipeline.batcher import Inference
from service.pipeline.recognition import MAX_TOP_K, Prediction, Timings, predictions
from service.pipeline.recognizer import Recognizer
from service.pipeline.serving import Serving
from service.pipeline.window_stream import DecodedWindow
from service.runtime.session import Inputs
from service.workers.shared_files import Clip

DEFAULT_WINDOW_S = 4.0
SHORTEST_S, LONGEST_S = 0.1, 3600.0
# Windows that may lie over the same moment; the frames of all of them are kept meanwhile.
MOST_OVERLAPPING = 16

Found = TypeVar("Found")


@dataclass(frozen=True)
class TimelineQuery:
    """What is asked of a long video; without a stride, windows follow one another without gap or overlap."""

    model: str | None = None
    window_s: float = DEFAULT_WINDOW_S
    stride_s: float | None = None
    top_k: int = 5

    @property
    def rule(self) -> WindowRule:
        """Where the windows lie."""
        return WindowRule.of(self.window_s, self.window_s if self.stride_s is None else self.stride_s)

    def check(self) -> None:
        """Raise `InvalidParameter` for a value that is out of range."""
        if not 1 <= self.top_k <= MAX_TOP_K:
            raise InvalidParameter(f"top_k must be from 1 to {MAX_TOP_K}, it is {self.top_k}.")
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
class Deadlines:
    """Times on the clock of `time.monotonic`: for the first window, and for all of them; None is no limit."""

    first: float | None = None
    last: float | None = None


@dataclass(frozen=True)
class WindowRecognition:
    """What happens in a window, number `window` of `windows`, as far as is known.

    `indices` and `timestamps_s` are those of the frames taken. The times of inference are the window's share
    of the run that it was in.
    """

    window: int
    windows: int
    start_s: float
    end_s: float
    indices: tuple[int, ...]
    timestamps_s: tuple[float, ...]
    predictions: tuple[Prediction, ...]
    timing: Timings


@dataclass(frozen=True)
class Segment:
    """Windows in a row with the same best label: from the beginning of the first to the end of the last.

    `score` is the mean of theirs.
    """

    label: str
    index: int
    start_s: float
    end_s: float
    score: float


@dataclass(frozen=True)
class TimelineSummary:
    """What was found, when all windows are told. Of `timing`, stages go on side by side."""

    manifest: Manifest
    provider: str
    windows: int
    segments: tuple[Segment, ...]
    video: VideoInfo
    timing: Timings


async def recognize_timeline(
    recognizer: Recognizer,
    clip: Clip,
    query: TimelineQuery,
    deadlines: Deadlines = Deadlines(),
    model: Serving | None = None,
) -> AsyncGenerator[WindowRecognition | TimelineSummary]:
    """Label the windows of a video one after the other; the summary comes last. To be closed if left early.

    Args:
        recognizer: what does it.
        clip: the file's path, bytes, or an open file that has a descriptor.
        query: what is asked.
        deadlines: when to have what.
        model: what to ask, where the caller holds it already; else it goes by the query.

    Raises:
        RequestError: the leaf says why; `service.errors` lists them. What was told before holds.
    """
    query.check()
    limit = _earlier(deadlines.first, deadlines.last)
    with recognizer.timeline_place(limit), (model or recognizer.model(query.model)).held() as held:
        account = _Account(held.model, query.top_k)
        async with recognizer.windows(clip, held, query.rule) as stream:
            while decoded := await _by(limit, stream.take()):
                inference = await _by(limit, held.batcher.infer(_stacked(decoded)))
                for recognition in account.told(decoded, inference):
                    yield recognition
                limit = deadlines.last
            assert stream.found is not None
            yield account.summary(stream.found.windows, stream.found.video)


def _earlier(one: float | None, other: float | None) -> float | None:
    return min((deadline for deadline in (one, other) if deadline is not None), default=None)


async def _by(deadline: float | None, awaited: Awaitable[Found]) -> Found:
    try:
        async with asyncio.timeout_at(deadline):
            return await awaited
    except TimeoutError as exc:
        raise DeadlineExceeded("The timeline did not go on in its time.") from exc


def _stacked(decoded: list[DecodedWindow]) -> Inputs:
    """The windows as rows of one request."""
    return {name: np.concatenate([one.inputs[name] for one in decoded]) for name in decoded[0].inputs}


@dataclass
class _Account:
    """Scores windows, and remembers of them what the summary will say."""

    model: Model
    top_k: int
    decode_ms: float = 0.0
    queue_ms: float = 0.0
    inference_ms: float = 0.0
    segments: list[_OpenSegment] = field(default_factory=list)

    def told(self, decoded: list[DecodedWindow], inference: Inference) -> Iterator[WindowRecognition]:
        """What to tell of the windows of one run."""
        for row, window in enumerate(decoded):
            recognition = WindowRecognition(
                window=window.found.number,
                windows=window.found.windows,
                start_s=window.found.start_us / US_PER_S,
                end_s=window.found.end_us / US_PER_S,
                indices=window.found.indices,
                timestamps_s=window.found.timestamps_s,
                predictions=predictions(
                    self.model.manifest,
                    scoring.rank(inference.outputs.logits[row : row + 1], self.top_k),
                ),
                timing=Timings(
                    decode_ms=window.decode_ms,
                    queue_ms=inference.queue_ms / len(decoded),
                    inference_ms=inference.inference_ms / len(decoded),
                ),
            )
            self._add(recognition)
            yield recognition

    def summary(self, windows: int, video: VideoInfo) -> TimelineSummary:
        """What to tell at the end."""
        return TimelineSummary(
            manifest=self.model.manifest,
            provider=self.model.session.runtime.provider,
            windows=windows,
            segments=tuple(segment.closed() for segment in self.segments),
            video=video,
            timing=Timings(self.decode_ms, self.queue_ms, self.inference_ms),
        )

    def _add(self, recognition: WindowRecognition) -> None:
        self.decode_ms += recognition.timing.decode_ms
        self.queue_ms += recognition.timing.queue_ms
        self.inference_ms += recognition.timing.inference_ms
        best = recognition.predictions[0]
        if not self.segments or self.segments[-1].best.index != best.index:
            self.segments.append(_OpenSegment(best, recognition.start_s))
        self.segments[-1].add(best.score, recognition.end_s)


@dataclass
class _OpenSegment:
    """A segment that may go on."""

    best: Prediction
    start_s: float
    end_s: float = 0.0
    windows: int = 0
    scores: float = 0.0

    def add(self, score: float, end_s: float) -> None:
        self.windows += 1
        self.scores += score
        self.end_s = end_s

    def closed(self) -> Segment:
        score = self.scores / self.windows
        return Segment(self.best.label, self.best.index, self.start_s, self.end_s, score)
