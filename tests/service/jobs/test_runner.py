"""The job runner when its own records fail, and when it cannot reach them."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from benchmarks.common.service_process import free_port
from service.errors import DecodersKilled, Overloaded
from service.jobs import runner as runner_module
from service.jobs.job import Job, JobLost, JobState
from service.jobs.runner import JobRunner, Perform
from service.jobs.store import JobStore
from service.jobs.webhooks import Webhooks
from tests.support.job_places import Place, added
from tests.support.redis_server import redis_server


def no_problem(exc: Exception, _request_id: str) -> dict[str, Any]:
    raise AssertionError(exc)


def runner_of(
    store: JobStore,
    perform: Perform,
    ended: asyncio.Future[Job],
    problem: Callable[[Exception, str], dict[str, Any]] = no_problem,
) -> JobRunner:
    return JobRunner(
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


@pytest.mark.anyio
async def test_error_of_a_record_is_logged_and_the_job_runs_again(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runner_module, "POLL_S", 0.01)
    attempts: list[int] = []

    async def perform(job: Job) -> str:
        attempts.append(job.attempts)
        return "{}"

    async with place.opened() as store:
        job_id = (await added(store)).id
        finish = store.finish
        failures: Iterator[Exception] = iter([sqlite3.OperationalError("database or disk is full")])

        async def finish_later(job: Job, result: str) -> bool:
            for failure in failures:
                raise failure
            return await finish(job, result)

        monkeypatch.setattr(store, "finish", finish_later)
        ended: asyncio.Future[Job] = asyncio.get_running_loop().create_future()
        jobs = runner_of(store, perform, ended)
        jobs.start()
        done = await ended
        await jobs.stop()
        await jobs.webhooks.close()
    assert (done.id, done.state, attempts) == (job_id, JobState.DONE, [1, 2])
    assert "database or disk is full" in caplog.text


@pytest.mark.anyio
async def test_submissions_at_once_do_not_exceed_the_queue(place: Place) -> None:
    async def perform(job: Job) -> str:
        raise AssertionError(job)

    async with place.opened() as store:
        ended: asyncio.Future[Job] = asyncio.get_running_loop().create_future()
        jobs = runner_of(store, perform, ended)
        for _ in range(6):
            await added(store)
        let_in, everyone_asked = 0, asyncio.Event()

        async def submit() -> None:
            nonlocal let_in
            async with jobs.arriving():
                let_in += 1
                await everyone_asked.wait()

        submissions = [asyncio.create_task(submit()) for _ in range(6)]
        while sum(task.done() for task in submissions) + let_in < len(submissions):
            await asyncio.sleep(0.01)
        everyone_asked.set()
        errors = [error for error in await asyncio.gather(*submissions, return_exceptions=True) if error]
        assert let_in == 2
        assert [type(error) for error in errors] == [Overloaded] * 4
        async with jobs.arriving():
            pass
        await jobs.webhooks.close()


@pytest.mark.anyio
async def test_job_that_another_process_deletes_is_no_failure(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runner_module, "POLL_S", 0.01)
    async with place.opened() as store, place.opened() as other:

        async def perform(job: Job) -> str:
            if job.id == first.id:
                await other.delete(job.id)
            if not await store.progress(job.id, 1, 2):
                raise JobLost
            return "{}"

        ended: asyncio.Future[Job] = asyncio.get_running_loop().create_future()
        jobs = runner_of(store, perform, ended)
        first = await added(store)
        jobs.start()
        while await store.get(first.id) is not None:
            await asyncio.sleep(0.01)
        following = await added(store)
        assert (await ended).id == following.id
        await jobs.stop()
        await jobs.webhooks.close()
    assert [record for record in caplog.records if record.name == runner_module.__name__] == []


@pytest.mark.anyio
async def test_job_whose_decoders_are_killed_every_time_fails_after_three_attempts(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "POLL_S", 0.01)
    attempts: list[int] = []

    async def perform(job: Job) -> str:
        attempts.append(job.attempts)
        if len(attempts) > 3:
            return "{}"
        raise DecodersKilled("Two decoders were killed.", 0.0)

    async with place.opened() as store:
        await added(store)
        ended: asyncio.Future[Job] = asyncio.get_running_loop().create_future()
        jobs = runner_of(store, perform, ended, problem=lambda exc, _request_id: {"detail": str(exc)})
        jobs.start()
        failed = await ended
        await jobs.stop()
        await jobs.webhooks.close()
    assert (failed.state, failed.problem) == (JobState.FAILED, {"detail": "Two decoders were killed."})
    assert attempts == [1, 2, 3]


@pytest.mark.anyio
async def test_outage_of_redis_is_one_line_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runner_module, "POLL_S", 0.01)
    caplog.set_level(logging.INFO, logger=runner_module.__name__)
    port = free_port()

    async def perform(job: Job) -> str:
        return "{}"

    async with Place(f"redis://127.0.0.1:{port}/0").opened() as store:
        ended: asyncio.Future[Job] = asyncio.get_running_loop().create_future()
        jobs = runner_of(store, perform, ended)
        jobs.start()
        while not caplog.text:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        with redis_server(port):
            await added(store)
            assert (await ended).state is JobState.DONE
            await jobs.stop()
        await jobs.webhooks.close()
    messages = [record.message for record in caplog.records if record.name == runner_module.__name__]
    assert messages[0].startswith("jobs are interrupted: The jobs cannot be reached")
    assert messages[1:] == ["jobs are available again", "job started", "job ended"]
