"""FastAPI dependencies of the routes: the service, keys, shares and deadlines."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, Header, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import ClientDisconnect

from service.errors import Forbidden, NotReady, Unauthorized
from service.http.context import record_of
from service.http.service import Service
from service.pipeline.limits.deadline import Deadline


async def get_service(request: Request) -> Service:
    """The service of this application."""
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


CurrentService = Annotated[Service, Depends(get_service)]
_bearer = HTTPBearer(auto_error=False, description="An API key, if the service has keys.")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def check_ready(service: Service) -> None:
    """Raise `NotReady`, with the reason, unless load balancers should send requests."""
    if (problem := service.problem()) is not None:
        raise NotReady(problem, retry_after_s=1)


async def require_key(request: Request, service: CurrentService, credentials: Credentials) -> str | None:
    """Return the caller that the key identifies; None if no keys are set.

    Raises:
        Unauthorized: the key is missing or unknown.
    """
    if service.keys.open:
        return None
    caller = None if credentials is None else service.keys.find(credentials.credentials)
    if caller is None:
        raise Unauthorized("Send a valid API key: Authorization: Bearer KEY.")
    record_of(request).caller = caller
    return caller


_admin = HTTPBearer(
    auto_error=False,
    scheme_name="AdminKey",
    description="The admin key. Without one, these routes are disabled.",
)


async def require_admin_key(
    service: CurrentService, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_admin)]
) -> None:
    """Require the admin key.

    Raises:
        Forbidden: no admin key is set.
        Unauthorized: the key is missing or wrong; an API key is not sufficient.
    """
    if not service.admin_key.is_set:
        raise Forbidden("No admin key is set (BLVNET_ADMIN_KEY), so models cannot be changed over HTTP.")
    if credentials is None or not service.admin_key.matches(credentials.credentials):
        raise Unauthorized("Send the admin key: Authorization: Bearer KEY. An API key does not do.")


async def take_share(
    service: CurrentService, caller: Annotated[str | None, Depends(require_key)]
) -> AsyncIterator[None]:
    """Count a request towards the limits of its key until it is answered.

    Raises:
        RateLimited: the key has reached a limit.
    """
    async with service.keys.share(caller):
        yield


RequestTimeout = Annotated[
    float | None,
    Header(
        gt=0,
        allow_inf_nan=False,
        description="Time limit in seconds, if it is shorter than that of the service.",
    ),
]


async def request_deadline(
    request: Request, service: CurrentService, x_request_timeout: RequestTimeout = None
) -> Deadline:
    """Return the time limit of a request, or a shorter one that the caller sets."""
    limit_s = min(x_request_timeout or math.inf, service.settings.request_timeout_s)
    return Deadline(limit_s, elapsed_s=record_of(request).elapsed_ms() / 1000)


async def timeline_deadline(
    request: Request, service: CurrentService, x_request_timeout: RequestTimeout = None
) -> Deadline:
    """Return the time limit of a timeline, or a shorter one that the caller sets."""
    limit_s = min(x_request_timeout or math.inf, service.settings.timeline_timeout_s)
    return Deadline(limit_s, elapsed_s=record_of(request).elapsed_ms() / 1000)


RequestDeadline = Annotated[Deadline, Depends(request_deadline)]
TimelineDeadline = Annotated[Deadline, Depends(timeline_deadline)]


@asynccontextmanager
async def while_connected(request: Request) -> AsyncIterator[None]:
    """Cancel the block when the client disconnects; the body must have been read before.

    Raises:
        ClientDisconnect: the client disconnected.
    """
    task = asyncio.current_task()
    assert task is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    watcher = asyncio.create_task(watch(), name="watch for disconnect")
    try:
        yield
    except asyncio.CancelledError:
        if not gone or task.uncancel() > 0:
            raise
        raise ClientDisconnect from None
    finally:
        watcher.cancel()
