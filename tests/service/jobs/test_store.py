"""The job store: claims between processes, interrupted jobs, expiry, and a folder that cannot be used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from service.errors import BlvnetError
from service.jobs.job import Job, JobKind, JobRequest, JobState
from service.jobs.store import JobStore
from tests.support.clock import Clock

CLAIM_AND_WAIT = """
import sys
from pathlib import Path
from service.jobs.store import JobStore

with JobStore(Path(sys.argv[1]), 60.0).claimed() as job:
    print(job.id if job else "none", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> JobStore:
    return JobStore(tmp_path, 60.0, clock)


def added(store: JobStore, video: bytes = b"video", webhook: str | None = None) -> Job:
    job_id, digest = store.keep_video(video)
    request = JobRequest(
        kind=JobKind.CLASSIFY,
        parameters={"model": "tiny"},
        caller="",
        request_id="r",
        idempotency_key=None,
        video_sha256=digest,
        video_bytes=len(video),
        webhook=webhook,
    )
    return store.add(job_id, request)


def test_oldest_job_is_claimed_first_and_once(store: JobStore, clock: Clock) -> None:
    first = added(store)
    clock.now_s += 1
    second = added(store)
    with store.claimed() as one, store.claimed() as two, store.claimed() as none:
        assert one is not None
        assert two is not None
        assert (one.id, two.id, none) == (first.id, second.id, None)
        assert one.state is JobState.RUNNING


def test_job_of_a_killed_process_is_claimed_again(store: JobStore, tmp_path: Path) -> None:
    job = added(store)
    command = [sys.executable, "-c", CLAIM_AND_WAIT, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == job.id
        with store.claimed() as claimed:
            assert claimed is None
        process.kill()
    with store.claimed() as claimed:
        assert claimed is not None
        assert (claimed.id, claimed.attempts) == (job.id, 2)


def test_retried_job_waits(store: JobStore, clock: Clock) -> None:
    added(store)
    with store.claimed() as job:
        assert job is not None
        store.retry(job, 5.0, counted=False)
    with store.claimed() as job:
        assert job is None
    clock.now_s += 5
    with store.claimed() as job:
        assert job is not None
        assert job.attempts == 1


def test_deleted_job_cannot_finish(store: JobStore) -> None:
    added(store)
    with store.claimed() as job:
        assert job is not None
        store.delete(job.id)
        store.result(job.id).write_text("late")
        assert not store.progress(job.id, 1, 2)
        assert not store.finish(job, "{}")
    assert not store.result(job.id).exists()


def test_finished_jobs_are_deleted_after_the_retention_time(store: JobStore, clock: Clock) -> None:
    added(store)
    with store.claimed() as job:
        assert job is not None
        store.result(job.id).write_text("{}")
        assert store.finish(job, "{}")
    assert not store.video(job.id).exists()
    store.delete_expired()
    assert store.get(job.id) is not None
    clock.now_s += 60
    store.delete_expired()
    assert store.get(job.id) is None
    assert not store.result(job.id).exists()


def test_webhook_is_due_for_one_process_at_a_time(store: JobStore, clock: Clock) -> None:
    added(store, webhook="https://example.org")
    with store.claimed() as job:
        assert job is not None
        store.fail(job, {"code": "undecodable"})
    assert len(store.due_webhooks(10, lease_s=30.0)) == 1
    assert store.due_webhooks(10, lease_s=30.0) == []
    clock.now_s += 30  # the process that called it has ended
    (due,) = store.due_webhooks(10, lease_s=30.0)
    store.webhook_tried(due, delivered=True, next_in_s=None)
    clock.now_s += 1000
    assert store.due_webhooks(10, lease_s=30.0) == []


def test_sizes_and_states_are_counted(store: JobStore) -> None:
    added(store, b"1234")
    added(store, b"12")
    assert store.pending_bytes() == 6
    with store.claimed() as job:
        assert job is not None
        store.finish(job, "{}")
    assert store.counts() == {
        JobState.QUEUED: 1,
        JobState.RUNNING: 0,
        JobState.DONE: 1,
        JobState.FAILED: 0,
    }


def test_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BlvnetError, match=r"jobs cannot be kept in .*file"):
        JobStore(tmp_path / "file", 60.0)
