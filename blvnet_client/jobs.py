"""Jobs: videos that the service stores and processes later."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import anyio

from blvnet_client import operations
from blvnet_client.errors import TimedOut, problem_error
from blvnet_client.operations import AnyJob
from blvnet_client.results import ClassifyJob, Job, TimelineJob, TimelineResult, WindowResult
from blvnet_client.uploads import AsyncSource, Progress, Source

# Most clips take less than a second, so the first poll is soon.
FIRST_POLL_S = 0.1
LONGEST_POLL_S = 2.0
POLL_GROWTH = 1.5

Lines = Iterator[WindowResult | TimelineResult]
AsyncLines = AsyncIterator[WindowResult | TimelineResult]


class Jobs:
    """The jobs of a service, as `Client.jobs`; it needs `BLVNET_JOBS_DIR` or `BLVNET_JOBS_REDIS_URL`.

    A job survives a restart of the service. Only the API key that submitted it can see it.
    """

    def __init__(self, fetch: Callable[..., Any], lines: Callable[..., Lines]) -> None:
        self._fetch = fetch
        self._lines = lines

    def submit_classify(
        self,
        video: Source,
        *,
        model: str | None = None,
        top_k: int | None = None,
        clips: int | None = None,
        crops: int | None = None,
        evidence: bool | None = None,
        frames: bool | None = None,
        webhook: str | None = None,
        idempotency_key: str | None = None,
        request_id: str | None = None,
        on_progress: Progress | None = None,
    ) -> ClassifyJob:
        """Submit a video to classify, and return as soon as the service has it.

        Args:
            video: see `Client.classify`.
            model: name of the model.
            top_k: number of labels.
            clips: clips sampled over time.
            crops: crops of each frame.
            evidence: whether to include the scores of each moment.
            frames: whether to include the frames that the network saw, as images.
            webhook: URL that receives the finished job by POST; the service must allow its host.
            idempotency_key: submitting with the same key again returns the first job. By default each call
                creates a key, so that a retry after a cut connection does not submit twice.
            request_id: id of the request in the service's log.
            on_progress: see `Client.classify`.
        """
        operation = _submission(
            ClassifyJob, idempotency_key, request_id, webhook=webhook,
            model=model, top_k=top_k, clips=clips, crops=crops, evidence=evidence, frames=frames,
        )  # fmt: skip
        job: ClassifyJob = self._fetch(operation, video, on_progress)
        return job

    def submit_timeline(
        self,
        video: Source,
        *,
        model: str | None = None,
        window_s: float | None = None,
        stride_s: float | None = None,
        top_k: int | None = None,
        webhook: str | None = None,
        idempotency_key: str | None = None,
        request_id: str | None = None,
        on_progress: Progress | None = None,
    ) -> TimelineJob:
        """Submit a long video, and return as soon as the service has it.

        Args:
            video: see `Client.timeline`.
            model: name of the model.
            window_s: length of a window in seconds.
            stride_s: seconds between the starts of consecutive windows.
            top_k: number of labels for each window.
            webhook: see `submit_classify`.
            idempotency_key: see `submit_classify`.
            request_id: id of the request in the service's log.
            on_progress: see `Client.timeline`.
        """
        operation = _submission(
            TimelineJob, idempotency_key, request_id, webhook=webhook,
            model=model, window_s=window_s, stride_s=stride_s, top_k=top_k,
        )  # fmt: skip
        job: TimelineJob = self._fetch(operation, video, on_progress)
        return job

    def get(self, job_id: str) -> ClassifyJob | TimelineJob:
        """Return the current state of a job; raise `NotFoundError` if it does not exist (any more)."""
        job: ClassifyJob | TimelineJob = self._fetch(operations.job(job_id))
        return job

    def wait(self, job: AnyJob, timeout_s: float | None = None) -> AnyJob:
        """Wait until a job is done, and return it with its result.

        Args:
            job: as `submit_classify`, `submit_timeline` or `get` returned it.
            timeout_s: how long to wait; None for no limit.

        Raises:
            ProblemError: the job failed.
            TimedOut: the job was not finished in time, but continues. `phase` is `job`.
        """
        schedule = _Schedule(timeout_s)
        while not job.finished:
            time.sleep(schedule.next_wait_s(job))
            job = self._fetch(operations.job(job.id))
        return _checked(job)

    def windows(self, job: TimelineJob) -> Lines:
        """The windows of a timeline that is done, and its summary last."""
        return self._lines(operations.job_result(job.id))

    def delete(self, job: Job) -> None:
        """Stop a job if it runs, and delete it with its video and result."""
        self._fetch(operations.delete_job(job.id))


class AsyncJobs:
    """The jobs of a service, as `AsyncClient.jobs`: the methods of `Jobs` as coroutines."""

    def __init__(self, fetch: Callable[..., Awaitable[Any]], lines: Callable[..., AsyncLines]) -> None:
        self._fetch = fetch
        self._lines = lines

    async def submit_classify(
        self,
        video: AsyncSource,
        *,
        model: str | None = None,
        top_k: int | None = None,
        clips: int | None = None,
        crops: int | None = None,
        evidence: bool | None = None,
        frames: bool | None = None,
        webhook: str | None = None,
        idempotency_key: str | None = None,
        request_id: str | None = None,
        on_progress: Progress | None = None,
    ) -> ClassifyJob:
        """Submit a video to classify; see `Jobs.submit_classify`."""
        operation = _submission(
            ClassifyJob, idempotency_key, request_id, webhook=webhook,
            model=model, top_k=top_k, clips=clips, crops=crops, evidence=evidence, frames=frames,
        )  # fmt: skip
        job: ClassifyJob = await self._fetch(operation, video, on_progress)
        return job

    async def submit_timeline(
        self,
        video: AsyncSource,
        *,
        model: str | None = None,
        window_s: float | None = None,
        stride_s: float | None = None,
        top_k: int | None = None,
        webhook: str | None = None,
        idempotency_key: str | None = None,
        request_id: str | None = None,
        on_progress: Progress | None = None,
    ) -> TimelineJob:
        """Submit a long video; see `Jobs.submit_timeline`."""
        operation = _submission(
            TimelineJob, idempotency_key, request_id, webhook=webhook,
            model=model, window_s=window_s, stride_s=stride_s, top_k=top_k,
        )  # fmt: skip
        job: TimelineJob = await self._fetch(operation, video, on_progress)
        return job

    async def get(self, job_id: str) -> ClassifyJob | TimelineJob:
        """Return the current state of a job; see `Jobs.get`."""
        job: ClassifyJob | TimelineJob = await self._fetch(operations.job(job_id))
        return job

    async def wait(self, job: AnyJob, timeout_s: float | None = None) -> AnyJob:
        """Wait until a job is done; see `Jobs.wait`."""
        schedule = _Schedule(timeout_s)
        while not job.finished:
            await anyio.sleep(schedule.next_wait_s(job))
            job = await self._fetch(operations.job(job.id))
        return _checked(job)

    def windows(self, job: TimelineJob) -> AsyncLines:
        """The windows of a timeline that is done, and its summary last."""
        return self._lines(operations.job_result(job.id))

    async def delete(self, job: Job) -> None:
        """Stop a job if it runs, and delete it with its video and result."""
        await self._fetch(operations.delete_job(job.id))


class _Schedule:
    """The schedule of polls for a job."""

    def __init__(self, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s
        self._end = None if timeout_s is None else time.monotonic() + timeout_s
        self._following_s = FIRST_POLL_S

    def next_wait_s(self, job: Job) -> float:
        """Return the seconds until the next poll, which is never later than the time limit.

        Raises:
            TimedOut: the time limit has passed.
        """
        wait_s = self._following_s
        self._following_s = min(self._following_s * POLL_GROWTH, LONGEST_POLL_S)
        if self._end is None:
            return wait_s
        left_s = self._end - time.monotonic()
        if left_s <= 0:
            raise TimedOut(f"Job {job.id} is still {job.state} after {self._timeout_s:g} s", "job")
        return min(wait_s, left_s)


def _submission(
    kind: type[AnyJob], idempotency_key: str | None, request_id: str | None, **parameters: Any
) -> operations.Operation[AnyJob]:
    return operations.submit_job(kind, idempotency_key or uuid.uuid4().hex, request_id, **parameters)


def _checked(job: AnyJob) -> AnyJob:
    if job.problem is not None:
        raise problem_error(job.problem)
    return job
