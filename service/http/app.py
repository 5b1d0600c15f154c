"""The application: routes on top of a recognizer, wired up for one set of settings.

`create_app` builds, the lifespan starts and stops. Nothing is kept in module globals, so that a process may
hold several applications.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry

from service.http import openapi, problems
from service.http.deps import require_key
from service.http.early_refusal import EarlyRefusalMiddleware
from service.http.lifecycle import Lifecycle
from service.http.lingering import LingeringMiddleware
from service.http.middleware import RequestMiddleware
from service.http.routes import classify, health, models, open_inference, pages, repository, timeline
from service.metrics import Metrics
from service.pipeline.recognizer import Recognizer
from service.settings import Settings

TITLE = "blvnet-serve"


def create_app(settings: Settings, cores: int | None = None) -> FastAPI:
    """The service's application; `app.state.service` is the service behind it.

    Models are loaded in the background once the application has started: until then `/readyz` says why not.

    Args:
        settings: of the service.
        cores: that it was given; as many as the process may use, if None.
    """
    core = settings.core_config(cores)
    metrics = Metrics(
        CollectorRegistry(),
        request_timeout_s=settings.request_timeout_s,
        max_batch=core.most_rows,
    )
    service = Lifecycle(settings, Recognizer(core, observer=metrics), metrics)
    metrics.watch(service.recognizer)
    metrics.declare_reasons(problems.KINDS)
    app = _bare_app(service, _routes_of(classify.router, timeline.router), lifespan=_lifespan)
    for router in (classify.router, timeline.router, models.router, open_inference.router):
        app.include_router(router, dependencies=[Depends(require_key)])
    app.include_router(repository.router)  # its own key
    app.include_router(health.router)
    if settings.metrics_port is None:
        app.include_router(health.metrics_router)
    app.include_router(pages.router)
    return app


def create_operations_app(service: Lifecycle) -> FastAPI:
    """Health and metrics of a running service, for a port of their own."""
    app = _bare_app(service)
    app.include_router(health.router)
    app.include_router(health.metrics_router)
    return app


def _bare_app(service: Lifecycle, clip_routes: Sequence[APIRoute] = (), **options: Any) -> FastAPI:
    app = FastAPI(
        title=TITLE,
        description=openapi.DESCRIPTION,
        version=version(TITLE),
        docs_url=None,  # its pages load from a CDN; `service.http.routes.pages` has them from here
        redoc_url=None,
        **options,
    )
    app.state.service = service
    app.add_middleware(EarlyRefusalMiddleware, service=service, routes=clip_routes)
    app.add_middleware(RequestMiddleware, metrics=service.metrics)
    app.add_middleware(LingeringMiddleware)  # around it: a request is over when it is answered
    problems.install(app)
    openapi.install(app)
    return app


def _routes_of(*routers: APIRouter) -> list[APIRoute]:
    return [route for router in routers for route in router.routes if isinstance(route, APIRoute)]


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Lifecycle = app.state.service
    service.start()
    try:
        yield
    finally:
        await service.stop()
