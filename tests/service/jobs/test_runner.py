"""The job runner when its own records fail."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.jobs import runner as runner_module
from service.jobs.job import Job, JobState
from service.jobs.runner import JobRunner
from service.jobs.store import JobStore
from service.jobs.webhooks import Webhooks
from tests.service.jobs.test_store import added


def test_error_of_a_record_is_logged_and_the_job_runs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runner_module, "POLL_S", 0.01)
    store = JobStore(tmp_path, 60.0)
    job_id = added(store).id
    finish = store.finish
    failures: Iterator[Exception] = iter([sqlite3.OperationalError("database or disk is full")])

    def finish_later(job: Job, result: str) -> bool:
        for failure in failures:
            raise failure
        return finish(job, result)

    monkeypatch.setattr(store, "finish", finish_later)
    attempts: list[int] = []

    async def perform(job: Job) -> str:
        attempts.append(job.attempts)
        return "{}"

    async def run() -> Job:
        ended: asyncio.Future[Job] = asyncio.get_running_loop().create_future()
        jobs = JobRunner(
            store,
            perform,
            problem=problem,
            document=str,
            webhooks=Webhooks([], ""),
            at_once=1,
            max_pending=8,
            max_pending_bytes=10**6,
            on_end=ended.set_result,
        )
        jobs.start()
        try:
            return await ended
        finally:
            await jobs.close()

    def problem(exc: Exception, request_id: str) -> dict[str, Any]:
        raise AssertionError(exc)

    done = asyncio.run(run())
    assert (done.id, done.state, attempts) == (job_id, JobState.DONE, [1, 2])
    assert "database or disk is full" in caplog.text
