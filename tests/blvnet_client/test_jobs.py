"""Jobs of both clients: submission, waiting, windows and deletion."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from blvnet_client import (
    AsyncClient,
    AuthenticationError,
    Client,
    ConflictError,
    NotFoundError,
    RetryPolicy,
    TimedOut,
    TimelineJob,
    TimelineResult,
    VideoError,
    WindowResult,
)
from blvnet_client.results import ClassifyJob
from service.http.schemas.jobs import JobAnswer, JobProgress, JobWebhook
from service.jobs.job import JobState
from tests.blvnet_client.proxy import Cut, cutting_proxy
from tests.support.long_clips import long_clip
from tests.support.server import PATIENCE_S, RunningServer, running_server
from tests.support.tiny_models import colour_clip

QUICK = RetryPolicy(budget_s=PATIENCE_S, first_wait_s=0.02, longest_wait_s=0.1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jobs")


@pytest.fixture(scope="module")
def keeping(tiny_models: Path, folder: Path) -> Iterator[RunningServer]:
    """A server with jobs."""
    with running_server(tiny_models, JOBS_DIR=folder) as running:
        yield running


@pytest.fixture(scope="module")
def red_then_green() -> bytes:
    """Six seconds."""
    return colour_clip((255, 0, 0), (0, 255, 0), frames=150)


def stored_jobs(server: RunningServer) -> float:
    return sum(server.metric("blvnet_jobs", state=state) for state in JobState)


def test_client_has_every_field_of_a_job() -> None:
    fields = {*ClassifyJob.__struct_fields__, "kind"}
    assert set(JobAnswer.model_fields) - fields == set()
    assert set(JobProgress.model_fields) == {"windows", "of"}
    assert set(JobWebhook.model_fields) == {"url", "attempts", "delivered"}


def test_job_is_submitted_awaited_and_deleted(keeping: RunningServer, red_clip: bytes) -> None:
    with Client(keeping.url) as client:
        submitted = client.jobs.submit_classify(red_clip, top_k=2, request_id="mine-3")
        assert (submitted.parameters["top_k"], submitted.request_id) == (2, "mine-3")
        done = client.jobs.wait(submitted)
        assert done.result is not None
        assert (done.state, done.result.best.label, len(done.result.predictions)) == ("done", "red", 2)
        assert client.jobs.get(done.id) == done
        client.jobs.delete(done)
        with pytest.raises(NotFoundError) as caught:
            client.jobs.get(done.id)
        assert caught.value.code == "job_not_found"


def test_windows_of_a_timeline_are_read_after_its_end(keeping: RunningServer, red_then_green: bytes) -> None:
    with Client(keeping.url) as client:
        done = client.jobs.wait(client.jobs.submit_timeline(red_then_green, window_s=1.5))
        *windows, end = client.jobs.windows(done)
        assert isinstance(client.jobs.get(done.id), TimelineJob)
    assert [window.window for window in windows if isinstance(window, WindowResult)] == [0, 1, 2, 3]
    assert end == done.result
    assert done.result is not None
    assert [segment.label for segment in done.result.summary.segments] == ["red", "green"]


def test_asynchronous_client_has_the_same_methods(keeping: RunningServer, red_then_green: bytes) -> None:
    async def work() -> None:
        async with AsyncClient(keeping.url) as client:
            clip, video = await asyncio.gather(
                client.jobs.submit_classify(red_then_green),
                client.jobs.submit_timeline(red_then_green, window_s=3),
            )
            assert (await client.jobs.wait(clip)).result is not None
            done = await client.jobs.wait(video)
            lines = [line async for line in client.jobs.windows(done)]
            assert isinstance(lines[-1], TimelineResult)
            await client.jobs.delete(done)
            with pytest.raises(NotFoundError):
                await client.jobs.get(done.id)

    asyncio.run(work())


def test_failed_job_raises_what_the_request_would_have_raised(
    keeping: RunningServer, red_clip: bytes
) -> None:
    with Client(keeping.url) as client:
        broken = client.jobs.submit_classify(red_clip[: len(red_clip) // 3])
        with pytest.raises(VideoError) as caught:
            client.jobs.wait(broken)
        assert caught.value.code == "undecodable"
        assert client.jobs.get(broken.id).state == "failed"


def test_waiting_has_a_limit_and_the_job_goes_on(keeping: RunningServer) -> None:
    with Client(keeping.url) as client:
        slow = client.jobs.submit_timeline(long_clip(400), window_s=0.5)
        with pytest.raises(TimedOut, match=r"after 0\.2 s") as caught:
            client.jobs.wait(slow, timeout_s=0.2)
        assert caught.value.phase == "job"
        assert client.jobs.get(slow.id).state in ("queued", "running")
        client.jobs.delete(slow)


def test_cut_submission_makes_one_job(keeping: RunningServer, red_clip: bytes) -> None:
    with cutting_proxy(keeping.url) as proxy, Client(proxy.url, retries=QUICK) as client:
        before = stored_jobs(keeping)
        proxy.cuts = [Cut(answer_bytes=100)]
        job = client.jobs.submit_classify(red_clip)
        assert proxy.connections == 2
        assert stored_jobs(keeping) == before + 1
        again = client.jobs.submit_classify(red_clip, idempotency_key="same")
        assert client.jobs.submit_classify(red_clip, idempotency_key="same").id == again.id != job.id
        with pytest.raises(ConflictError):
            client.jobs.submit_classify(red_clip, top_k=1, idempotency_key="same")


def test_service_without_a_folder_has_no_jobs(server: RunningServer, red_clip: bytes) -> None:
    with Client(server.url) as client, pytest.raises(AuthenticationError) as caught:
        client.jobs.submit_classify(red_clip)
    assert caught.value.code == "jobs_off"
