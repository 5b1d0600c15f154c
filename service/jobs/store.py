"""The interface of job stores: `FolderStore` for processes on one host, `RedisStore` for several hosts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from service.background import in_thread
from service.errors import IdempotencyMismatch
from service.jobs.job import Job, JobRequest, JobState

COPY_BYTES = 1_000_000


class ResultWriter(Protocol):
    """Accepts the bytes of a result in pieces."""

    async def write(self, data: bytes) -> None:
        """Append bytes."""


class FileWriter:
    """A `ResultWriter` that calls `write` with each piece, in a thread."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write

    async def write(self, data: bytes) -> None:
        """Append bytes."""
        await in_thread(self._write, data)


class JobStore(Protocol):
    """Jobs with their videos and results.

    A job is held by at most one runner. A runner cannot record anything about a job that it no longer holds,
    because the job was deleted or another runner has started it.

    Every method that reads or changes jobs may raise `JobsUnavailable`.

    Attributes:
        retention_s: how long finished jobs are kept.
        upkeep_s: how often to call `upkeep`.
    """

    retention_s: float
    upkeep_s: float

    async def close(self) -> None:
        """Release connections; the jobs stay."""

    def video(self, job_id: str) -> AbstractAsyncContextManager[Path | BinaryIO]:
        """Provide the video of an unfinished job during the block.

        Raises:
            StorageFull: there is no disk space for it.
        """

    def result(self, job_id: str) -> AbstractAsyncContextManager[Path | None]:
        """Provide a file with the result of a finished job during the block; None if it no longer exists."""

    def writing_result(self, job_id: str) -> AbstractAsyncContextManager[ResultWriter]:
        """Replace the result of a held job with the bytes that the block writes, once it succeeds."""

    async def keep_video(self, content: bytes | BinaryIO) -> tuple[str, str]:
        """Copy the video of a new job into the store; return the job's id and the video's SHA-256.

        Raises:
            StorageFull: there is no space for it.
        """

    async def add(self, job_id: str, request: JobRequest) -> Job:
        """Queue a job whose video is already stored.

        If the caller has used the idempotency key before, the video is dropped and the earlier job returned.

        Raises:
            IdempotencyMismatch: the earlier job had other parameters or another video.
        """

    async def get(self, job_id: str) -> Job | None:
        """A job by its id."""

    def claimed(
        self, on_lost: Callable[[str], None] | None = None
    ) -> AbstractAsyncContextManager[Job | None]:
        """Start a due job that no process is running, and hold it during the block.

        Yields None if there is no such job.

        Args:
            on_lost: is called with the job's id if the store finds that the job is no longer held.
        """

    async def progress(self, job_id: str, windows: int, windows_total: int) -> bool:
        """Record the progress of a held job; False if it is no longer held."""

    async def retry(self, job: Job, delay_s: float, *, counted: bool) -> None:
        """Queue a held job again after `delay_s` seconds; without `counted` the attempt does not count."""

    async def finish(self, job: Job, result: str) -> bool:
        """Record the result of a held job; False if it is no longer held."""

    async def fail(self, job: Job, problem: Mapping[str, Any]) -> bool:
        """Record why a held job failed; False if it is no longer held."""

    async def delete(self, job_id: str) -> None:
        """Delete a job with its video and result."""

    async def upkeep(self) -> None:
        """Delete expired jobs, and take back the jobs of processes that have ended."""

    async def due_webhooks(self, limit: int, lease_s: float) -> list[Job]:
        """Return up to `limit` jobs whose webhook this process should call now.

        They are due again after `lease_s`, unless `webhook_tried` is called before then.
        """

    async def webhook_tried(self, job: Job, *, delivered: bool, next_in_s: float | None) -> None:
        """Record a delivery attempt and when to try again; None for never."""

    async def counts(self) -> dict[JobState, int]:
        """Number of jobs in each state."""

    async def pending_bytes(self) -> int:
        """Return the stored bytes that count towards the limit: at least the videos of unfinished jobs."""


def check_same(earlier: Job, request: JobRequest) -> None:
    """Raise `IdempotencyMismatch` unless a request is the same as that of an earlier job."""
    compared = ("kind", "parameters", "video_sha256", "webhook")
    if any(getattr(earlier, name) != getattr(request, name) for name in compared):
        raise IdempotencyMismatch(
            "This Idempotency-Key was used for a job with other parameters or another video."
        )
