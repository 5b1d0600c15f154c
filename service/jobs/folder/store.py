"""Jobs in a folder: an SQLite database, and a file for each video and each result.

    JOBS_DIR/jobs.sqlite3      states and parameters
    JOBS_DIR/videos/ID         the video, until the job has finished
    JOBS_DIR/results/ID        the answer (JSON) or the lines of a timeline (NDJSON), until the job expires

Several processes of one machine may use the same folder. The process that runs a job holds a lock on its
video, which the kernel releases when the process ends, even if it is killed. A job that is marked as running
and has no lock was interrupted.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import logging
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

from service.background import in_thread
from service.errors import BlvnetError, StorageFull
from service.jobs.folder.database import JobDatabase
from service.jobs.job import UNFINISHED, Job, JobRequest, JobState
from service.jobs.store import COPY_BYTES, FileWriter, ResultWriter, check_same
from service.packages.files import atomic_write

DELETE_EXPIRED_S = 60.0
RETRY_FULL_DISK_S = 60.0

logger = logging.getLogger(__name__)


class FolderStore:
    """The jobs in one folder. Disk access runs in threads, so the event loop does not wait for the disk.

    Args:
        folder: the folder; created if it does not exist.
        retention_s: how long finished jobs are kept.
        clock: seconds since 1970.

    Raises:
        BlvnetError: the folder cannot be used.
    """

    def __init__(self, folder: Path, retention_s: float, clock: Callable[[], float] = time.time) -> None:
        self.retention_s = retention_s
        self.upkeep_s = DELETE_EXPIRED_S
        self._videos, self._results = folder / "videos", folder / "results"
        self._clock = clock
        try:
            for path in (self._videos, self._results):
                path.mkdir(parents=True, exist_ok=True)
            self._database = JobDatabase(folder / "jobs.sqlite3", clock)
        except (OSError, sqlite3.Error) as exc:
            raise BlvnetError(f"jobs cannot be kept in {folder}: {exc}") from exc

    async def close(self) -> None:
        """Close the database; the jobs stay."""
        self._database.close()

    @asynccontextmanager
    async def video(self, job_id: str) -> AsyncIterator[Path]:
        """Yield the path of a job's video."""
        yield self._videos / job_id

    @asynccontextmanager
    async def result(self, job_id: str) -> AsyncIterator[Path | None]:
        """Yield a path of a done job's result. It stays valid if the job is deleted meanwhile."""
        try:
            file = await asyncio.to_thread((self._results / job_id).open, "rb")
        except FileNotFoundError:
            yield None
            return
        with file:
            yield Path(f"/proc/self/fd/{file.fileno()}")

    @asynccontextmanager
    async def writing_result(self, job_id: str) -> AsyncIterator[ResultWriter]:
        """Write the result with `atomic_write`, in threads."""
        opened = ExitStack()

        def open_file() -> IO[bytes]:
            with _disk_errors():
                return opened.enter_context(atomic_write(self._results / job_id))

        def close(*outcome: Any) -> bool:
            with _disk_errors():
                return bool(opened.__exit__(*outcome))

        def write(data: bytes) -> None:
            with _disk_errors():
                file.write(data)

        async with AsyncExitStack() as stack:
            # Before the file is opened, as a cancellation meanwhile does not prevent that.
            stack.push_async_exit(lambda *outcome: in_thread(close, *outcome))
            file = await in_thread(open_file)
            yield FileWriter(write)

    async def keep_video(self, content: bytes | BinaryIO) -> tuple[str, str]:
        """Copy the video of a new job into the folder; return the job's id and the video's SHA-256.

        Raises:
            StorageFull: it cannot be written.
        """
        job_id = secrets.token_hex(16)
        try:
            return job_id, await in_thread(_copy, content, self._videos / job_id)
        except asyncio.CancelledError:
            (self._videos / job_id).unlink(missing_ok=True)
            raise

    async def add(self, job_id: str, request: JobRequest) -> Job:
        """Queue a job whose video is already stored.

        If the caller has used the idempotency key before, the video is dropped and the earlier job returned.

        Raises:
            IdempotencyMismatch: the earlier job had other parameters or another video.
            StorageFull: the disk has no space for it; the video is dropped.
        """
        return await asyncio.to_thread(self._add, job_id, request)

    def _add(self, job_id: str, request: JobRequest) -> Job:
        with ExitStack() as unless_added:
            unless_added.callback((self._videos / job_id).unlink)
            while not self._insert(job_id, request):
                earlier = self._database.with_key(request.caller, request.idempotency_key)
                if earlier is not None:  # otherwise it was deleted meanwhile, and the key is free again
                    check_same(earlier, request)
                    return earlier
            unless_added.pop_all()
        job = self._database.get(job_id)
        assert job is not None  # only the caller of this method knows its id
        return job

    def _insert(self, job_id: str, request: JobRequest) -> bool:
        try:
            return self._database.insert(job_id, request)
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode != sqlite3.SQLITE_FULL:
                raise
            raise _disk_full() from exc

    async def get(self, job_id: str) -> Job | None:
        """A job by its id."""
        return await asyncio.to_thread(self._database.get, job_id)

    @asynccontextmanager
    async def claimed(
        self,
        on_lost: Callable[[str], None] | None = None,  # noqa: ARG002 - a lock cannot be lost
    ) -> AsyncIterator[Job | None]:
        """Start the oldest due job that no process is running, and hold it during the block.

        Yields None if there is no such job.
        """
        for job in await asyncio.to_thread(self._database.due):
            try:
                video = (self._videos / job.id).open("rb")
            except FileNotFoundError:  # another process has finished the job in the meantime
                continue
            with video:
                try:
                    fcntl.flock(video, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                claim = asyncio.ensure_future(asyncio.to_thread(self._database.start, job.id))
                try:
                    claimed = await asyncio.shield(claim)
                except asyncio.CancelledError:  # a stop is no attempt, also not in the middle of this
                    await asyncio.wait([claim])
                    if claim.exception() is None and (started := claim.result()) is not None:
                        await self.retry(started, 0.0, counted=False)
                    raise
                if claimed is not None:
                    yield claimed
                    return
        yield None

    async def progress(self, job_id: str, windows: int, windows_total: int) -> bool:
        """Record the progress of a running job; False if it was deleted."""
        values = {"windows": windows, "windows_total": windows_total}
        return await asyncio.to_thread(self._database.change, job_id, (JobState.RUNNING,), values)

    async def retry(self, job: Job, delay_s: float, *, counted: bool) -> None:
        """Queue a running job again after `delay_s` seconds; without `counted` the attempt does not count."""
        values = {
            "state": JobState.QUEUED,
            "not_before_s": self._clock() + delay_s,
            "attempts": job.attempts - (not counted),
        }
        await asyncio.to_thread(self._database.change, job.id, (JobState.RUNNING,), values)

    async def finish(self, job: Job, result: str) -> bool:
        """Record the result of a running job; False if it was deleted."""
        return await asyncio.to_thread(self._end, job, JobState.DONE, {"result": result})

    async def fail(self, job: Job, problem: Mapping[str, Any]) -> bool:
        """Record why a job failed; False if it was deleted."""
        values = {"problem": json.dumps(dict(problem))}
        return await asyncio.to_thread(self._end, job, JobState.FAILED, values)

    async def delete(self, job_id: str) -> None:
        """Delete a job and its files; a process running it notices at the next progress or at the end."""
        await asyncio.to_thread(self._delete, job_id)

    def _delete(self, job_id: str) -> None:
        self._database.delete(job_id)
        for folder in (self._videos, self._results):
            (folder / job_id).unlink(missing_ok=True)

    async def upkeep(self) -> None:
        """Delete jobs that finished longer ago than the retention time, and files without a job."""
        await asyncio.to_thread(self._delete_expired)

    def _delete_expired(self) -> None:
        for job in self._database.finished_until(self._clock() - self.retention_s):
            self._delete(job.id)
        for folder in (self._videos, self._results):
            for path in folder.iterdir():
                try:
                    written_s = path.stat().st_mtime
                except FileNotFoundError:  # its job has ended meanwhile
                    continue
                # What is not old may belong to a submission that is not in the database yet.
                if written_s < time.time() - self.retention_s and self._database.get(path.name) is None:
                    path.unlink(missing_ok=True)

    async def due_webhooks(self, limit: int, lease_s: float) -> list[Job]:
        """Return up to `limit` jobs whose webhook this process should call now.

        They are due again after `lease_s`, unless `webhook_tried` is called before then.
        """
        return await asyncio.to_thread(self._database.due_webhooks, limit, lease_s)

    async def webhook_tried(self, job: Job, *, delivered: bool, next_in_s: float | None) -> None:
        """Record a delivery attempt and when to try again; None for never."""
        values = {
            "webhook_attempts": job.webhook_attempts + 1,
            "webhook_delivered": int(delivered),
            "webhook_due_s": None if next_in_s is None else self._clock() + next_in_s,
        }
        await asyncio.to_thread(self._database.change, job.id, tuple(JobState), values)

    async def counts(self) -> dict[JobState, int]:
        """Number of jobs in each state."""
        return await asyncio.to_thread(self._database.counts)

    async def pending_bytes(self) -> int:
        """Total size of the videos of unfinished jobs."""
        return await asyncio.to_thread(self._database.pending_bytes)

    def _end(self, job: Job, state: JobState, values: Mapping[str, Any]) -> bool:
        now = self._clock()
        due = None if job.webhook is None else now
        ended = self._database.change(
            job.id, UNFINISHED, {"state": state, "finished_s": now, "webhook_due_s": due, **values}
        )
        folder = self._videos if ended else self._results
        (folder / job.id).unlink(missing_ok=True)
        return ended


@contextmanager
def _disk_errors() -> Iterator[None]:
    """Translate errors of the disk, almost always a full one; the log has the error itself."""
    try:
        yield
    except OSError as exc:
        logger.exception("the disk for jobs cannot be written")
        raise _disk_full() from exc


def _disk_full() -> StorageFull:
    return StorageFull("The disk for jobs is full.", RETRY_FULL_DISK_S)


def _copy(content: bytes | BinaryIO, path: Path) -> str:
    """Write a file atomically; return the SHA-256 of its content."""
    digest = hashlib.sha256()
    with _disk_errors(), atomic_write(path) as file:
        if isinstance(content, bytes):
            digest.update(content)
            file.write(content)
        else:
            content.seek(0)
            while piece := content.read(COPY_BYTES):
                digest.update(piece)
                file.write(piece)
    return digest.hexdigest()
