"""For machines that watch the service: alive, ready, and its metrics. Always open, whatever keys are set."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from prometheus_client.exposition import choose_encoder

from service.http.deps import Service, check_ready
from service.http.openapi import problems
from service.http.schemas import Health

router = APIRouter(tags=["operations"])
metrics_router = APIRouter(tags=["operations"])


@router.get("/healthz", summary="Is the process alive?")
async def healthz() -> Health:
    """200 while the process can answer at all."""
    return Health(status="ok")


@router.get("/readyz", summary="Would a clip be accepted?", responses=problems("not_ready"))
async def readyz(service: Service) -> Health:
    """200 when a clip would be accepted now."""
    check_ready(service)
    return Health(status="ready")


@metrics_router.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def metrics(request: Request, service: Service) -> Response:
    """Prometheus exposition, in the text format or OpenMetrics as asked for."""
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(service.metrics.registry), headers={"Content-Type": content_type})
