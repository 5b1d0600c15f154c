"""What happens only in Redis: leases that end early, changes cut in the middle, and lost connections."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from benchmarks.common.service_process import free_port
from service.errors import JobsUnavailable, StorageFull
from service.jobs.job import JobState
from service.jobs.redis.entries import QUEUE
from service.jobs.redis.store import RedisStore
from service.jobs.store import COPY_BYTES
from tests.support.job_places import RETENTION_S, Place, added, claimed_after_upkeep, finished
from tests.support.redis_server import on_disk, redis_server


@pytest.fixture
def redis_url(redis_address: str) -> str:
    url = f"{redis_address}/4"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


@pytest.fixture
def place(redis_url: str) -> Place:
    return Place(redis_url)


@pytest.mark.anyio
async def test_holder_of_an_expired_lease_is_refused_and_notified(place: Place, redis_url: str) -> None:
    lost: list[str] = []
    async with place.opened() as store, place.opened() as other:
        await added(store)
        async with store.claimed(lost.append) as job:
            assert job is not None
            with redis.Redis.from_url(redis_url) as client:  # as SAQ does with a job that seems abandoned
                client.lrem(f"saq:{QUEUE}:active", 0, f"saq:job:{QUEUE}:{job.id}")
                client.rpush(f"saq:{QUEUE}:queued", f"saq:job:{QUEUE}:{job.id}")
            async with other.claimed() as again:
                assert again is not None
                assert (again.id, again.attempts) == (job.id, 2)
                while not lost:
                    await asyncio.sleep(0.01)
                assert lost == [job.id]
                assert not await store.finish(job, '"late"')
                await store.retry(job, 0.0, counted=False)
                assert await other.progress(job.id, 1, 2)
                assert await other.finish(again, '"right"')
        found = await store.get(job.id)
        assert found is not None
        assert (found.state, found.result, found.attempts) == (JobState.DONE, '"right"', 2)


@pytest.mark.anyio
async def test_held_job_is_kept_beyond_its_lease(place: Place) -> None:
    async with place.opened() as store, place.opened() as other:
        await added(store)
        async with store.claimed() as job:
            assert job is not None
            with redis.Redis.from_url(str(place.address)) as client:
                for _ in range(4):
                    await asyncio.sleep(0.5)  # the lease is one second
                    client.delete(f"saq:{QUEUE}:sweep")  # it sweeps at most once in a while
                    await other.upkeep()
                    async with other.claimed() as none:
                        assert none is None
            assert await store.finish(job, "{}")


@pytest.mark.anyio
async def test_job_that_the_queue_does_not_know_is_queued_by_the_upkeep(place: Place, redis_url: str) -> None:
    async with place.opened() as store:
        job = await added(store)
        with redis.Redis.from_url(redis_url) as client:
            client.delete(*client.keys("saq:*"))
        async with store.claimed() as claimed:
            assert claimed is None
        await store.upkeep()
        async with store.claimed() as claimed:
            assert claimed is not None
            assert claimed.id == job.id


@pytest.mark.anyio
async def test_cancellation_is_never_lost(place: Place) -> None:
    async with place.opened() as store:

        async def poll() -> None:
            while True:
                await store.counts()
                async with store.claimed():
                    pass

        for steps in range(60):
            await added(store)
            task = asyncio.create_task(poll())
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            ended, _ = await asyncio.wait([task], timeout=10)
            assert ended, steps
            assert task.cancelled()


@pytest.mark.anyio
async def test_full_memory_is_reported_and_jobs_can_still_be_deleted(tmp_path: Path) -> None:
    port = free_port()
    with redis_server(port, "--save", "", "--maxmemory", "8mb", "--maxmemory-policy", "noeviction"):
        place = Place(f"redis://127.0.0.1:{port}/0")
        async with place.opened() as store:
            job = await added(store, bytes(1_000_000))
            before = place.left()
            with pytest.raises(StorageFull, match="memory"):
                await added(store, bytes(20_000_000))
            assert place.left() == before
            with redis.Redis.from_url(str(place.address)) as client:
                with suppress(redis.OutOfMemoryError):
                    while True:
                        client.rpush("filler", bytes(1000))
                await store.delete(job.id)
            assert await store.get(job.id) is None
            assert place.left() == []


@pytest.mark.anyio
async def test_piece_of_a_video_never_exists_without_an_expiry() -> None:
    port = free_port()
    with redis_server(port, "--save", ""):
        place = Place(f"redis://127.0.0.1:{port}/0")
        with redis.Redis.from_url(str(place.address)) as client:
            client.execute_command(
                "ACL", "SETUSER", "default", "-expire"
            )  # as if the process ended before it
        async with place.opened() as store:
            with pytest.raises(JobsUnavailable):
                await store.keep_video(b"video")
        assert place.left() == []


@pytest.mark.anyio
async def test_result_that_is_deleted_while_it_is_read_is_not_cut_off(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with place.opened() as store, place.opened() as other:
        assert isinstance(store, RedisStore)
        await added(store)
        job = await finished(store, bytes(COPY_BYTES + 1))
        command = store._redis.command

        async def deleting_command(*arguments: Any) -> Any:
            answer = await command(*arguments)
            if arguments[0] == "LINDEX":
                await other.delete(job.id)
            return answer

        monkeypatch.setattr(store._redis, "command", deleting_command)
        async with store.result(job.id) as path:
            assert path is None


@pytest.mark.anyio
async def test_jobs_that_wait_or_run_can_be_deleted_and_given_back_in_full_memory() -> None:
    port = free_port()
    with redis_server(port, "--save", "", "--maxmemory-policy", "noeviction"):
        place = Place(f"redis://127.0.0.1:{port}/0")
        async with place.opened() as store:
            kept, running, waiting = [await added(store) for _ in range(3)]
            with redis.Redis.from_url(str(place.address)) as client:
                async with store.claimed() as one, store.claimed() as two:
                    assert one is not None
                    assert two is not None
                    assert (one.id, two.id) == (kept.id, running.id)
                    client.config_set("maxmemory", "1mb")  # less than is in use
                    with pytest.raises(StorageFull):
                        await added(store)
                    await store.delete(running.id)
                    await store.delete(waiting.id)
                    assert await store.get(waiting.id) is None
                    await store.retry(one, 0.0, counted=False)
                client.config_set("maxmemory", "0")
            assert (await claimed_after_upkeep(store)).id == kept.id


@pytest.mark.anyio
async def test_full_memory_is_freed_by_the_upkeep_and_webhooks_are_called(tmp_path: Path) -> None:
    port = free_port()
    with redis_server(port, "--save", "", "--maxmemory", "8mb", "--maxmemory-policy", "noeviction"):
        place = Place(f"redis://127.0.0.1:{port}/0")
        # The client stays connected: its end would free memory.
        with redis.Redis.from_url(str(place.address)) as client:
            async with place.opened() as store:
                done = await added(store, bytes(1_000_000), webhook="https://example.com/done")
                await finished(store, bytes(1_000_000))
                waiting = await added(store)
                for size in (1000, 10):
                    with suppress(redis.OutOfMemoryError):
                        while True:
                            client.rpush("filler", bytes(size))
                with pytest.raises(StorageFull):
                    await added(store)
                assert [job.id for job in await store.due_webhooks(8, 1.0)] == [done.id]
                place.pass_time(RETENTION_S)
                await store.upkeep()
                assert await store.get(done.id) is None
                async with store.claimed() as job:
                    assert job is not None
                    assert job.id == waiting.id


@pytest.mark.anyio
async def test_unreachable_redis_is_reported_and_used_again(tmp_path: Path) -> None:
    port = free_port()
    async with Place(f"redis://127.0.0.1:{port}/0").opened() as store:
        with pytest.raises(JobsUnavailable):
            await store.keep_video(b"video")
        with redis_server(port, *on_disk(tmp_path)) as server:
            job = await added(store)
            server.kill()
        with pytest.raises(JobsUnavailable):
            await store.get(job.id)
        with redis_server(port, *on_disk(tmp_path)):
            async with store.claimed() as claimed:
                assert claimed is not None
                assert claimed.id == job.id


@pytest.mark.anyio
async def test_end_of_a_job_waits_for_redis(tmp_path: Path) -> None:
    port = free_port()
    async with Place(f"redis://127.0.0.1:{port}/0").opened() as store:
        with redis_server(port, *on_disk(tmp_path)) as server:
            await added(store)
            async with store.claimed() as job:
                assert job is not None
                server.kill()
                server.wait()
                assert await store.progress(job.id, 1, 2)
                ending = asyncio.create_task(store.finish(job, "{}"))
                await asyncio.sleep(0.2)
                assert not ending.done()
                with redis_server(port, *on_disk(tmp_path)):
                    assert await ending


@pytest.mark.anyio
async def test_settings_of_redis_that_lose_jobs_are_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    caplog.set_level(logging.WARNING, logger="service.jobs.redis.connection")
    with redis_server(port, "--save", "", "--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru"):
        async with Place(f"redis://127.0.0.1:{port}/0").opened() as store:
            assert isinstance(store, RedisStore)
            for _ in range(2):
                await store.upkeep()
    messages = [record.message for record in caplog.records]
    assert len(messages) == 2
    assert "noeviction" in messages[0]
    assert "appendonly" in messages[1]
