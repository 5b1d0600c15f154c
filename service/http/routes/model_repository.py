"""`/v2/repository`: Triton's model repository extension. Needs the admin key."""

from __future__ import annotations

from typing import TypeVar

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel

from service.http.dependencies import CurrentService, require_admin_key
from service.http.open_inference import model_control
from service.http.open_inference.model_control import STATES, IndexRequest, LoadRequest, UnloadRequest
from service.http.open_inference.schemas import RepositoryEntry
from service.http.openapi import json_body, protocol_errors
from service.http.transfer.uploads import MAX_PARAMETERS_BYTES, UploadLimits, received_body
from service.pipeline.models.entry import ModelState
from service.pipeline.models.repository import ModelRepository

UNLOADED = "unloaded"  # Triton's reason for a version that was not requested to serve

Document = TypeVar("Document", bound=BaseModel)

router = APIRouter(
    prefix="/v2/repository",
    tags=["Model repository"],
    responses=protocol_errors(),
    dependencies=[Depends(require_admin_key)],
)


@router.post("/index", summary="List the packages", openapi_extra=json_body(IndexRequest))
async def index(request: Request, service: CurrentService) -> list[RepositoryEntry]:
    """Every version of every model as of the last scan of the models folder, with its state."""
    ready_only = (await _receive(request, service, IndexRequest)).ready
    rows = _rows(service.recognizer.models)
    return [row for row in rows if row.state == STATES[ModelState.READY]] if ready_only else rows


@router.post("/models/{name}/load", summary="Load a model", openapi_extra=json_body(LoadRequest))
async def load(request: Request, service: CurrentService, name: str) -> list[RepositoryEntry]:
    """Load new and changed versions of a model from the models folder.

    The answer is sent when they have replaced the previous versions. If a package is refused, the previous
    versions continue to serve.
    """
    with service.recognizer.tracked():
        policy = model_control.requested_policy(await _receive(request, service, LoadRequest))
        await service.recognizer.models.load(name, policy)
    return _rows(service.recognizer.models, name)


@router.post("/models/{name}/unload", summary="Unload a model", openapi_extra=json_body(UnloadRequest))
async def unload(request: Request, service: CurrentService, name: str) -> list[RepositoryEntry]:
    """Stop serving a model until it is loaded by name.

    The answer is sent when the model's requests have finished and its memory is freed.
    """
    with service.recognizer.tracked():
        await _receive(request, service, UnloadRequest)
        await service.recognizer.models.unload(name)
    return _rows(service.recognizer.models, name)


async def _receive(request: Request, service: CurrentService, kind: type[Document]) -> Document:
    limits = UploadLimits(MAX_PARAMETERS_BYTES, service.settings.request_timeout_s)
    async with received_body(request, limits) as upload:
        return model_control.parse(await upload.read(), kind)


def _rows(models: ModelRepository, name: str | None = None) -> list[RepositoryEntry]:
    return [
        RepositoryEntry(
            name=entry.name,
            version=str(entry.version),
            state=STATES[entry.state],
            reason=entry.reason or (UNLOADED if entry.state is ModelState.UNLOADED else ""),
        )
        for entry in models.entries()
        if name in (None, entry.name)
    ]
