"""`GET /v1/models`: the model packages and the limits of requests."""

from __future__ import annotations

from fastapi import APIRouter

from service.errors import ModelNotFound
from service.http.dependencies import CurrentService
from service.http.openapi import problems
from service.http.schemas.models import Limits, ModelInfo, ModelList
from service.pipeline.models.entry import ModelState

router = APIRouter(prefix="/v1", tags=["models"])


@router.get("/models", summary="List the models and the limits", responses=problems("unauthorized"))
async def list_models(service: CurrentService) -> ModelList:
    """Every package of the models folder: serving, refused with the reason, or not loaded."""
    settings = service.settings
    return ModelList(
        models=[ModelInfo.of(entry) for entry in service.recognizer.models.entries()],
        limits=Limits(
            max_upload_bytes=settings.max_upload_bytes,
            max_pixels=settings.max_pixels,
            max_duration_s=settings.max_duration_s,
            max_frames=settings.max_frames,
            max_decoded_pixels=settings.max_decoded_pixels,
            max_streams=settings.max_streams,
            max_edits=settings.max_edits,
            max_windows=settings.max_windows,
            max_json_bytes=settings.max_json_bytes,
            request_timeout_s=settings.request_timeout_s,
            timeline_timeout_s=settings.timeline_timeout_s,
            key_requests_per_minute=settings.key_requests_per_minute,
            key_requests_at_once=settings.key_requests_at_once,
            decode_sandbox=list(service.recognizer.decoding.sandbox),
        ),
    )


@router.get(
    "/models/{name}", summary="Describe one model", responses=problems("unauthorized", "model_not_found")
)
async def get_model(name: str, service: CurrentService) -> ModelInfo:
    """The version of a model that answers requests, or the highest version if none serves."""
    entries = [entry for entry in service.recognizer.models.entries() if entry.name == name]
    if not entries:
        raise ModelNotFound(f"There is no model {name[:128]!r}; /v1/models lists the models.")
    return ModelInfo.of(next((entry for entry in entries if entry.state is ModelState.READY), entries[0]))
