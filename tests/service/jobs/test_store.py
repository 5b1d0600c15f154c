"""What both stores of jobs do: claims, interrupted jobs, idempotency, expiry and webhooks."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.errors import BlvnetError, IdempotencyMismatch
from service.jobs.folder.store import FolderStore
from service.jobs.job import Job, JobState
from service.jobs.store import COPY_BYTES, JobStore
from tests.support.job_places import Place, added, claimed_after_upkeep, finished

CLAIM_AND_WAIT = """
import asyncio
import sys
from pathlib import Path
from typing import Any
from tests.support.job_places import Place

async def claim(address: str) -> None:
    place = Place(address if "://" in address else Path(address))
    async with place.opened() as store, store.claimed() as job:
        print(job.id if job else "none", flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(claim(sys.argv[1]))
"""


async def video_of(store: JobStore, job: Job) -> bytes:
    async with store.video(job.id) as video:
        return video.read_bytes() if isinstance(video, Path) else video.read()


async def result_of(store: JobStore, job: Job) -> bytes | None:
    async with store.result(job.id) as path:
        return None if path is None else path.read_bytes()


@pytest.mark.anyio
async def test_oldest_job_is_claimed_first_and_once(place: Place) -> None:
    async with place.opened() as store, place.opened() as other:
        first = await added(store)
        place.pass_time(1)
        second = await added(store)
        async with store.claimed() as one, other.claimed() as two, store.claimed() as none:
            assert one is not None
            assert two is not None
            assert (one.id, two.id, none) == (first.id, second.id, None)
            assert one.state is JobState.RUNNING


@pytest.mark.anyio
async def test_job_of_a_killed_process_is_claimed_again(place: Place) -> None:
    async with place.opened() as store:
        job = await added(store)
        command = [sys.executable, "-c", CLAIM_AND_WAIT, str(place.address)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == job.id
            await store.upkeep()
            async with store.claimed() as claimed:
                assert claimed is None
            process.kill()
        claimed = await claimed_after_upkeep(store)
        assert (claimed.id, claimed.attempts) == (job.id, 2)


@pytest.mark.anyio
async def test_retried_job_waits(place: Place) -> None:
    async with place.opened() as store:
        await added(store)
        async with store.claimed() as job:
            assert job is not None
            await store.retry(job, 5.0, counted=False)
        async with store.claimed() as job:
            assert job is None
        place.pass_time(5)
        async with store.claimed() as job:
            assert job is not None
            assert job.attempts == 1


@pytest.mark.anyio
async def test_videos_and_results_are_kept_whole(place: Place) -> None:
    video = bytes(range(256)) * (COPY_BYTES // 100)
    async with place.opened() as store, place.opened() as other:
        small = await added(store, video[:1000])
        job_id, digest = await store.keep_video(io.BytesIO(video))
        large = await store.add(job_id, replace(small, video_sha256=digest))
        async with other.claimed() as first, other.claimed() as second:
            assert first is not None
            assert second is not None
            assert await video_of(other, first) == video[:1000]
            assert second.id == large.id
            assert await video_of(other, second) == video
            async with other.writing_result(second.id) as result:
                await result.write(video[:-1])
                await result.write(video[-1:])
            assert await other.finish(second, "{}")
        assert await result_of(store, second) == video


@pytest.mark.anyio
async def test_result_that_is_deleted_while_it_is_sent_is_sent_whole(place: Place) -> None:
    async with place.opened() as store:
        await added(store)
        job = await finished(store, b"{}")
        async with store.result(job.id) as path:
            assert path is not None
            await store.delete(job.id)
            assert path.read_bytes() == b"{}"
        async with store.result(job.id) as path:
            assert path is None


@pytest.mark.anyio
async def test_result_of_an_interrupted_writer_is_dropped(place: Place) -> None:
    async with place.opened() as store:
        await added(store)
        async with store.claimed() as job:
            assert job is not None
            with suppress(ValueError):
                async with store.writing_result(job.id) as result:
                    await result.write(b"half")
                    raise ValueError
            async with store.writing_result(job.id) as result:
                await result.write(b"whole")
            assert await store.finish(job, "{}")
        assert await result_of(store, job) == b"whole"


@pytest.mark.anyio
async def test_cancelled_calls_leave_no_files(place: Place) -> None:
    async with place.opened() as store:
        await added(store)
        async with store.claimed() as job:
            assert job is not None

            async def write() -> None:
                async with store.writing_result(job.id) as result:
                    await result.write(b"half")
                    await asyncio.Event().wait()

            before, steps = place.left(), 0
            while await is_cancelled_after(steps, store.keep_video(b"video")):
                assert await is_cancelled_after(steps, write())
                assert place.left() == before, steps
                steps += 1
            assert steps > 0
            assert len(place.left()) == len(before) + 1


async def is_cancelled_after(steps: int, call: Coroutine[Any, Any, object]) -> bool:
    """Cancel a call after a number of iterations of the event loop; False if it has ended before."""
    task = asyncio.ensure_future(call)
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    return task.cancelled()


@pytest.mark.anyio
async def test_key_of_a_caller_is_one_job(place: Place) -> None:
    async with place.opened() as store, place.opened() as other:
        jobs = await asyncio.gather(*(added(at, key="a", caller="me") for at in (store, other) * 5))
        assert len({job.id for job in jobs}) == 1
        assert (await added(store, key="a", caller="you")).id != jobs[0].id
        assert (await added(store, caller="me")).id != jobs[0].id
        with pytest.raises(IdempotencyMismatch):
            await added(other, b"other", key="a", caller="me")
        with pytest.raises(IdempotencyMismatch):
            await added(other, key="a", caller="me", top_k=3)
        assert (await store.counts())[JobState.QUEUED] == 3
        assert await store.pending_bytes() == 3 * len(b"video")
        await store.delete(jobs[0].id)
        assert (await added(other, b"other", key="a", caller="me")).id != jobs[0].id


@pytest.mark.anyio
async def test_deleted_job_cannot_finish(place: Place) -> None:
    async with place.opened() as store, place.opened() as other:
        await added(store)
        async with store.claimed() as job:
            assert job is not None
            async with store.writing_result(job.id) as result:
                await result.write(b"late")
            await other.delete(job.id)
            assert not await store.progress(job.id, 1, 2)
            assert not await store.finish(job, "{}")
            async with other.claimed() as claimed:
                assert claimed is None
        assert await store.get(job.id) is None
        assert place.left() == []
        assert await store.pending_bytes() == 0


@pytest.mark.anyio
async def test_deleted_job_that_waits_is_not_claimed(place: Place) -> None:
    async with place.opened() as store, place.opened() as other:
        deleted, kept = await added(store), await added(store)
        await other.delete(deleted.id)
        async with store.claimed() as job:
            assert job is not None
            assert job.id == kept.id


@pytest.mark.anyio
async def test_finished_jobs_are_deleted_after_the_retention_time(place: Place) -> None:
    async with place.opened() as store:
        await added(store, key="a")
        job = await finished(store, b"{}")
        await store.upkeep()
        found = await store.get(job.id)
        assert found is not None
        assert (found.state, found.result, found.finished_s) == (JobState.DONE, "{}", place.clock.now_s)
        place.pass_time(60)
        await store.upkeep()
        assert await store.get(job.id) is None
        assert place.left() == []
        assert await store.pending_bytes() == 0


@pytest.mark.anyio
async def test_webhook_is_due_for_one_process_at_a_time(place: Place) -> None:
    async with place.opened() as store, place.opened() as other:
        await added(store, webhook="https://example.org")
        async with store.claimed() as job:
            assert job is not None
            await store.fail(job, {"code": "undecodable"})
        due = [await at.due_webhooks(10, lease_s=30.0) for at in (store, other)]
        assert [[item.problem for item in found] for found in due] == [[{"code": "undecodable"}], []]
        place.pass_time(30)  # the process that called it has ended
        (again,) = await other.due_webhooks(10, lease_s=30.0)
        await other.webhook_tried(again, delivered=False, next_in_s=5.0)
        assert await store.due_webhooks(10, lease_s=30.0) == []
        place.pass_time(5)
        (again,) = await store.due_webhooks(10, lease_s=30.0)
        await store.webhook_tried(again, delivered=True, next_in_s=None)
        place.pass_time(50)
        assert await store.due_webhooks(10, lease_s=30.0) == []
        found = await store.get(again.id)
        assert found is not None
        assert (found.webhook_attempts, found.webhook_delivered, found.webhook_due_s) == (2, True, None)


@pytest.mark.anyio
async def test_sizes_and_states_are_counted(place: Place) -> None:
    async with place.opened() as store:
        await added(store, b"1234")
        await added(store, b"12")
        assert await store.pending_bytes() == 6
        async with store.claimed() as job:
            assert job is not None
            await store.finish(job, "{}")
        assert await store.pending_bytes() == 2
        assert await store.counts() == {
            JobState.QUEUED: 1,
            JobState.RUNNING: 0,
            JobState.DONE: 1,
            JobState.FAILED: 0,
        }


def test_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BlvnetError, match=r"jobs cannot be kept in .*file"):
        FolderStore(tmp_path / "file", 60.0)
