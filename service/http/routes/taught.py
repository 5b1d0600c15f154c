"""`/v1/taught`: teach a model from clips. Needs a folder for it, and the admin key if one is set."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from service.errors import TeachingOff
from service.http.context import record_of
from service.http.dependencies import (
    Credentials,
    CurrentService,
    RequestDeadline,
    require_admin_key,
    require_key,
    while_connected,
)
from service.http.openapi import VIDEO_BODY, VIDEO_PROBLEMS, problems
from service.http.schemas.taught import (
    AddedExample,
    ExampleCounts,
    ExampleParameters,
    TaughtList,
    TaughtModel,
    TaughtSummary,
    TeachingLimits,
    TrainedVersion,
    TrainParameters,
)
from service.http.service import Service
from service.http.transfer.uploads import MAX_PARAMETERS_BYTES, UploadLimits, received_body, received_video
from service.pipeline.models.entry import ModelEntry
from service.taught.teacher import Teacher
from service.teaching.views import teaching_crops

router = APIRouter(prefix="/v1/taught", tags=["teaching"])


async def require_teacher(
    request: Request, service: CurrentService, credentials: Credentials
) -> AsyncIterator[Teacher]:
    """Provide the taught models to callers with the admin key, or with an API key if no admin key is set.

    Raises:
        Unauthorized: the key is missing or wrong.
        RateLimited: the API key has reached a limit.
        TeachingOff: no folder is set.
    """
    if service.admin_key.is_set:
        await require_admin_key(service, credentials)
        caller = None
    else:
        caller = await require_key(request, service, credentials)
    if service.teacher is None:
        unset = service.settings.teach_dir is None
        reason = "is not set" if unset else "cannot be used; the log says why"
        raise TeachingOff(f"Teaching is disabled: the folder for it (BLVNET_TEACH_DIR) {reason}.")
    async with service.keys.share(caller):
        yield service.teacher


Taught = Annotated[Teacher, Depends(require_teacher)]


@router.get("", summary="List the taught models", responses=problems("unauthorized", "teaching_off"))
async def list_taught(service: CurrentService, teacher: Taught) -> TaughtList:
    """Every model that has examples or was trained here, and the limits."""
    limits = teacher.limits
    return TaughtList(
        taught=[
            TaughtSummary(**TaughtSummary.fields(teacher, name, _entries(service, name)))
            for name in teacher.names()
        ],
        bytes=teacher.store.size_bytes,
        limits=TeachingLimits(
            max_examples=limits.max_examples, max_bytes=limits.max_bytes, max_models=limits.max_models
        ),
    )


@router.get(
    "/{name}",
    summary="Describe a taught model",
    responses=problems("unauthorized", "teaching_off", "model_not_found"),
)
async def get_taught(name: str, service: CurrentService, teacher: Taught) -> TaughtModel:
    """Labels, examples, versions, and the report of the version that serves."""
    teacher.require(name)
    return TaughtModel.of(teacher, name, _entries(service, name))


@router.post(
    "/{name}/examples",
    summary="Add an example",
    status_code=201,
    responses=problems(
        *VIDEO_PROBLEMS, "teaching_off", "label_conflict", "base_changed", "name_taken", "teaching_full"
    ),
    openapi_extra=VIDEO_BODY,
)
async def add_example(
    request: Request,
    service: CurrentService,
    teacher: Taught,
    deadline: RequestDeadline,
    name: str,
    parameters: Annotated[ExampleParameters, Query()],
) -> AddedExample:
    """Keep the features of a clip as an example of a label. The clip itself is not kept.

    Send the clip as the form field `file`, or as the body itself.
    """
    record = record_of(request)
    with service.recognizer.tracked():
        lesson = teacher.lesson(name, parameters.label, parameters.group, parameters.base)
    rows = 2 * teaching_crops(lesson.base.manifest.gmacs)  # with their mirror images
    async with service.recognizer.accept(served=lesson.base, views=rows, deadline=deadline) as accepted:
        record.model = lesson.base.manifest.name
        async with received_video(request, service.video_limits, accepted.ticket) as upload:
            record.received(upload.size_bytes)
            async with while_connected(request):
                added = await teacher.add(accepted, lesson, upload.content)
    answer = AddedExample.of_added(
        teacher,
        name,
        added,
        receive_ms=record.stages_ms["receive"],
        total_ms=record.elapsed_ms(),
        request_id=record.request_id,
    )
    record.stages_ms = answer.timing_ms.stages()
    return answer


@router.delete(
    "/{name}/examples/{example_id}",
    summary="Delete an example",
    responses=problems(
        "unauthorized", "teaching_off", "model_not_found", "example_not_found", "storage_full", "not_ready"
    ),
)
async def delete_example(
    service: CurrentService, teacher: Taught, name: str, example_id: str
) -> ExampleCounts:
    """Forget an example. Versions that were trained with it stay as they are."""
    with service.recognizer.tracked():
        await teacher.remove_example(name, example_id)
    return ExampleCounts.of(teacher, name)


@router.delete(
    "/{name}",
    summary="Delete a taught model",
    status_code=204,
    responses=problems(
        "unauthorized", "teaching_off", "model_not_found", "training", "storage_full", "not_ready"
    ),
)
async def delete_taught(service: CurrentService, teacher: Taught, name: str) -> None:
    """Stop serving a taught model, and delete its examples and versions."""
    with service.recognizer.tracked():
        await teacher.remove(name)


@router.post(
    "/{name}/train",
    summary="Train a taught model",
    responses=problems(
        "bad_request", "unauthorized", "teaching_off", "model_not_found", "base_changed", "training",
        "too_large", "too_few_examples", "invalid_parameter", "rate_limited", "storage_full",
        "training_failed", "not_ready",
    ),
)  # fmt: skip
async def train(
    request: Request,
    service: CurrentService,
    teacher: Taught,
    name: str,
    parameters: Annotated[TrainParameters, Query()],
) -> TrainedVersion:
    """Learn from the examples. When the answer is sent, the new version serves in place of the previous one.

    A client that disconnects cancels the training.
    """
    record = record_of(request)
    with service.recognizer.tracked():
        limits = UploadLimits(MAX_PARAMETERS_BYTES, service.settings.request_timeout_s)
        async with received_body(request, limits):
            pass  # no body is expected, but `while_connected` requires that it has been read
        async with while_connected(request):
            manifest, damaged = await teacher.train(name, mirror=parameters.mirror)
    return TrainedVersion.of(
        manifest, damaged, seconds=record.elapsed_ms() / 1000, request_id=record.request_id
    )


@router.get(
    "/{name}/package",
    summary="Download the package",
    response_class=Response,
    responses=problems("unauthorized", "teaching_off", "model_not_found")
    | {200: {"description": "NAME/VERSION with its files", "content": {"application/zip": {}}}},
)
async def get_package(teacher: Taught, name: str) -> Response:
    """The package of the version that serves, for the models folder of another service with the same base."""
    file, read = teacher.package(name)
    content = await run_in_threadpool(read)
    headers = {"Content-Disposition": f'attachment; filename="{file}"'}
    return Response(content, media_type="application/zip", headers=headers)


def _entries(service: Service, name: str) -> list[ModelEntry]:
    return [entry for entry in service.recognizer.models.entries() if entry.name == name]
