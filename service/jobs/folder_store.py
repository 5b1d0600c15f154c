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
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

from service.background import in_thread
from service.errors import BlvnetError, StorageFull
from service.jobs.job import UNFINISHED, Job, JobKind, JobRequest, JobState
from service.jobs.store import COPY_BYTES, ResultWriter, check_same
from service.packages.atomic import atomic_write

LOCK_WAIT_S = 10.0
DELETE_EXPIRED_S = 60.0
RETRY_FULL_DISK_S = 60.0
SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    parameters TEXT NOT NULL,
    caller TEXT NOT NULL,
    request_id TEXT NOT NULL,
    idempotency_key TEXT,
    video_sha256 TEXT NOT NULL,
    video_bytes INTEGER NOT NULL,
    webhook TEXT,
    state TEXT NOT NULL DEFAULT 'queued',
    created_s REAL NOT NULL,
    not_before_s REAL NOT NULL DEFAULT 0,
    started_s REAL,
    finished_s REAL,
    attempts INTEGER NOT NULL DEFAULT 0,
    windows INTEGER NOT NULL DEFAULT 0,
    windows_total INTEGER NOT NULL DEFAULT 0,
    result TEXT,
    problem TEXT,
    webhook_attempts INTEGER NOT NULL DEFAULT 0,
    webhook_due_s REAL,
    webhook_delivered INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS idempotency ON jobs (caller, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX IF NOT EXISTS states ON jobs (state, created_s);
"""

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
        self._lock = threading.Lock()
        try:
            for path in (self._videos, self._results):
                path.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(
                folder / "jobs.sqlite3", timeout=LOCK_WAIT_S, isolation_level=None, check_same_thread=False
            )
            self._database.row_factory = sqlite3.Row
            # With a write-ahead log readers do not wait for writers; FULL syncs it at every commit.
            self._database.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; {SCHEMA}")
        except (OSError, sqlite3.Error) as exc:
            raise BlvnetError(f"jobs cannot be kept in {folder}: {exc}") from exc

    async def close(self) -> None:
        """Close the database; the jobs stay."""
        with self._lock:
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
        writing, opened = atomic_write(self._results / job_id), ExitStack()
        async with AsyncExitStack() as stack:
            # Before the file is opened, as a cancellation meanwhile does not prevent that.
            stack.push_async_exit(lambda *outcome: in_thread(opened.__exit__, *outcome))
            yield _FileWriter(await in_thread(opened.enter_context, writing))

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
        except OSError as exc:
            logger.exception("cannot keep the video of a job")
            raise _disk_full() from exc

    async def add(self, job_id: str, request: JobRequest) -> Job:
        """Queue a job whose video is already stored.

        If the caller has used the idempotency key before, the video is dropped and the earlier job returned.

        Raises:
            IdempotencyMismatch: the earlier job had other parameters or another video.
            StorageFull: the disk has no space for it; the video is dropped.
        """
        return await asyncio.to_thread(self._add, job_id, request)

    def _add(self, job_id: str, request: JobRequest) -> Job:
        row = {
            "id": job_id,
            "kind": request.kind.value,
            "parameters": json.dumps(dict(request.parameters), sort_keys=True),
            "caller": request.caller,
            "request_id": request.request_id,
            "idempotency_key": request.idempotency_key,
            "video_sha256": request.video_sha256,
            "video_bytes": request.video_bytes,
            "webhook": request.webhook,
            "created_s": self._clock(),
        }
        columns, places = ", ".join(row), ", ".join(f":{name}" for name in row)
        statement = f"INSERT INTO jobs ({columns}) VALUES ({places}) ON CONFLICT DO NOTHING"  # noqa: S608 - own names
        with ExitStack() as unless_added:
            unless_added.callback((self._videos / job_id).unlink)
            while not self._insert(statement, row):
                same_key = self._select(
                    "caller = ? AND idempotency_key = ?", request.caller, request.idempotency_key
                )
                for earlier in same_key:  # or none, if it has been deleted meanwhile: the key is free again
                    check_same(earlier, request)
                    return earlier
            unless_added.pop_all()
        (job,) = self._select("id = ?", job_id)
        return job

    def _insert(self, statement: str, row: Mapping[str, Any]) -> bool:
        with self._lock:
            try:
                return self._database.execute(statement, row).rowcount > 0
            except sqlite3.OperationalError as exc:
                if exc.sqlite_errorcode != sqlite3.SQLITE_FULL:
                    raise
                raise _disk_full() from exc

    async def get(self, job_id: str) -> Job | None:
        """A job by its id."""
        return next(iter(await asyncio.to_thread(self._select, "id = ?", job_id)), None)

    @asynccontextmanager
    async def claimed(
        self,
        on_lost: Callable[[str], None] | None = None,  # noqa: ARG002 - a lock cannot be lost
    ) -> AsyncIterator[Job | None]:
        """Start the oldest due job that no process is running, and hold it during the block.

        Yields None if there is no such job.
        """
        condition = "state IN ('queued', 'running') AND not_before_s <= ? ORDER BY created_s"
        for job in await asyncio.to_thread(self._select, condition, self._clock()):
            try:
                video = (self._videos / job.id).open("rb")
            except FileNotFoundError:  # another process has finished the job in the meantime
                continue
            with video:
                try:
                    fcntl.flock(video, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                claim = asyncio.ensure_future(asyncio.to_thread(self._claim, job))
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

    def _claim(self, job: Job) -> Job | None:
        """Start a job whose video is locked; None if it was finished, deleted or delayed meanwhile."""
        # Again, because another process may have run the job and given it back since it was listed.
        for due in self._select("id = ? AND not_before_s <= ?", job.id, self._clock()):
            values = {"state": JobState.RUNNING, "started_s": self._clock(), "attempts": due.attempts + 1}
            if self._change(job.id, UNFINISHED, values):
                return next(iter(self._select("id = ?", job.id)), None)
        return None

    async def progress(self, job_id: str, windows: int, windows_total: int) -> bool:
        """Record the progress of a running job; False if it was deleted."""
        values = {"windows": windows, "windows_total": windows_total}
        return await asyncio.to_thread(self._change, job_id, (JobState.RUNNING,), values)

    async def retry(self, job: Job, delay_s: float, *, counted: bool) -> None:
        """Queue a running job again after `delay_s` seconds; without `counted` the attempt does not count."""
        values = {
            "state": JobState.QUEUED,
            "not_before_s": self._clock() + delay_s,
            "attempts": job.attempts - (not counted),
        }
        await asyncio.to_thread(self._change, job.id, (JobState.RUNNING,), values)

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
        with self._lock:
            self._database.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
        for folder in (self._videos, self._results):
            (folder / job_id).unlink(missing_ok=True)

    async def upkeep(self) -> None:
        """Delete jobs that finished longer ago than the retention time, and files without a job."""
        await asyncio.to_thread(self._delete_expired)

    def _delete_expired(self) -> None:
        finished = "finished_s IS NOT NULL AND finished_s <= ?"
        for job in self._select(finished, self._clock() - self.retention_s):
            self._delete(job.id)
        for folder in (self._videos, self._results):
            for path in folder.iterdir():
                try:
                    written_s = path.stat().st_mtime
                except FileNotFoundError:  # its job has ended meanwhile
                    continue
                # What is not old may belong to a submission that is not in the database yet.
                if written_s < time.time() - self.retention_s and not self._select("id = ?", path.name):
                    path.unlink(missing_ok=True)

    async def due_webhooks(self, limit: int, lease_s: float) -> list[Job]:
        """Return up to `limit` jobs whose webhook this process should call now.

        They are due again after `lease_s`, unless `webhook_tried` is called before then.
        """
        return await asyncio.to_thread(self._due_webhooks, limit, lease_s)

    def _due_webhooks(self, limit: int, lease_s: float) -> list[Job]:
        now = self._clock()
        due = self._select("webhook_due_s <= ? ORDER BY webhook_due_s LIMIT ?", now, limit)
        statement = "UPDATE jobs SET webhook_due_s = ? WHERE id = ? AND webhook_due_s = ?"
        with self._lock:
            return [
                job
                for job in due
                if self._database.execute(statement, (now + lease_s, job.id, job.webhook_due_s)).rowcount
            ]

    async def webhook_tried(self, job: Job, *, delivered: bool, next_in_s: float | None) -> None:
        """Record a delivery attempt and when to try again; None for never."""
        values = {
            "webhook_attempts": job.webhook_attempts + 1,
            "webhook_delivered": int(delivered),
            "webhook_due_s": None if next_in_s is None else self._clock() + next_in_s,
        }
        await asyncio.to_thread(self._change, job.id, tuple(JobState), values)

    async def counts(self) -> dict[JobState, int]:
        """Number of jobs in each state."""
        rows = await asyncio.to_thread(self._rows, "SELECT state, count(*) FROM jobs GROUP BY state")
        found = {JobState(state): count for state, count in rows}
        return {state: found.get(state, 0) for state in JobState}

    async def pending_bytes(self) -> int:
        """Total size of the videos of unfinished jobs."""
        statement = "SELECT coalesce(sum(video_bytes), 0) FROM jobs WHERE state IN ('queued', 'running')"
        ((total,),) = await asyncio.to_thread(self._rows, statement)
        return int(total)

    def _end(self, job: Job, state: JobState, values: Mapping[str, Any]) -> bool:
        now = self._clock()
        due = None if job.webhook is None else now
        ended = self._change(
            job.id, UNFINISHED, {"state": state, "finished_s": now, "webhook_due_s": due, **values}
        )
        folder = self._videos if ended else self._results
        (folder / job.id).unlink(missing_ok=True)
        return ended

    def _change(self, job_id: str, allowed: tuple[JobState, ...], values: Mapping[str, Any]) -> bool:
        """Change columns of a job if it is in one of the allowed states; return whether it was."""
        assignments = ", ".join(f"{name} = ?" for name in values)
        states = ", ".join("?" for _ in allowed)
        statement = f"UPDATE jobs SET {assignments} WHERE id = ? AND state IN ({states})"  # noqa: S608 - own names
        with self._lock:
            return self._database.execute(statement, (*values.values(), job_id, *allowed)).rowcount > 0

    def _select(self, condition: str, *values: Any) -> list[Job]:
        return [_job(row) for row in self._rows(f"SELECT * FROM jobs WHERE {condition}", *values)]  # noqa: S608

    def _rows(self, statement: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock:
            return self._database.execute(statement, values).fetchall()


class _FileWriter:
    """Writes to a file in threads."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    async def write(self, data: bytes) -> None:
        """Append bytes."""
        await in_thread(self._file.write, data)


def _disk_full() -> StorageFull:
    return StorageFull("The disk for jobs is full.", RETRY_FULL_DISK_S)


def _copy(content: bytes | BinaryIO, path: Path) -> str:
    """Write a file atomically; return the SHA-256 of its content."""
    digest = hashlib.sha256()
    with atomic_write(path) as file:
        if isinstance(content, bytes):
            digest.update(content)
            file.write(content)
        else:
            content.seek(0)
            while piece := content.read(COPY_BYTES):
                digest.update(piece)
                file.write(piece)
    return digest.hexdigest()


def _job(row: sqlite3.Row) -> Job:
    values = {name: row[name] for name in row.keys() if name != "not_before_s"}  # noqa: SIM118 - a Row iterates values
    values |= {
        "kind": JobKind(row["kind"]),
        "state": JobState(row["state"]),
        "parameters": json.loads(row["parameters"]),
        "problem": None if row["problem"] is None else json.loads(row["problem"]),
        "webhook_delivered": bool(row["webhook_delivered"]),
    }
    return Job(**values)
