"""The SQLite database of jobs: their states and parameters."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from service.jobs.job import UNFINISHED, Job, JobKind, JobRequest, JobState

LOCK_WAIT_S = 10.0
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


class JobDatabase:
    """The database of one folder, which several threads and processes may use at the same time.

    Args:
        path: the file; created if it does not exist.
        clock: seconds since 1970.

    Raises:
        sqlite3.Error: the file cannot be used; from every method.
    """

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(
            path, timeout=LOCK_WAIT_S, isolation_level=None, check_same_thread=False
        )
        self._connection.row_factory = sqlite3.Row
        # With a write-ahead log readers do not wait for writers; FULL syncs it at every commit.
        self._connection.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; {SCHEMA}")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def insert(self, job_id: str, request: JobRequest) -> bool:
        """Add a queued job; False if the caller has used its idempotency key before."""
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
        with self._lock:
            return self._connection.execute(statement, row).rowcount > 0

    def get(self, job_id: str) -> Job | None:
        """A job by its id."""
        return next(iter(self._select("id = ?", job_id)), None)

    def with_key(self, caller: str, idempotency_key: str | None) -> Job | None:
        """The job that a caller submitted with an idempotency key."""
        return next(iter(self._select("caller = ? AND idempotency_key = ?", caller, idempotency_key)), None)

    def due(self) -> list[Job]:
        """Unfinished jobs that may run now, the oldest first."""
        return self._select(
            "state IN ('queued', 'running') AND not_before_s <= ? ORDER BY created_s", self._clock()
        )

    def finished_until(self, time_s: float) -> list[Job]:
        """Jobs that finished at a time or before."""
        return self._select("finished_s IS NOT NULL AND finished_s <= ?", time_s)

    def start(self, job_id: str) -> Job | None:
        """Begin an attempt of a job; None if it was finished, deleted or delayed meanwhile."""
        for job in self._select("id = ? AND not_before_s <= ?", job_id, self._clock()):
            values = {"state": JobState.RUNNING, "started_s": self._clock(), "attempts": job.attempts + 1}
            if self.change(job_id, UNFINISHED, values):
                return self.get(job_id)
        return None

    def change(self, job_id: str, allowed: tuple[JobState, ...], values: Mapping[str, Any]) -> bool:
        """Change columns of a job if it is in one of the allowed states; return whether it was."""
        assignments = ", ".join(f"{name} = ?" for name in values)
        states = ", ".join("?" for _ in allowed)
        statement = f"UPDATE jobs SET {assignments} WHERE id = ? AND state IN ({states})"  # noqa: S608 - own names
        with self._lock:
            return self._connection.execute(statement, (*values.values(), job_id, *allowed)).rowcount > 0

    def delete(self, job_id: str) -> None:
        """Delete a job, if it exists."""
        with self._lock:
            self._connection.execute("DELETE FROM jobs WHERE id = ?", (job_id,))

    def due_webhooks(self, limit: int, lease_s: float) -> list[Job]:
        """Return up to `limit` jobs whose webhook is due, and make them due again after `lease_s`."""
        now = self._clock()
        due = self._select("webhook_due_s <= ? ORDER BY webhook_due_s LIMIT ?", now, limit)
        statement = "UPDATE jobs SET webhook_due_s = ? WHERE id = ? AND webhook_due_s = ?"
        with self._lock:
            return [
                job
                for job in due
                if self._connection.execute(statement, (now + lease_s, job.id, job.webhook_due_s)).rowcount
            ]

    def counts(self) -> dict[JobState, int]:
        """Number of jobs in each state."""
        found = {
            JobState(state): count
            for state, count in self._rows("SELECT state, count(*) FROM jobs GROUP BY state")
        }
        return {state: found.get(state, 0) for state in JobState}

    def pending_bytes(self) -> int:
        """Total size of the videos of unfinished jobs."""
        statement = "SELECT coalesce(sum(video_bytes), 0) FROM jobs WHERE state IN ('queued', 'running')"
        ((total,),) = self._rows(statement)
        return int(total)

    def _select(self, condition: str, *values: Any) -> list[Job]:
        return [_job(row) for row in self._rows(f"SELECT * FROM jobs WHERE {condition}", *values)]  # noqa: S608

    def _rows(self, statement: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock:
            return self._connection.execute(statement, values).fetchall()


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
