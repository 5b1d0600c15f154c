"""Timelines without HTTP: windows, back-pressure, and endings."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.clip.sampling import uniform_indices
from service.engines.session import Inputs, batch_length
from service.errors import (
    DeadlineExceeded,
    InvalidParameter,
    ModelNotFound,
    NotAVideo,
    NotReady,
    Overloaded,
    RequestError,
)
from service.offline import timeline_of_file
from service.pipeline.batching.batcher import Inference
from service.pipeline.classification import Query
from service.pipeline.core_config import CoreConfig
from service.pipeline.limits.deadline import Deadline
from service.pipeline.models.served_model import ServedModel
from service.pipeline.recognizer import Recognizer, running
from service.pipeline.timeline import (
    Segment,
    TimelineQuery,
    TimelineSummary,
    WindowClassification,
    classify_windows,
)
from service.pipeline.window_stream import SLOTS
from tests.service.pipeline.requests import classify, timeline
from tests.service.pipeline.test_recognizer import Recorder
from tests.service.pools import dedicated_pids, until
from tests.support.clips import numbered_clip
from tests.support.long_clips import long_clip
from tests.support.tiny_models import colour_clip, write_package

pytestmark = pytest.mark.anyio

RED, GREEN, BLUE = (220, 20, 20), (20, 220, 20), (20, 20, 220)
RED_CLIP = colour_clip(RED)
# Two seconds per colour.
RED_GREEN_RED = colour_clip(RED, GREEN, RED, frames=150)
MANY_WINDOWS = numbered_clip(frames=600)
A_TENTH = TimelineQuery(window_s=0.1)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_package(tmp_path / "models", "colours")
    return tmp_path / "models"


def config(models: Path, **settings: Any) -> CoreConfig:
    return CoreConfig(models=models, decode_workers=1, inference_threads=1, **settings)


async def all_of(
    recognizer: Recognizer, clip: bytes, query: TimelineQuery, **limits: float
) -> tuple[list[WindowClassification], TimelineSummary]:
    *windows, summary = [item async for item in timeline(recognizer, clip, query, **limits)]
    assert isinstance(summary, TimelineSummary)
    return [item for item in windows if isinstance(item, WindowClassification)], summary


def spans(summary: TimelineSummary) -> list[tuple[str, int, float, float]]:
    return [(one.label, one.index, one.start_s, one.end_s) for one in summary.segments]


async def test_windows_share_the_duration_of_the_run_that_they_had_in_common(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    infer = ServedModel.infer

    async def timed(self: ServedModel, inputs: Inputs) -> Inference:
        rows.append(batch_length(inputs))
        return replace(await infer(self, inputs), queue_ms=30.0, inference_ms=60.0)

    monkeypatch.setattr(ServedModel, "infer", timed)
    async with running(config(models)) as recognizer:
        windows, summary = await all_of(recognizer, MANY_WINDOWS, A_TENTH)
    shares = [(30 / count, 60 / count) for count in rows for _ in range(count)]
    assert max(rows) > 1
    assert [(one.timing.queue_ms, one.timing.inference_ms) for one in windows] == shares
    total = summary.timing
    assert (total.queue_ms, total.inference_ms) == pytest.approx((30 * len(rows), 60 * len(rows)))
    assert total.decode_ms == pytest.approx(sum(one.timing.decode_ms for one in windows))


async def test_windows_are_classified_and_summarised(models: Path) -> None:
    async with running(config(models)) as recognizer:
        windows, summary = await all_of(recognizer, RED_GREEN_RED, TimelineQuery(window_s=1, top_k=2))
    assert [window.window for window in windows] == list(range(6))
    assert [(window.start_s, window.end_s) for window in windows] == [(k, k + 1) for k in range(6)]
    best = [window.predictions[0].label for window in windows]
    assert best == ["red", "red", "green", "green", "red", "red"]
    assert {(len(window.predictions), window.windows) for window in windows} == {(2, 6)}
    assert windows[1].sampled.frames == tuple(25 + index for index in uniform_indices(25, 8))
    assert windows[1].sampled.timestamps_s == tuple(index / 25 for index in windows[1].sampled.frames)
    assert spans(summary) == [("red", 0, 0, 2), ("green", 1, 2, 4), ("red", 0, 4, 6)]
    first, second = windows[0].predictions[0].score, windows[1].predictions[0].score
    assert summary.segments[0].score == pytest.approx((first + second) / 2)
    assert (summary.windows, summary.manifest.name, summary.provider) == (6, "colours", "cpu")
    assert (summary.video.frames, summary.video.duration_s) == (150, 6)
    assert summary.timing.decode_ms == pytest.approx(sum(window.timing.decode_ms for window in windows))
    assert summary.timing.inference_ms > 0


async def test_segments_of_overlapping_windows_overlap(models: Path) -> None:
    async with running(config(models)) as recognizer:
        _, summary = await all_of(recognizer, RED_GREEN_RED, TimelineQuery(window_s=1, stride_s=0.25))
    (_, _, _, red_ends), (_, _, green_begins, _), _ = spans(summary)
    assert green_begins < red_ends


@pytest.mark.parametrize("clip", [RED_CLIP, numbered_clip(frames=3), numbered_clip(frames=70)])
async def test_video_shorter_than_a_window_gets_the_answer_of_a_clip(models: Path, clip: bytes) -> None:
    async with running(config(models)) as recognizer:
        answer = await classify(recognizer, clip, Query())
        (window,), summary = await all_of(recognizer, clip, TimelineQuery(window_s=60, stride_s=30))
    assert window.predictions == answer.predictions
    assert window.sampled == answer.sampled
    assert summary.video == answer.video
    best = answer.predictions[0]
    (segment,) = summary.segments
    assert segment == Segment(best.label, best.index, 0, window.end_s, best.score)


async def test_ready_windows_share_a_batch(models: Path) -> None:
    recorder = Recorder()
    async with running(config(models, max_batch=8), recorder) as recognizer:
        windows, _ = await all_of(recognizer, MANY_WINDOWS, A_TENTH)
    rows = [rows for _, rows in recorder.batches]
    assert (len(windows), sum(rows)) == (240, 240)
    assert max(rows) <= SLOTS


async def test_unread_timeline_computes_only_a_few_windows(models: Path) -> None:
    recorder = Recorder()
    async with (
        running(config(models), recorder) as recognizer,
        aclosing(timeline(recognizer, MANY_WINDOWS, A_TENTH)) as lines,
    ):
        await anext(lines)
        await asyncio.sleep(0.3)
        assert sum(rows for _, rows in recorder.batches) <= SLOTS
        assert recognizer.admission.inflight == 1
        # Waiting for the reader does not count as slow inference.
        await classify(recognizer, RED_CLIP, Query(), 20)
        assert recognizer.admission.throughput("colours").interval_s < 0.3


async def test_clips_are_answered_during_a_timeline(models: Path) -> None:
    async with running(config(models)) as recognizer:
        task = asyncio.create_task(all_of(recognizer, long_clip(), TimelineQuery(window_s=60)))
        await until(lambda: bool(dedicated_pids(recognizer.decoding)))
        for _ in range(3):
            answer = await classify(recognizer, RED_CLIP, Query())
            assert answer.predictions[0].label == "red"
        assert not task.done()
        task.cancel()
        await asyncio.wait([task])
        await until(lambda: not dedicated_pids(recognizer.decoding))
        assert recognizer.admission.inflight == 0


async def test_concurrent_timelines_are_limited(models: Path) -> None:
    async with running(config(models, timelines_at_once=1)) as recognizer:
        async with aclosing(timeline(recognizer, MANY_WINDOWS, A_TENTH)) as lines:
            await anext(lines)
            with pytest.raises(Overloaded, match=r"maximum number of timelines \(1\)"):
                await all_of(recognizer, RED_CLIP, TimelineQuery())
        await all_of(recognizer, RED_CLIP, TimelineQuery())
        assert recognizer.admission.inflight == 0


async def test_first_window_and_whole_timeline_have_deadlines(models: Path) -> None:
    async with running(config(models)) as recognizer:
        with pytest.raises(DeadlineExceeded, match=r"within 0\.3 s"):
            await all_of(recognizer, long_clip(), TimelineQuery(window_s=60), first_s=0.3)
        await until(lambda: not dedicated_pids(recognizer.decoding))
        with pytest.raises(DeadlineExceeded, match="within 2 s"):
            await read_slowly(recognizer, Deadline(2))
        assert recognizer.admission.inflight == 0


async def read_slowly(recognizer: Recognizer, deadline: Deadline) -> None:
    async with (
        recognizer.accept(deadline=deadline, timeline=True) as request,
        aclosing(classify_windows(request, MANY_WINDOWS, A_TENTH)) as windows,
    ):
        async for _ in windows:
            await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    ("clip", "query", "error"),
    [
        (b"text", TimelineQuery(), NotAVideo),
        (RED_CLIP, TimelineQuery(model="none"), ModelNotFound),
        (RED_CLIP, TimelineQuery(top_k=0), InvalidParameter),
        (RED_CLIP, TimelineQuery(window_s=0.05), InvalidParameter),
        (RED_CLIP, TimelineQuery(window_s=float("nan")), InvalidParameter),
        (RED_CLIP, TimelineQuery(stride_s=4000), InvalidParameter),
        (RED_CLIP, TimelineQuery(window_s=4, stride_s=0.2), InvalidParameter),
    ],
)
async def test_refused_timeline_leaves_nothing_behind(
    models: Path, clip: bytes, query: TimelineQuery, error: type[RequestError]
) -> None:
    async with running(config(models)) as recognizer:
        with pytest.raises(error):
            await all_of(recognizer, clip, query)
        assert recognizer.admission.inflight == 0
        await until(lambda: not dedicated_pids(recognizer.decoding))


async def test_closing_waits_for_a_timeline_and_then_cancels_it(models: Path) -> None:
    async with running(config(models)) as recognizer:
        windows, _ = await all_of(recognizer, MANY_WINDOWS, A_TENTH)
        task = asyncio.create_task(all_of(recognizer, MANY_WINDOWS, A_TENTH))
        await until(lambda: recognizer.admission.inflight == 1)
        await recognizer.drain(60)
        assert len((await task)[0]) == len(windows)
    async with running(config(models)) as recognizer:
        lines = timeline(recognizer, MANY_WINDOWS, A_TENTH)
        await anext(lines)
        await recognizer.close()
        with pytest.raises(NotReady):
            async for _ in lines:
                pass


def test_file_is_labelled_without_a_server(models: Path, tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    path.write_bytes(RED_GREEN_RED)
    *windows, summary = timeline_of_file(config(models), path, TimelineQuery(window_s=2))
    assert len(windows) == 3
    assert isinstance(summary, TimelineSummary)
    assert [segment.label for segment in summary.segments] == ["red", "green", "red"]
