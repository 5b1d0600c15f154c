"""The ASGI application for one set of settings.

`create_app` builds it; its lifespan starts and stops the service. No state is kept in module globals, so one
process may hold several applications.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry
from starlette.middleware.cors import CORSMiddleware

from service.http import openapi, problems, tracing
from service.http.context import REQUEST_ID_HEADER
from service.http.dependencies import require_key
from service.http.middleware.admission import AdmissionMiddleware
from service.http.middleware.lingering_close import LingeringCloseMiddleware
from service.http.middleware.requests import RequestMiddleware
from service.http.routes import (
    classify,
    health,
    jobs,
    model_repository,
    models,
    open_inference,
    pages,
    taught,
    timeline,
)
from service.http.service import Service
from service.monitoring.metrics import Metrics
from service.pipeline.recognizer import Recognizer
from service.settings import Settings

TITLE = "blvnet-serve"


def create_app(settings: Settings, cores: int | None = None) -> FastAPI:
    """Create the application; `app.state.service` is its service.

    Models load in the background after the application has started; until then `/readyz` answers 503.

    Args:
        settings: settings of the service.
        cores: CPU cores to use; None for all that the process may use.
    """
    metrics = Metrics(
        CollectorRegistry(),
        request_timeout_s=settings.request_timeout_s,
        max_batch=settings.max_rows,
    )
    service = Service(settings, Recognizer(settings, metrics, cores=cores), metrics)
    metrics.watch(service.recognizer, service.jobs)
    if service.cache is not None:
        metrics.cache_bytes.set_function(partial(getattr, service.cache, "size_bytes"))
    metrics.declare_build(version(TITLE), settings.revision)
    metrics.declare_reasons(problems.PROBLEM_TYPES)
    app = _bare_app(service, _routes_of(classify.router, timeline.router), lifespan=_lifespan)
    for router in (classify.router, timeline.router, jobs.router, models.router, open_inference.router):
        app.include_router(router, dependencies=[Depends(require_key)])
    app.include_router(taught.router)  # needs the admin key if one is set, otherwise an API key
    app.include_router(model_repository.router)  # needs the admin key, not an API key
    app.include_router(health.router)
    if settings.metrics_port is None:
        app.include_router(health.metrics_router)
    app.include_router(pages.router)
    return app


def create_operations_app(service: Service) -> FastAPI:
    """Create an application with the health checks and metrics of a running service, for a separate port."""
    app = _bare_app(service)
    app.include_router(health.router)
    app.include_router(health.metrics_router)
    return app


def _bare_app(service: Service, upload_routes: Sequence[APIRoute] = (), **options: Any) -> FastAPI:
    app = FastAPI(
        title=TITLE,
        description=openapi.DESCRIPTION,
        version=version(TITLE),
        docs_url=None,  # FastAPI's pages load from a CDN; `service.http.routes.pages` serves its own copies
        redoc_url=None,
        telemetry=tracing.TELEMETRY,
        generate_unique_id_function=openapi.operation_id,
        **options,
    )
    app.state.service = service
    app.add_middleware(AdmissionMiddleware, service=service, routes=upload_routes)
    app.add_middleware(RequestMiddleware, metrics=service.metrics)
    if service.settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=service.settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", REQUEST_ID_HEADER, "X-Request-Timeout"],
            expose_headers=[REQUEST_ID_HEADER, "Retry-After", "Server-Timing"],
        )
    # Outermost, so that the duration of a request ends with its answer and not with the dropped upload.
    app.add_middleware(LingeringCloseMiddleware)
    problems.install(app)
    openapi.install(app)
    return app


def _routes_of(*routers: APIRouter) -> list[APIRoute]:
    return [route for router in routers for route in router.routes if isinstance(route, APIRoute)]


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    service.start()
    try:
        yield
    finally:
        await service.stop()
