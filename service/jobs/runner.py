"""Run the queued jobs, a few at a time, and call their webhooks.

Jobs pass through the same pipeline as requests and have no reserved capacity in it: while the service is busy
with waiting callers, it rejects a job, which is retried later.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from service.errors import DecodersKilled, Overloaded, RequestError, RetryAfter
from service.jobs.job import UNFINISHED, Job, JobLost, JobRequest
from service.jobs.store import JobStore
from service.jobs.webhooks import RETRY_PAUSES_S, Webhooks

# How often to look for jobs that another process has queued or abandoned, and for webhooks that are due.
POLL_S = 1.0
# A job that was interrupted this often probably crashes its process, so it fails instead of starting again.
MAX_ATTEMPTS = 3
RETRY_FULL_QUEUE_S = 60.0
WEBHOOKS_AT_ONCE = 16
# If a process ends while it calls a webhook, the webhook is called again after this time.
WEBHOOK_LEASE_S = 60.0

logger = logging.getLogger(__name__)

# Runs a job: writes its result into the store and returns the JSON for the job's document.
Perform = Callable[[Job], Awaitable[str]]


class JobRunner:
    """The jobs of this process.

    Args:
        store: the jobs.
        perform: does the work of a job. `RetryAfter` queues it again, `DecodersKilled` at most
            `MAX_ATTEMPTS` times, `JobLost` drops it, another exception fails it.
        problem: the problem document for an exception.
        document: the JSON that webhooks receive for a finished job.
        webhooks: calls the webhooks.
        at_once: number of jobs that run at the same time.
        max_pending: maximum number of unfinished jobs; `max_pending_bytes` limits their videos' total size.
        on_end: is called with each job that finished here.
    """

    def __init__(
        self,
        store: JobStore,
        perform: Perform,
        *,
        problem: Callable[[Exception, str], dict[str, object]],
        document: Callable[[Job], str],
        webhooks: Webhooks,
        at_once: int,
        max_pending: int,
        max_pending_bytes: int,
        on_end: Callable[[Job], None],
    ) -> None:
        self.store = store
        self.webhooks = webhooks
        self._perform = perform
        self._problem = problem
        self._document = document
        self._at_once = at_once
        self._max_pending = max_pending
        self._max_pending_bytes = max_pending_bytes
        self._on_end = on_end
        self._arriving = 0
        self._available = True
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._running: dict[str, asyncio.Task[None]] = {}

    def start(self) -> None:
        """Begin to run jobs."""
        loops = [self._run_jobs] * self._at_once + [self._call_webhooks, self._upkeep]
        self._tasks = [asyncio.create_task(self._keep_running(loop), name=loop.__name__) for loop in loops]

    async def stop(self) -> None:
        """Stop; running jobs are queued again, and the interrupted attempts do not count."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def close(self) -> None:
        """Stop, and close the store."""
        await self.stop()
        await self.webhooks.close()
        await self.store.close()

    @asynccontextmanager
    async def arriving(self) -> AsyncIterator[None]:
        """Reserve a place in the queue while a video is received.

        Raises:
            Overloaded: the queue is full.
            JobsUnavailable: the store does not answer.
        """
        self._arriving += 1
        # Before the store is asked: what arrives meanwhile has to count this place, or all would be let in.
        arriving = self._arriving
        try:
            counts = await self.store.counts()
            if sum(counts[state] for state in UNFINISHED) + arriving > self._max_pending:
                raise Overloaded(f"The job queue is full ({self._max_pending} jobs).", RETRY_FULL_QUEUE_S)
            if await self.store.pending_bytes() >= self._max_pending_bytes:
                limit_mb = self._max_pending_bytes // 10**6
                raise Overloaded(f"The stored jobs exceed {limit_mb} MB.", RETRY_FULL_QUEUE_S)
            yield
        finally:
            self._arriving -= 1

    async def add(self, job_id: str, request: JobRequest) -> Job:
        """Queue a job, as `JobStore.add`."""
        job = await self.store.add(job_id, request)
        self._wake.set()
        return job

    async def delete(self, job: Job) -> None:
        """Delete a job and its result; one that runs is stopped."""
        await self.store.delete(job.id)
        self._interrupt(job.id)

    def _interrupt(self, job_id: str) -> None:
        if (task := self._running.get(job_id)) is not None:
            task.cancel()

    async def _keep_running(self, loop: Callable[[], Awaitable[None]]) -> None:
        """Restart a loop after an unexpected error, such as a full disk, so that jobs never stall."""
        while True:
            try:
                await loop()
            except RetryAfter as exc:
                if self._available:
                    logger.error("jobs are interrupted: %s (%s)", exc.message, exc.__cause__)
                self._available = False
            except Exception:  # if a loop ended, for whatever reason, its jobs would never run
                logger.exception("jobs are interrupted")
            await asyncio.sleep(POLL_S)

    async def _run_jobs(self) -> None:
        while True:
            self._wake.clear()
            async with AsyncExitStack() as claim:
                job = await claim.enter_async_context(self.store.claimed(self._interrupt))
                if not self._available:
                    logger.info("jobs are available again")
                    self._available = True
                if job is not None:
                    task = self._running[job.id] = asyncio.create_task(self._run(job), name=f"job {job.id}")
                    claim.callback(self._running.pop, job.id)
                    claim.push_async_callback(asyncio.wait, [task])
                    claim.callback(task.cancel)
                    await asyncio.wait([task])
                    if not task.cancelled():  # otherwise the job was deleted or is held by another process
                        task.result()
                    continue
            # Not `wait_for`, which in Python 3.11 drops a cancellation that comes together with the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._wake.wait()

    async def _run(self, job: Job) -> None:
        if job.attempts > MAX_ATTEMPTS:
            await self._fail(job, Overloaded(f"The service ended {MAX_ATTEMPTS} times during this job.", 1.0))
            return
        logger.info("job started", extra={"job": job.id, "kind": job.kind.value, "attempt": job.attempts})
        try:
            result = await self._perform(job)
        except asyncio.CancelledError:  # deleted, or the service stops
            await self.store.retry(job, 0.0, counted=False)
            raise
        except DecodersKilled as exc:  # by other work, or by this video, which then does so every time
            if job.attempts < MAX_ATTEMPTS:
                await self.store.retry(job, exc.retry_after_s, counted=True)
            else:
                await self._fail(job, exc)
        except RetryAfter as exc:
            await self.store.retry(job, exc.retry_after_s, counted=False)
        except JobLost:
            logger.info("job was deleted or is held by another process", extra={"job": job.id})
        except Exception as exc:  # noqa: BLE001 - or the job would be repeated at every start
            await self._fail(job, exc)
        else:
            if await self.store.finish(job, result):
                await self._ended(job)

    async def _fail(self, job: Job, exc: Exception) -> None:
        if not isinstance(exc, RequestError):
            logger.error("job failed unexpectedly", extra={"job": job.id}, exc_info=exc)
        if await self.store.fail(job, self._problem(exc, job.request_id)):
            await self._ended(job)

    async def _ended(self, job: Job) -> None:
        ended = await self.store.get(job.id)
        if ended is not None:
            logger.info("job ended", extra={"job": job.id, "state": ended.state.value})
            self._on_end(ended)

    async def _call_webhooks(self) -> None:
        while True:
            due = await self.store.due_webhooks(WEBHOOKS_AT_ONCE, WEBHOOK_LEASE_S)
            await asyncio.gather(*(self._call_webhook(job) for job in due))
            await asyncio.sleep(POLL_S)

    async def _call_webhook(self, job: Job) -> None:
        assert job.webhook is not None
        delivered = await self.webhooks.deliver(job.webhook, job.id, self._document(job))
        left = RETRY_PAUSES_S[job.webhook_attempts :]
        pause_s = None if delivered or not left else left[0]
        await self.store.webhook_tried(job, delivered=delivered, next_in_s=pause_s)

    async def _upkeep(self) -> None:
        while True:
            await self.store.upkeep()
            await asyncio.sleep(self.store.upkeep_s)
