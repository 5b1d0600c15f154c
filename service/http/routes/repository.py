"""`/v2/repository`: Triton's model repository extension, for those with the admin key."""

from __future__ import annotations

from typing import TypeVar

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel

from service.http import model_control
from service.http.deps import Service, require_admin_key
from service.http.model_control import STATES, IndexRequest, LoadRequest, UnloadRequest
from service.http.openapi import json_body, protocol_errors
from service.http.schemas import RepositoryEntry
from service.http.uploads import received_body
from service.pipeline.model_repository import ModelState
from service.pipeline.recognizer import Recognizer

MOST_BYTES = 65_536
UNLOADED = "unloaded"  # what Triton says of a version that nobody asked to serve

Document = TypeVar("Document", bound=BaseModel)

router = APIRouter(
    prefix="/v2/repository",
    tags=["Model repository"],
    responses=protocol_errors(),
    dependencies=[Depends(require_admin_key)],
)


@router.post("/index", summary="List the packages", openapi_extra=json_body(IndexRequest))
async def index(request: Request, service: Service) -> list[RepositoryEntry]:
    """Every version of every model in the folder, as of the last look at it, and its state."""
    asked = await _received(request, IndexRequest)
    rows = _rows(service.recognizer)
    return [row for row in rows if row.state == STATES[ModelState.READY]] if asked.ready else rows


@router.post("/models/{name}/load", summary="Load a model", openapi_extra=json_body(LoadRequest))
async def load(request: Request, service: Service, name: str) -> list[RepositoryEntry]:
    """Serve a model as it is in the folder now: new or changed versions are loaded beside what serves.

    The answer comes when they have taken its place. If one is refused, what served goes on.
    """
    with service.change():
        policy = model_control.wanted_versions(await _received(request, LoadRequest))
        await service.recognizer.load(name, policy)
    return _rows(service.recognizer, name)


@router.post("/models/{name}/unload", summary="Unload a model", openapi_extra=json_body(UnloadRequest))
async def unload(request: Request, service: Service, name: str) -> list[RepositoryEntry]:
    """Serve a model no longer, until it is loaded by name.

    The answer comes when the requests that it has are finished and its memory is given back.
    """
    with service.change():
        await _received(request, UnloadRequest)
        await service.recognizer.unload(name)
    return _rows(service.recognizer, name)


async def _received(request: Request, kind: type[Document]) -> Document:
    async with received_body(request, MOST_BYTES) as upload:
        return model_control.parse(await upload.read(), kind)


def _rows(recognizer: Recognizer, name: str | None = None) -> list[RepositoryEntry]:
    return [
        RepositoryEntry(
            name=entry.name,
            version=str(entry.version),
            state=STATES[entry.state],
            reason=entry.reason or (UNLOADED if entry.state is ModelState.UNLOADED else ""),
        )
        for entry in recognizer.models()
        if name in (None, entry.name)
    ]
