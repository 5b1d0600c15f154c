from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from service.errors import (
    DeadlineExceeded,
    InvalidParameter,
    ModelNotFound,
    NotAVideo,
    NotReady,
    OverLimit,
    Overloaded,
    PackageError,
    ProviderUnavailable,
    RequestError,
    Undecodable,
)
from service.observer import Observer, RestartReason
from service.offline import classify_files
from service.packages.manifest import GRAPH_FILE
from service.pipeline.classification import Classification, Query
from service.pipeline.core_config import CoreConfig
from service.pipeline.recognizer import Recognizer, RecognizerState
from service.pipeline.recognizer import running as running_recognizer
from tests.service.pipeline.requests import classify
from tests.service.pools import pids
from tests.support.long_clips import long_clip
from tests.support.tiny_models import ONE_STREAM, TWO_STREAMS, TinyModel, colour_clip, write_package

pytestmark = pytest.mark.anyio

RED, GREEN, BLUE = (220, 20, 20), (20, 220, 20), (20, 20, 220)
RED_CLIP = colour_clip(RED)
GREEN_THEN_BLUE = colour_clip(GREEN, GREEN, GREEN, BLUE)


class Recorder(Observer):
    def __init__(self) -> None:
        self.batches: list[tuple[str, int]] = []
        self.restarts: list[RestartReason] = []

    def batch_size(self, model: str, rows: int) -> None:
        self.batches.append((model, rows))

    def worker_restart(self, reason: RestartReason) -> None:
        self.restarts.append(reason)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_package(tmp_path / "models", "colours")
    return tmp_path / "models"


def running(
    models: Path, observer: Observer | None = None, **settings: Any
) -> AbstractAsyncContextManager[Recognizer]:
    return running_recognizer(CoreConfig(models=models, decode_workers=1, **settings), observer)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition becomes true."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def in_mid_clip(recognizer: Recognizer) -> asyncio.Task[Classification]:
    """A request whose video takes many more seconds to decode."""
    task = asyncio.create_task(classify(recognizer, long_clip()))
    await until(lambda: recognizer.admission.inflight == 1)
    await asyncio.sleep(0.3)
    assert not task.done()
    return task


def top(recognition: Classification) -> str:
    return recognition.predictions[0].label


async def test_clip_gets_a_complete_answer(models: Path) -> None:
    async with running(models) as recognizer:
        answer = await classify(recognizer, GREEN_THEN_BLUE, Query(top_k=2, evidence=True))
    assert [(one.label, one.index) for one in answer.predictions] == [("green", 1), ("blue", 2)]
    assert 1 > answer.predictions[0].score > answer.predictions[1].score > 0
    assert (answer.manifest.name, answer.provider) == ("colours", "cpu")
    assert (answer.video.codec, answer.video.frames, answer.video.width) == ("h264", 24, 96)
    assert answer.sampled.frames == (1, 4, 7, 10, 13, 16, 19, 22)
    assert answer.sampled.timestamps_s == pytest.approx([index / 25 for index in answer.sampled.frames])
    assert answer.evidence is not None
    assert answer.evidence.timestamps_s == pytest.approx([0.1, 0.34, 0.58, 0.82])
    assert [row[0] > row[1] for row in answer.evidence.scores] == [True, True, True, False]
    assert answer.timing.decode_ms > 0
    assert answer.timing.inference_ms > 0


async def test_evidence_is_given_only_when_asked_for(models: Path) -> None:
    async with running(models) as recognizer:
        assert (await classify(recognizer, RED_CLIP)).evidence is None


async def test_clips_and_crops_are_one_batch_and_one_answer(models: Path) -> None:
    recorder = Recorder()
    async with running(models, recorder, max_batch=16, inference_threads=1) as recognizer:
        answer = await classify(recognizer, GREEN_THEN_BLUE, Query(clips=3, crops=5, evidence=True))
    assert recorder.batches == [("colours", 15)]
    assert top(answer) == "green"
    assert len(answer.sampled.frames) == len(answer.sampled.timestamps_s) == 24
    assert answer.evidence is not None
    assert len(answer.evidence.timestamps_s) == len(answer.evidence.scores) == 12


async def test_mirrored_views_need_the_symmetry_of_the_labels(models: Path) -> None:
    write_package(models, "asymmetric", mirror=None)
    async with running(models) as recognizer:
        with pytest.raises(
            InvalidParameter, match=r"crops=10 .* asymmetric .* which label each label becomes"
        ):
            await classify(recognizer, RED_CLIP, Query(model="asymmetric", crops=10))
        assert top(await classify(recognizer, RED_CLIP, Query(model="asymmetric", crops=5))) == "red"
        assert top(await classify(recognizer, RED_CLIP, Query(model="colours", crops=10))) == "red"


async def test_concurrent_requests_get_their_own_answers(models: Path) -> None:
    clips = {"red": RED_CLIP, "green": colour_clip(GREEN), "blue": colour_clip(BLUE)}
    async with running(models) as recognizer:
        wanted = list(clips) * 8
        answers = await asyncio.gather(*(classify(recognizer, clips[name]) for name in wanted))
        assert (recognizer.admission.inflight, recognizer.queue_depth) == (0, 0)
    assert [top(answer) for answer in answers] == wanted


async def test_decoded_clip_waits_for_an_expected_one(models: Path) -> None:
    recorder = Recorder()
    async with running(
        models, recorder, max_batch=4, inference_threads=1, batch_wait_ms=10_000
    ) as recognizer:
        await asyncio.gather(*(classify(recognizer, RED_CLIP) for _ in range(3)))
    assert recorder.batches == [("colours", 3)]


async def test_batch_waits_for_an_expected_clip_only_as_long_as_the_setting_says(models: Path) -> None:
    async with running(models, max_batch=4, inference_threads=1, batch_wait_ms=1100) as recognizer:
        with recognizer.model().graph.batcher.expect():
            async with asyncio.timeout(60):  # with another unit the wait would be minutes
                await classify(recognizer, RED_CLIP)


async def test_frames_of_small_requests_do_not_wait_behind_those_of_large_ones(models: Path) -> None:
    async with running(models) as recognizer, AsyncExitStack() as held:
        memory = recognizer.frames_memory
        sixteenth = memory.free_bytes // 16
        await held.enter_async_context(memory.reserve(memory.free_bytes // 2))
        large = asyncio.create_task(held.enter_async_context(memory.reserve(12 * sixteenth)))
        await asyncio.sleep(0)
        async with asyncio.timeout(20), memory.reserve(sixteenth):
            assert not large.done()
        medium = asyncio.create_task(held.enter_async_context(memory.reserve(sixteenth + 1)))
        await asyncio.sleep(0.05)
        assert not medium.done()
        for task in (medium, large):
            task.cancel()


async def test_a_request_names_its_model(models: Path) -> None:
    write_package(models, "other", model=TinyModel(ONE_STREAM, labels=("rot", "gruen", "blau", "gelb")))
    async with running(models) as recognizer:
        assert top(await classify(recognizer, RED_CLIP)) == "red"
        assert top(await classify(recognizer, RED_CLIP, Query(model="other"))) == "rot"
        assert recognizer.models.registry.get("other").manifest.clip == ONE_STREAM
        assert recognizer.models.registry.get().manifest.clip == TWO_STREAMS
        with pytest.raises(ModelNotFound):
            await classify(recognizer, RED_CLIP, Query(model="none"))


@pytest.mark.parametrize(
    "query",
    [Query(top_k=0), Query(top_k=101), Query(clips=0), Query(clips=11), Query(crops=2), Query(crops=0)],
)
async def test_query_out_of_range_is_refused(models: Path, query: Query) -> None:
    async with running(models) as recognizer:
        with pytest.raises(InvalidParameter):
            await classify(recognizer, RED_CLIP, query)


async def test_invalid_clip_is_refused_and_the_next_clip_answered(models: Path) -> None:
    async with running(models, max_pixels=96 * 64) as recognizer:
        for clip, error in (
            (b"", NotAVideo),
            (b"hello", NotAVideo),
            (RED_CLIP[:900], Undecodable),
            (colour_clip(RED, width=128), OverLimit),
        ):
            with pytest.raises(error):
                await classify(recognizer, clip)
            assert top(await classify(recognizer, RED_CLIP)) == "red"


async def test_a_killed_worker_costs_no_request(models: Path) -> None:
    recorder = Recorder()
    async with running(models, recorder) as recognizer:
        (pid,) = pids(recognizer.decoding)
        os.kill(pid, signal.SIGSTOP)
        answers = [asyncio.create_task(classify(recognizer, RED_CLIP)) for _ in range(6)]
        await until(lambda: recognizer.queue_depth == 5)
        os.kill(pid, signal.SIGKILL)
        assert [top(answer) for answer in await asyncio.gather(*answers)] == ["red"] * 6
        assert recognizer.decoding.workers == 1
    assert recorder.restarts == [RestartReason.KILLED]


async def test_clip_that_decodes_too_long_exceeds_a_limit(models: Path) -> None:
    async with running(models, decode_timeout_s=2) as recognizer:
        with pytest.raises(OverLimit, match="decode_s is"):
            await classify(recognizer, long_clip())
        assert top(await classify(recognizer, RED_CLIP)) == "red"


async def test_request_is_cancelled_at_its_deadline_during_decoding(models: Path) -> None:
    recorder = Recorder()
    async with running(models, recorder) as recognizer:
        with pytest.raises(DeadlineExceeded):
            await classify(recognizer, long_clip(), timeout_s=0.3)
        assert recognizer.admission.inflight == 0
        assert top(await classify(recognizer, RED_CLIP, timeout_s=30)) == "red"
    assert recorder.restarts == [RestartReason.CANCELLED]


async def test_request_that_expires_in_the_queue_is_not_decoded(models: Path) -> None:
    recorder = Recorder()
    async with running(models, recorder) as recognizer:
        busy = await in_mid_clip(recognizer)
        with pytest.raises(DeadlineExceeded):
            await classify(recognizer, RED_CLIP, timeout_s=0.05)
        assert (recognizer.admission.inflight, recognizer.queue_depth) == (1, 0)
        busy.cancel()
    assert recorder.batches == []


async def test_abandoned_request_frees_its_place(models: Path) -> None:
    async with running(models, queue_limit=1) as recognizer:
        task = await in_mid_clip(recognizer)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert top(await classify(recognizer, RED_CLIP)) == "red"


async def test_requests_beyond_the_queue_limit_are_refused_at_once(models: Path) -> None:
    async with running(models, queue_limit=3) as recognizer:
        busy = await in_mid_clip(recognizer)
        waiting = [asyncio.create_task(classify(recognizer, RED_CLIP)) for _ in range(2)]
        await until(lambda: recognizer.queue_depth == 2)
        with pytest.raises(Overloaded) as caught:
            await classify(recognizer, RED_CLIP)
        assert caught.value.retry_after_s >= 1
        assert recognizer.problem() is None  # load alone does not affect readiness
        busy.cancel()
        assert [top(answer) for answer in await asyncio.gather(*waiting)] == ["red"] * 2
        assert recognizer.problem() is None


async def test_number_of_decode_workers_is_that_of_the_cores(models: Path) -> None:
    async with running_recognizer(CoreConfig(models=models), cores=3) as recognizer:
        await until(lambda: recognizer.decoding.workers == 3)


async def test_draining_finishes_accepted_requests_and_accepts_no_new_ones(models: Path) -> None:
    async with running(models) as recognizer:
        accepted = [asyncio.create_task(classify(recognizer, RED_CLIP)) for _ in range(10)]
        await asyncio.sleep(0)  # each of them begins
        assert recognizer.admission.inflight == 10
        draining = asyncio.create_task(recognizer.drain(60))
        await until(lambda: recognizer.state is RecognizerState.DRAINING)
        assert recognizer.problem() == "The service is shutting down."
        with pytest.raises(NotReady):
            await classify(recognizer, RED_CLIP)
        assert [top(answer) for answer in await asyncio.gather(*accepted)] == ["red"] * 10
        await draining
    assert recognizer.state is RecognizerState.STOPPED


async def test_draining_cancels_requests_after_the_grace_period(models: Path) -> None:
    async with running(models) as recognizer:
        task = await in_mid_clip(recognizer)
        await recognizer.drain(0.1)
        with pytest.raises(NotReady, match="stopped before it could answer"):
            await task
        await recognizer.close()
        await recognizer.close()
        assert recognizer.decoding.workers == 0


async def test_closing_fails_requests_in_progress(models: Path) -> None:
    async with running(models) as recognizer:
        task = await in_mid_clip(recognizer)
        await recognizer.close()
        with pytest.raises(NotReady):
            await task


async def test_nothing_is_accepted_before_the_start(models: Path) -> None:
    recognizer = Recognizer(CoreConfig(models=models))
    assert recognizer.problem() == "The service is not started."
    with pytest.raises(NotReady):
        await classify(recognizer, RED_CLIP)


async def test_invalid_package_is_listed_with_its_reason(models: Path) -> None:
    (write_package(models, "broken") / GRAPH_FILE).write_bytes(b"")
    async with running(models) as recognizer:
        broken, good = recognizer.models.entries()
        assert (broken.name, broken.state, broken.provider) == ("broken", "refused", None)
        assert "SHA-256" in str(broken.reason)
        assert (good.name, good.state, good.provider) == ("colours", "ready", "cpu")
        assert top(await classify(recognizer, RED_CLIP)) == "red"


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"provider": "tensorrt"}, ProviderUnavailable),
        ({"default_model": "none"}, PackageError),
    ],
)
async def test_recognizer_without_a_valid_model_does_not_start(
    models: Path, settings: dict[str, Any], error: type[Exception]
) -> None:
    recognizer = Recognizer(CoreConfig(models=models, decode_workers=1, **settings))
    with pytest.raises(error):
        await recognizer.start()
    assert recognizer.state is RecognizerState.FAILED
    assert recognizer.decoding.workers == 0


def test_files_are_labelled_in_order_without_a_server(models: Path, tmp_path: Path) -> None:
    paths = []
    for number, clip in enumerate([RED_CLIP, b"no video", GREEN_THEN_BLUE, RED_CLIP]):
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(clip)
    paths.append(tmp_path / "missing")
    results = list(classify_files(CoreConfig(models=models, decode_workers=2), paths, Query()))
    assert [path for path, _ in results] == paths
    outcomes = [result.code if isinstance(result, RequestError) else top(result) for _, result in results]
    assert outcomes == ["red", "not_a_video", "green", "red", "bad_request"]
