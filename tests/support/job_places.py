"""The places where jobs can be kept: a folder, or a Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis

from service.jobs.folder.store import FolderStore
from service.jobs.job import Job, JobKind, JobRequest
from service.jobs.redis.connection import PREFIX
from service.jobs.redis.entries import QUEUE
from service.jobs.redis.store import RedisStore
from service.jobs.store import JobStore
from tests.support.clock import Clock

RETENTION_S = 60.0


@dataclass
class Place:
    """Where jobs are kept: a folder, or the Redis at `address`. `clock` is the time of its stores."""

    address: str | Path
    clock: Clock = field(default_factory=Clock)

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of a service that keeps its jobs here."""
        return {"JOBS_DIR" if isinstance(self.address, Path) else "JOBS_REDIS_URL": self.address}

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[JobStore]:
        """A store, as opened by one process."""
        store: JobStore
        if isinstance(self.address, Path):
            store = FolderStore(self.address, RETENTION_S, self.clock)
        else:
            store = RedisStore(self.address, RETENTION_S, self.clock, lease_s=1)
        try:
            yield store
        finally:
            await store.close()

    def pass_time(self, seconds: float) -> None:
        """Let time pass, also for the delays that the queue in Redis keeps by the real clock."""
        self.clock.now_s += seconds
        if isinstance(self.address, str):
            with redis.Redis.from_url(self.address) as client:
                client.delete(f"saq:{QUEUE}:schedule")  # it looks for them once a second
                delayed = f"saq:{QUEUE}:incomplete"
                for entry, due_s in client.zrange(delayed, 0, -1, withscores=True):
                    if due_s:
                        client.zadd(delayed, {entry: due_s - seconds})

    @property
    def result_prefix(self) -> str:
        """The prefix in `left` of the id of a job whose result is kept."""
        return "" if isinstance(self.address, Path) else f"{PREFIX}result:"

    def left(self) -> list[str]:
        """Names of the data stored for jobs: files, or keys of Redis."""
        if isinstance(self.address, Path):
            return sorted(
                path.name for folder in ("videos", "results") for path in (self.address / folder).iterdir()
            )
        with redis.Redis.from_url(self.address) as client:
            keys = [
                key.decode()
                for pattern in (f"{PREFIX}video:*", f"{PREFIX}result:*", "saq:job:*")
                for key in client.keys(pattern)
            ]
        return sorted(keys)


async def added(
    store: JobStore,
    video: bytes = b"video",
    webhook: str | None = None,
    key: str | None = None,
    caller: str = "",
    **parameters: Any,
) -> Job:
    """A job of the store."""
    job_id, digest = await store.keep_video(video)
    request = JobRequest(
        kind=JobKind.CLASSIFY,
        parameters={"model": "tiny", **parameters},
        caller=caller,
        request_id="r",
        idempotency_key=key,
        video_sha256=digest,
        video_bytes=len(video),
        webhook=webhook,
    )
    return await store.add(job_id, request)


async def finished(store: JobStore, content: bytes) -> Job:
    """The next job, which is claimed and finished with a result."""
    async with store.claimed() as job:
        assert job is not None
        async with store.writing_result(job.id) as result:
            await result.write(content)
        assert await store.finish(job, "{}")
    return job


def new_place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, database: int
) -> Place:
    """An empty place, for a fixture with the parameters `folder` and `redis`."""
    if request.param == "folder":
        return Place(tmp_path_factory.mktemp("jobs"))
    url = f"{request.getfixturevalue('redis_address')}/{database}"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return Place(url)


async def claimed_after_upkeep(store: JobStore) -> Job:
    """Wait until the upkeep gives a job back, and claim it."""
    while True:
        await store.upkeep()
        async with store.claimed() as claimed:
            if claimed is not None:
                return claimed
        await asyncio.sleep(0.1)
