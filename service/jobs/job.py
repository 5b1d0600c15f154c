"""The data model of jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class JobKind(StrEnum):
    """The kind of work done on the video."""

    CLASSIFY = "classify"
    TIMELINE = "timeline"


class JobState(StrEnum):
    """The states of a job. A job whose process ended while it was running is started again.

    QUEUED ──> RUNNING ──> DONE, or FAILED with a problem
    """

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class JobLost(Exception):
    """A runner found that it holds its job no longer: it was deleted, or another runner has taken it up."""


UNFINISHED = (JobState.QUEUED, JobState.RUNNING)


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """A job as its caller asked for it.

    Attributes:
        kind: What to do.
        parameters: Query parameters of the kind's route; `model` is always among them.
        caller: Fingerprint of the only API key that may see the job; empty without keys.
        request_id: Request id of the submission; it is in the logs and in the result.
        idempotency_key: The caller's key that prevents submitting the job twice, or None.
        video_sha256: SHA-256 of the video.
        video_bytes: Size of the video.
        webhook: URL that receives the finished job, or None.
    """

    kind: JobKind
    parameters: Mapping[str, Any]
    caller: str
    request_id: str
    idempotency_key: str | None
    video_sha256: str
    video_bytes: int
    webhook: str | None


@dataclass(frozen=True, kw_only=True)
class Job(JobRequest):
    """A stored job. Times are in seconds since 1970, or None if the event has not happened.

    Attributes:
        id: Unguessable name.
        state: The current state.
        created_s: When it was submitted.
        started_s: When it was last started.
        finished_s: When it reached its final state.
        attempts: Number of starts, without those interrupted by an orderly shutdown.
        windows: Finished windows of a timeline.
        windows_total: Expected number of windows, 0 while unknown.
        result: JSON of the answer, or of a timeline's summary, when done.
        problem: Problem document, when failed.
        webhook_attempts: Deliveries tried.
        webhook_due_s: When the next delivery is due; None if none is.
        webhook_delivered: Whether the receiver has accepted a delivery.
    """

    id: str
    state: JobState
    created_s: float
    started_s: float | None
    finished_s: float | None
    attempts: int
    windows: int
    windows_total: int
    result: str | None
    problem: Mapping[str, Any] | None
    webhook_attempts: int
    webhook_due_s: float | None
    webhook_delivered: bool
