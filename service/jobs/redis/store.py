"""Jobs in Redis, for replicas on several hosts. The keys are described in `service.jobs.redis.scripts`.

The records of the jobs are those of `JobRecords`. SAQ, a queue in the same Redis, decides which process runs
which job and when: it hands out jobs in the order of their arrival, delays retries, and takes back jobs whose
process has sent no heartbeat for `LEASE_S`. SAQ may hand out a job twice, for example after a whole process
was paused. So each claim writes a new token into the record, and reports from the holder of an older token
are refused.

Records and SAQ's entries are not changed together. A record without an entry, because a process ended between
the two changes, gets one from `upkeep`. An entry without an unfinished record is dropped when it is handed
out.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from saq import Job as Entry
from saq.job import Status
from tenacity import AsyncRetrying, retry_if_exception_type, wait_fixed

from service.errors import JobsUnavailable, StorageFull
from service.jobs.job import UNFINISHED, Job, JobRequest, JobState
from service.jobs.redis.connection import PREFIX, RedisConnection, guarded, write_through
from service.jobs.redis.entries import JobEntries
from service.jobs.redis.records import JobRecords, key
from service.jobs.store import FileWriter, ResultWriter, check_same

# The job of a killed process is started again after this time plus at most one upkeep interval.
LEASE_S = 15
UPKEEP_S = 5
MISSING_ENTRIES_S = 60
RECORD_PAUSE_S = 1.0


@dataclass
class _Claim:
    """What this process knows about a job that it holds: the token and the size of the written result."""

    token: str
    result_bytes: int | None = None


class RedisStore:
    """The jobs of one Redis database; `JobStore` describes the methods.

    Args:
        url: address of Redis, `redis://HOST:PORT/DATABASE`. Nothing is sent before the first call.
        retention_s: how long finished jobs are kept.
        clock: seconds since 1970; the replicas' clocks may differ by a few seconds.
        lease_s: how long a job remains claimed without a heartbeat from its process.
    """

    def __init__(
        self, url: str, retention_s: float, clock: Callable[[], float] = time.time, lease_s: int = LEASE_S
    ) -> None:
        self.retention_s = retention_s
        self.upkeep_s = float(UPKEEP_S)
        self._clock = clock
        self._heartbeat_s = lease_s / 3
        self._redis = RedisConnection(url)
        self._records = JobRecords(self._redis, clock)
        self._entries = JobEntries(self._redis.redis, lease_s)
        self._claims: dict[str, _Claim] = {}

    async def close(self) -> None:
        """Close the connections; the jobs stay."""
        await self._entries.close()
        await self._redis.redis.aclose()

    @asynccontextmanager
    async def video(self, job_id: str) -> AsyncIterator[BinaryIO]:
        """Yield an unnamed temporary file with the video."""
        with tempfile.TemporaryFile() as file:
            await self._redis.download(key("video", job_id), file)
            yield file

    @asynccontextmanager
    async def result(self, job_id: str) -> AsyncIterator[Path | None]:
        """Yield a temporary file with the result; its modification time is the job's end, for HTTP caches."""
        job = await self.get(job_id)
        if job is None or job.finished_s is None:
            yield None
            return
        with tempfile.NamedTemporaryFile(prefix="blvnet-result-") as file:
            if not await self._redis.download(key("result", job_id), file):
                yield None
                return
            os.utime(file.name, (job.finished_s, job.finished_s))
            yield Path(file.name)

    @asynccontextmanager
    async def writing_result(self, job_id: str) -> AsyncIterator[ResultWriter]:
        """Collect the result in a temporary file, and store it under the claim of the job."""
        with tempfile.TemporaryFile() as file:
            yield FileWriter(partial(write_through, file))
            claim = self._claims[job_id]
            async for attempt in _until_available():
                with attempt:
                    claim.result_bytes, _ = await self._redis.upload(key("result", job_id, claim.token), file)

    async def keep_video(self, content: bytes | BinaryIO) -> tuple[str, str]:
        """Copy the video of a new job into Redis; return the job's id and the video's SHA-256."""
        job_id = secrets.token_hex(16)
        async with self._redis.deleted_on(key("video", job_id), StorageFull, asyncio.CancelledError):
            _, digest = await self._redis.upload(key("video", job_id), content)
        return job_id, digest

    async def add(self, job_id: str, request: JobRequest) -> Job:
        """Queue a job whose video is already stored, or return the earlier job with the idempotency key."""
        async with self._redis.deleted_on(key("video", job_id), StorageFull):
            added = await self._records.add(job_id, request)
        job = None if added is None else await self.get(added)
        if job is None:  # the video has expired, or the earlier job has been deleted in the meantime
            raise JobsUnavailable("The job could not be queued; submit it again.", 1.0)
        if job.id != job_id:
            check_same(job, request)
        if job.state is JobState.QUEUED:
            with guarded():
                await self._entries.add(job.id)
        return job

    async def get(self, job_id: str) -> Job | None:
        """A job by its id."""
        return await self._records.get(job_id)

    @asynccontextmanager
    async def claimed(self, on_lost: Callable[[str], None] | None = None) -> AsyncIterator[Job | None]:
        """Start a job that SAQ hands out, and hold it during the block with regular heartbeats."""
        entry: Entry | None = None
        job: Job | None = None
        try:
            with guarded():
                await self._entries.release_delayed()
                entry, job = await self._next()
        except asyncio.CancelledError:
            if entry is not None and job is not None:
                await self.retry(job, 0.0, counted=False)
                await self._release(entry, self._claims.pop(job.id))
            raise
        if entry is None or job is None:
            yield None
            return
        pulse = asyncio.create_task(self._keep_alive(entry, on_lost), name=f"keep job {job.id}")
        try:
            yield job
        finally:
            pulse.cancel()
            await asyncio.wait([pulse])
            claim = self._claims.pop(job.id)
            # Otherwise SAQ takes the job back when its lease has ended.
            with suppress(JobsUnavailable, StorageFull):
                await self._release(entry, claim)

    async def progress(self, job_id: str, windows: int, windows_total: int) -> bool:
        """Record the progress of a held job; the job continues if Redis does not answer."""
        fields = {"windows": windows, "windows_total": windows_total}
        try:
            return await self._change_held(job_id, (JobState.RUNNING,), fields)
        except JobsUnavailable:
            return True

    async def retry(self, job: Job, delay_s: float, *, counted: bool) -> None:
        """Queue a held job again after `delay_s` seconds; without `counted` the attempt does not count."""
        fields = {"not_before_s": self._clock() + delay_s, "attempts": job.attempts - (not counted)}
        state = (JobState.QUEUED, job.created_s)
        await self._change_held(job.id, (JobState.RUNNING,), fields, state=state)

    async def finish(self, job: Job, result: str) -> bool:
        """Record the result of a held job."""
        return await self._end(job, JobState.DONE, {"result": result})

    async def fail(self, job: Job, problem: Mapping[str, Any]) -> bool:
        """Record why a held job failed."""
        return await self._end(job, JobState.FAILED, {"problem": json.dumps(dict(problem))})

    async def delete(self, job_id: str) -> None:
        """Delete a job; a process that runs it notices soon."""
        await self._records.delete(job_id)
        with suppress(StorageFull), guarded():  # an entry that is left is dropped when it is handed out
            await self._entries.delete(job_id)

    async def upkeep(self) -> None:
        """Delete expired data, requeue the jobs of ended processes, and add missing entries."""
        with guarded():
            await self._redis.check_configuration()
            expired = await self._records.ids(
                (JobState.DONE, JobState.FAILED), self._clock() - self.retention_s
            )
        # First: a full Redis refuses the rest, and only this frees its memory.
        for job_id in expired:
            await self.delete(job_id)
        with guarded():
            await self._entries.take_back(UPKEEP_S)
            first = await self._redis.command(
                "SET", f"{PREFIX}missing-entries", "checked", "NX", "EX", MISSING_ENTRIES_S
            )
            if first:
                for job_id in await self._records.ids(UNFINISHED):
                    await self._entries.add(job_id)

    async def due_webhooks(self, limit: int, lease_s: float) -> list[Job]:
        """Return up to `limit` jobs whose webhook this process should call now."""
        return await self._records.due_webhooks(limit, lease_s)

    async def webhook_tried(self, job: Job, *, delivered: bool, next_in_s: float | None) -> None:
        """Record a delivery attempt and when to try again; None for never."""
        fields = {"webhook_attempts": job.webhook_attempts + 1, "webhook_delivered": int(delivered)}
        due = "" if next_in_s is None else repr(self._clock() + next_in_s)
        await self._records.change(job.id, tuple(JobState), fields, webhook_due_s=due)

    async def counts(self) -> dict[JobState, int]:
        """Number of jobs in each state."""
        return await self._records.counts()

    async def pending_bytes(self) -> int:
        """Total size of the videos of unfinished jobs and of all results, which share the memory of Redis."""
        return await self._records.stored_bytes()

    async def _next(self) -> tuple[Entry | None, Job | None]:
        """Take the next due and unfinished job from SAQ, under a new token."""
        while (entry := await self._entries.take()) is not None:
            if entry.key in self._claims:  # SAQ took it back from this process, which holds it again
                continue
            now, token = self._clock(), secrets.token_hex(8)
            wait_s = await self._records.not_before_s(entry.key) - now
            if wait_s > 0:  # SAQ has taken back a job whose process ended before it could delay it
                await self._entries.put_back(entry, wait_s)
                continue
            fields = {"claim": token, "started_s": now}
            job = await self.get(entry.key)
            if job is not None and await self._records.change(
                job.id, UNFINISHED, fields, state=(JobState.RUNNING, job.created_s), started=True
            ):
                job = await self.get(entry.key)
                if job is not None:
                    self._claims[job.id] = _Claim(token)
                    return entry, job
            await self._entries.end(entry, Status.ABORTED)
        return None, None

    async def _keep_alive(self, entry: Entry, on_lost: Callable[[str], None] | None) -> None:
        """Send heartbeats until the job is lost."""
        while True:
            await asyncio.sleep(self._heartbeat_s)
            try:
                with guarded():
                    _, token = await self._records.holder(entry.key)
                    if token != self._claims[entry.key].token:
                        break
                    await entry.update()
            except JobsUnavailable:
                continue
        if on_lost is not None:
            on_lost(entry.key)

    async def _release(self, entry: Entry, claim: _Claim) -> None:
        """Return an entry to SAQ, requeued or finished according to the record."""
        with guarded():
            state, token = await self._records.holder(entry.key)
            if state not in UNFINISHED:
                await self._entries.end(entry, Status.COMPLETE)
            elif token == claim.token:
                await self._entries.put_back(
                    entry, await self._records.not_before_s(entry.key) - self._clock()
                )
            if claim.result_bytes is not None:
                await self._redis.command("UNLINK", key("result", entry.key, claim.token))

    async def _end(self, job: Job, state: JobState, fields: Mapping[str, Any]) -> bool:
        """Record the end of a held job; wait for Redis if necessary, because the work is already done."""
        now = self._clock()
        claim = self._claims[job.id]
        changes: dict[str, Any] = {"ended": True}
        if state is JobState.DONE and claim.result_bytes is not None:
            changes["result_bytes"] = str(claim.result_bytes)
        if job.webhook is not None:
            changes["webhook_due_s"] = repr(now)
        async for attempt in _until_available():
            with attempt:
                ended = await self._change_held(
                    job.id, UNFINISHED, {"finished_s": now, **fields}, state=(state, now), **changes
                )
        return ended

    async def _change_held(
        self, job_id: str, allowed: tuple[JobState, ...], fields: Mapping[str, Any], **changes: Any
    ) -> bool:
        """Change a job as `JobRecords.change` does, while this process holds it."""
        claim = self._claims.get(job_id)
        if claim is None:
            return False
        return await self._records.change(job_id, allowed, fields, claim=claim.token, **changes)


def _until_available() -> AsyncRetrying:
    return AsyncRetrying(
        retry=retry_if_exception_type(JobsUnavailable), wait=wait_fixed(RECORD_PAUSE_S), reraise=True
    )
