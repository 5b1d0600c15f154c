"""Jobs on a real recognizer and a folder of jobs, in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from service.errors import DeadlineExceeded
from service.http import job_work
from service.http.job_work import JobWork
from service.http.schemas.classify import ClassifyAnswer
from service.http.schemas.timeline import TimelineEnd, TimelineWindow
from service.jobs.folder.store import FolderStore
from service.jobs.job import Job, JobKind, JobLost, JobRequest
from service.monitoring.metrics import Metrics
from service.pipeline.core_config import CoreConfig
from service.pipeline.recognizer import running
from tests.support.tiny_models import colour_clip, write_package

pytestmark = pytest.mark.anyio

RED, GREEN = (220, 20, 20), (20, 220, 20)
CLIP = colour_clip(RED, RED, GREEN, GREEN)


@dataclass
class Place:
    """A worker for jobs, and what it works with."""

    work: JobWork
    store: FolderStore
    metrics: CollectorRegistry

    @asynccontextmanager
    async def started(self, kind: JobKind, parameters: Mapping[str, Any]) -> AsyncIterator[Job]:
        """A job that is held, with the clip as its video."""
        job_id, digest = await self.store.keep_video(CLIP)
        request = JobRequest(
            kind=kind, parameters=parameters, caller="", request_id="mine", idempotency_key=None,
            video_sha256=digest, video_bytes=len(CLIP), webhook=None,
        )  # fmt: skip
        await self.store.add(job_id, request)
        async with self.store.claimed() as job:
            assert job is not None
            yield job

    async def result_of(self, job: Job) -> str:
        async with self.store.result(job.id) as path:
            assert path is not None
            return path.read_text()

    async def windows_of(self, job: Job) -> tuple[int, int]:
        found = await self.store.get(job.id)
        assert found is not None
        return found.windows, found.windows_total

    def predictions(self, label: str) -> float | None:
        return self.metrics.get_sample_value("blvnet_predictions_total", {"model": "tiny", "label": label})


@asynccontextmanager
async def place(tmp_path: Path, timeout_s: float = 60.0) -> AsyncIterator[Place]:
    write_package(tmp_path / "models", "tiny")
    registry = CollectorRegistry()
    metrics = Metrics(registry, request_timeout_s=30.0, max_batch=8)
    store = FolderStore(tmp_path / "jobs", 60.0)
    config = CoreConfig(models=tmp_path / "models", decode_workers=1)
    async with running(config) as recognizer:
        yield Place(JobWork(recognizer, store, metrics, timeout_s), store, registry)
    await store.close()


async def test_result_of_a_job_is_the_answer_of_a_request(tmp_path: Path) -> None:
    async with place(tmp_path) as here, here.started(JobKind.CLASSIFY, {"model": "tiny", "top_k": 2}) as job:
        text = await here.work.perform(job)
        answer = ClassifyAnswer.model_validate_json(text)
        assert await here.result_of(job) == text
        assert here.predictions(answer.predictions[0].label) == 1
        sample = {"stage": "decode", "model": "tiny"}
        assert here.metrics.get_sample_value("blvnet_stage_seconds_count", sample) == 1
    assert (answer.model.name, len(answer.predictions), answer.request_id) == ("tiny", 2, "mine")
    stages = answer.timing_ms.stages()
    assert sum(stages.values()) <= answer.timing_ms.total < 60_000


TIMELINE = {"model": "tiny", "window_s": 0.25, "stride_s": 0.25}


@pytest.mark.parametrize("progress_s", [0.0, 3600.0])
async def test_result_of_a_timeline_has_all_lines_and_its_progress_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, progress_s: float
) -> None:
    monkeypatch.setattr(job_work, "PROGRESS_S", progress_s)
    async with place(tmp_path) as here, here.started(JobKind.TIMELINE, TIMELINE) as job:
        reported: list[tuple[int, int]] = []
        progress = here.store.progress

        async def recorded(job_id: str, windows: int, windows_total: int) -> bool:
            reported.append((windows, windows_total))
            return await progress(job_id, windows, windows_total)

        monkeypatch.setattr(here.store, "progress", recorded)
        text = await here.work.perform(job)
        *windows, last = (await here.result_of(job)).splitlines()
        assert last == text
        count = len(windows)
        assert await here.windows_of(job) == (count, count)
        counted = sum(here.predictions(label) or 0 for label in ("red", "green", "blue"))
        assert counted == count > 2
    end = TimelineEnd.model_validate_json(text)
    assert (end.summary.windows, end.request_id) == (count, "mine")
    assert 0 < end.timing_ms.total < 60_000
    numbers = [TimelineWindow.model_validate_json(line).window for line in windows]
    assert numbers == list(range(count))
    at_the_end = (count, count)
    assert reported[-1] == at_the_end
    assert [done for done, _ in reported[:-1]] == (list(range(1, count + 1)) if not progress_s else [])


async def test_deleted_timeline_is_given_up_at_its_next_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_work, "PROGRESS_S", 0.0)
    async with place(tmp_path) as here, here.started(JobKind.TIMELINE, TIMELINE) as job:

        async def lost(job_id: str, windows: int, windows_total: int) -> bool:
            return False

        monkeypatch.setattr(here.store, "progress", lost)
        with pytest.raises(JobLost):
            await here.work.perform(job)
        async with here.store.result(job.id) as path:
            assert path is None


@pytest.mark.parametrize(
    ("kind", "parameters"), [(JobKind.CLASSIFY, {"model": "tiny"}), (JobKind.TIMELINE, TIMELINE)]
)
async def test_jobs_have_a_time_limit(tmp_path: Path, kind: JobKind, parameters: dict[str, Any]) -> None:
    async with place(tmp_path, timeout_s=0.0) as here, here.started(kind, parameters) as job:
        with pytest.raises(DeadlineExceeded):
            await here.work.perform(job)
