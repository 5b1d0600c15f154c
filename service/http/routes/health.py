"""Routes for monitoring: liveness, readiness and metrics. They never need a key."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from service.http.dependencies import CurrentService, check_ready
from service.http.openapi import problems
from service.http.schemas.common import Health

router = APIRouter(tags=["operations"])
metrics_router = APIRouter(tags=["operations"])


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", summary="Is the process alive?")
async def healthz() -> Health:
    """200 while the process can answer at all."""
    return Health(status="ok")


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", summary="Can requests be answered?", responses=problems("not_ready"))
async def readyz(service: CurrentService) -> Health:
    """200 while a model works and videos can be decoded. Load alone never makes it 503."""
    check_ready(service)
    return Health(status="ready")


@metrics_router.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def metrics(request: Request, service: CurrentService) -> Response:
    """Prometheus exposition, in the text format or OpenMetrics by the Accept header."""
    content, content_type = await service.metrics.render(request.headers.get("accept", ""))
    return Response(content, headers={"Content-Type": content_type})
