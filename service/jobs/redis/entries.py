"""SAQ's entries of the jobs, which decide which process runs which job and when."""

from __future__ import annotations

import logging
from contextlib import suppress

from redis.asyncio import Redis
from redis.exceptions import RedisError
from saq import Job as Entry
from saq.job import Status
from saq.queue.redis import RedisQueue

QUEUE = "blvnet-jobs"
# SAQ blocks for a job at least this long; 0 would be forever.
SHORTEST_WAIT_S = 0.01
# How long SAQ waits for a process to give up a job that is taken back; it has ended, or its token is void.
ABORT_WAIT_S = 0.1

# SAQ logs a line for each step of each job; the runner already logs these.
logging.getLogger("saq").setLevel(logging.WARNING)


class JobEntries:
    """The entries in one Redis database. Methods raise the errors of redis-py.

    Args:
        redis: the database.
        lease_s: how long a job remains claimed without a heartbeat from its process.
    """

    def __init__(self, redis: Redis, lease_s: int) -> None:
        self._queue = RedisQueue(redis, name=QUEUE)
        self._lease_s = lease_s

    async def close(self) -> None:
        """Close SAQ's connections."""
        with suppress(RedisError, OSError):
            await self._queue.disconnect()

    async def add(self, job_id: str) -> None:
        """Add an entry for a job unless it already has one."""
        await self._queue.enqueue("job", key=job_id, timeout=0, heartbeat=self._lease_s, ttl=-1)

    async def release_delayed(self) -> None:
        """Move the entries whose delay has passed to the queue."""
        await self._queue.schedule()

    async def take(self) -> Entry | None:
        """Take the oldest entry, if any."""
        entry = await self._queue.dequeue(timeout=SHORTEST_WAIT_S)
        if entry is not None:
            entry.retry_delay = 0.0
            # Immediately: SAQ takes back entries that were taken from the queue but are not active.
            await entry.update(status=Status.ACTIVE)
        return entry

    async def put_back(self, entry: Entry, delay_s: float) -> None:
        """Queue a taken entry again."""
        entry.retry_delay = max(0.0, delay_s)
        await self._queue.retry(entry, None)

    async def end(self, entry: Entry, status: Status) -> None:
        """Remove a taken entry."""
        await self._queue.finish(entry, status)

    async def delete(self, job_id: str) -> None:
        """Remove the entry of a job from wherever it is."""
        entry = await self._queue.job(job_id)
        if entry is not None:
            await self._queue.abort(entry, "deleted")  # takes it out of the queue
            await self._queue.finish(entry, Status.ABORTED)

    async def take_back(self, interval_s: int) -> None:
        """Queue the entries of ended processes again, unless another process did so within `interval_s`."""
        with suppress(RuntimeError):  # an entry has been finished meanwhile
            await self._queue.sweep(lock=interval_s, abort=ABORT_WAIT_S)
