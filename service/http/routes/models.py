"""`GET /v1/models`: what is served, and what a request may ask for."""

from __future__ import annotations

from fastapi import APIRouter

from service.errors import ModelNotFound
from service.http.deps import Service
from service.http.openapi import problems
from service.http.schemas import Limits, ModelEntry, ModelList
from service.pipeline.model_repository import ModelState

router = APIRouter(prefix="/v1", tags=["models"])


@router.get("/models", summary="List the models and the limits", responses=problems("unauthorized"))
async def list_models(service: Service) -> ModelList:
    """All packages: what serves, what was refused and why, and what is in the folder and not loaded."""
    settings = service.settings
    return ModelList(
        models=[ModelEntry.of(model) for model in service.recognizer.models()],
        limits=Limits(
            max_upload_bytes=settings.max_upload_bytes,
            max_pixels=settings.max_pixels,
            max_duration_s=settings.max_duration_s,
            max_frames=settings.max_frames,
            max_decoded_pixels=settings.max_decoded_pixels,
            max_streams=settings.max_streams,
            max_edits=settings.max_edits,
            max_windows=settings.max_windows,
            request_timeout_s=settings.request_timeout_s,
            timeline_timeout_s=settings.timeline_timeout_s,
            key_requests_per_minute=settings.key_requests_per_minute,
            key_requests_at_once=settings.key_requests_at_once,
            decode_sandbox=list(service.recognizer.decode_sandbox),
        ),
    )


@router.get(
    "/models/{name}", summary="Describe one model", responses=problems("unauthorized", "model_not_found")
)
async def get_model(name: str, service: Service) -> ModelEntry:
    """One model: the version that answers, or else the highest there is."""
    entries = [model for model in service.recognizer.models() if model.name == name]
    if not entries:
        raise ModelNotFound(f"There is no model {name[:128]!r}; /v1/models lists them.")
    return ModelEntry.of(next((model for model in entries if model.state is ModelState.READY), entries[0]))
