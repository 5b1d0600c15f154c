"""Query and documents of `/v1/jobs`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, TypeAdapter

from service.errors import InvalidParameter
from service.http.schemas.classify import ClassifyAnswer, ClassifyParameters
from service.http.schemas.common import Problem
from service.http.schemas.timeline import TimelineEnd, TimelineParameters
from service.jobs.job import Job, JobKind, JobState

RESULT = TypeAdapter[ClassifyAnswer | TimelineEnd](ClassifyAnswer | TimelineEnd)
PARAMETERS: dict[JobKind, type[ClassifyParameters | TimelineParameters]] = {
    JobKind.CLASSIFY: ClassifyParameters,
    JobKind.TIMELINE: TimelineParameters,
}


class JobParameters(ClassifyParameters, TimelineParameters):
    """Query parameters of `POST /v1/jobs`: those of the chosen kind, and a webhook."""

    kind: JobKind = Field(JobKind.CLASSIFY, description="What to do with the video.")
    webhook: HttpUrl | None = Field(
        None,
        description="URL that receives the finished job by POST; its host must be allowed by the service.",
    )

    def of_kind(self) -> ClassifyParameters | TimelineParameters:
        """The parameters of the chosen kind.

        Raises:
            InvalidParameter: one of the other kind is given.
        """
        given = self.model_dump(include=self.model_fields_set - {"kind", "webhook"})
        allowed = PARAMETERS[self.kind]
        if foreign := sorted(given.keys() - allowed.model_fields.keys()):
            raise InvalidParameter(f"{foreign[0]}: it does not apply to kind={self.kind.value}.")
        return allowed.model_validate(given)


class JobProgress(BaseModel):
    """Progress of a timeline."""

    windows: int = Field(description="Windows that are finished.")
    of: int = Field(description="Expected number of windows.")


class JobWebhook(BaseModel):
    """The webhook of a job."""

    url: str
    attempts: int = Field(description="Deliveries tried so far.")
    delivered: bool = Field(description="Whether the receiver has accepted a delivery.")


class JobAnswer(BaseModel):
    """A job."""

    model_config = ConfigDict(protected_namespaces=())

    id: str
    kind: JobKind
    state: JobState
    parameters: dict[str, Any] = Field(description="Parameters of the job's kind.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None = Field(description="When a finished job and its result are deleted.")
    attempts: int = Field(description="How often the job was started; interrupted jobs are started again.")
    progress: JobProgress | None = Field(description="Progress of a timeline, once its length is known.")
    result: ClassifyAnswer | TimelineEnd | None = Field(
        description="When done: the answer of `/v1/classify`, or the last line of `/v1/timeline`."
    )
    result_url: str | None = Field(
        description="When done: path of the complete answer; for a timeline all its lines as NDJSON."
    )
    problem: Problem | None = Field(description="When failed: the problem that the request would have got.")
    webhook: JobWebhook | None
    request_id: str = Field(description="Request id of the submission.")

    @classmethod
    def of(cls, job: Job, retention_s: float) -> Self:
        """The document of a stored job."""
        done = job.state is JobState.DONE
        expires_s = None if job.finished_s is None else job.finished_s + retention_s
        return cls(
            id=job.id,
            kind=job.kind,
            state=job.state,
            parameters=dict(job.parameters),
            created_at=datetime.fromtimestamp(job.created_s, UTC),
            started_at=_time(job.started_s),
            finished_at=_time(job.finished_s),
            expires_at=_time(expires_s),
            attempts=job.attempts,
            progress=JobProgress(windows=job.windows, of=job.windows_total) if job.windows_total else None,
            result=None if job.result is None else RESULT.validate_json(job.result),
            result_url=f"/v1/jobs/{job.id}/result" if done else None,
            problem=None if job.problem is None else Problem(**job.problem),
            webhook=None
            if job.webhook is None
            else JobWebhook(url=job.webhook, attempts=job.webhook_attempts, delivered=job.webhook_delivered),
            request_id=job.request_id,
        )


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
