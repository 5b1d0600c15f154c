"""`/v1/jobs`: classifications and timelines for callers who do not wait for the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import FileResponse

from service.errors import JobNotFound, JobsOff
from service.http.context import record_of
from service.http.dependencies import CurrentService, require_key, take_share
from service.http.openapi import UPLOAD_PROBLEMS, VIDEO_BODY, problems
from service.http.schemas.jobs import JobAnswer, JobParameters
from service.http.transfer.ndjson import NDJSON_TYPE
from service.http.transfer.uploads import received_video
from service.jobs.job import Job, JobKind, JobRequest, JobState
from service.jobs.runner import JobRunner
from service.pipeline.timeline import TimelineQuery

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


async def require_jobs(service: CurrentService) -> JobRunner:
    """Return the jobs of the service.

    Raises:
        JobsOff: jobs are disabled.
    """
    if service.jobs is None:
        raise JobsOff("Jobs are disabled: neither BLVNET_JOBS_DIR nor BLVNET_JOBS_REDIS_URL is set.")
    return service.jobs


Jobs = Annotated[JobRunner, Depends(require_jobs)]
Caller = Annotated[str | None, Depends(require_key)]
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        description="A unique value for this job. Submitting it again returns the first job.",
    ),
]


@router.post(
    "",
    summary="Submit a job",
    status_code=202,
    response_model=JobAnswer,
    responses=problems(*UPLOAD_PROBLEMS, "jobs_off", "jobs_unavailable", "idempotency_mismatch"),
    openapi_extra=VIDEO_BODY,
    dependencies=[Depends(take_share)],
)
async def submit_job(
    request: Request,
    response: Response,
    service: CurrentService,
    jobs: Jobs,
    caller: Caller,
    parameters: Annotated[JobParameters, Query()],
    idempotency_key: IdempotencyKey = None,
) -> JobAnswer:
    """Keep a video and work on it later. The answer has the job's id, and its address in `Location`.

    A restart of the service loses no job. The result is kept for some time after the end; `expires_at` says
    until when.
    """
    record = record_of(request)
    asked = parameters.of_kind()
    # The default model may have changed by the time the job runs.
    record.model = service.recognizer.model(asked.model).manifest.name
    values = asked.model_dump() | {"model": record.model}
    if parameters.kind is JobKind.TIMELINE:
        TimelineQuery(**values).check()
    webhook = None if parameters.webhook is None else str(parameters.webhook)
    if webhook is not None:
        jobs.webhooks.check(webhook)
    async with jobs.arriving(), received_video(request, service.video_limits) as upload:
        record.received(upload.size_bytes)
        job_id, digest = await jobs.store.keep_video(upload.content)
        wanted = JobRequest(
            kind=parameters.kind,
            parameters=values,
            caller=caller or "",
            request_id=record.request_id,
            idempotency_key=idempotency_key,
            video_sha256=digest,
            video_bytes=upload.size_bytes,
            webhook=webhook,
        )
        job = await jobs.add(job_id, wanted)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return JobAnswer.of(job, jobs.store.retention_s)


async def find_job(job_id: str, jobs: Jobs, caller: Caller) -> Job:
    """Return a job of the caller.

    Raises:
        JobNotFound: the caller has no job with this id.
    """
    job = await jobs.store.get(job_id)
    if job is None or job.caller != (caller or ""):
        raise JobNotFound(
            f"There is no job {job_id[:64]!r}; finished jobs are deleted after {jobs.store.retention_s:g} s."
        )
    return job


OwnJob = Annotated[Job, Depends(find_job)]


async def result_file(job: OwnJob, jobs: Jobs) -> AsyncIterator[Path]:
    """Provide a file with the result of a job until the result has been sent.

    Raises:
        JobNotFound: the job has no result.
    """
    if job.state is not JobState.DONE:
        raise JobNotFound(f"Job {job.id} has no result: it is {job.state.value}.")
    async with jobs.store.result(job.id) as path:
        if path is None:
            raise JobNotFound(f"Job {job.id} has no result: it has been deleted.")
        yield path


@router.get(
    "/{job_id}",
    summary="Describe a job",
    responses=problems("unauthorized", "jobs_off", "jobs_unavailable", "job_not_found"),
)
async def get_job(job: OwnJob, jobs: Jobs) -> JobAnswer:
    """State, progress and result of a job; only with the API key that submitted it."""
    return JobAnswer.of(job, jobs.store.retention_s)


@router.get(
    "/{job_id}/result",
    summary="Result of a job",
    response_class=FileResponse,
    responses=problems("unauthorized", "jobs_off", "jobs_unavailable", "job_not_found", "storage_full")
    | {
        200: {
            "description": "The answer of `/v1/classify` as JSON, or the lines of `/v1/timeline` as NDJSON.",
            "content": {"application/json": {}, NDJSON_TYPE: {}},
        }
    },
)
async def get_job_result(job: OwnJob, path: Annotated[Path, Depends(result_file)]) -> FileResponse:
    """The complete answer of a job that is done."""
    kind = "application/json" if job.kind is JobKind.CLASSIFY else NDJSON_TYPE
    return FileResponse(path, media_type=kind)


@router.delete(
    "/{job_id}",
    summary="Delete a job",
    status_code=204,
    responses=problems("unauthorized", "jobs_off", "jobs_unavailable", "job_not_found"),
)
async def delete_job(job: OwnJob, jobs: Jobs) -> None:
    """Stop a job, and delete it with its video and result."""
    await jobs.delete(job)
