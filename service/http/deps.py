"""What routes ask for: the service behind them, and a caller who may use it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import ClientDisconnect

from service.errors import DeadlineExceeded, Forbidden, NotReady, Unauthorized
from service.http.context import record_of
from service.http.lifecycle import Lifecycle


async def get_service(request: Request) -> Lifecycle:
    """The service that this application stands in front of."""
    service = request.app.state.service
    assert isinstance(service, Lifecycle)
    return service


Service = Annotated[Lifecycle, Depends(get_service)]
_bearer = HTTPBearer(auto_error=False, description="An API key, where the service is set up with keys.")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def check_ready(service: Lifecycle) -> None:
    """Raise `NotReady`, with the reason, unless work would be accepted now."""
    ready, reason = service.readiness()
    if not ready:
        raise NotReady(reason, retry_after_s=1)


async def require_key(service: Service, credentials: Credentials) -> int | None:
    """The number of the caller's key; None where no keys are set.

    Raises:
        Unauthorized: no key, or none of ours.
    """
    if service.keys.open:
        return None
    key = None if credentials is None else service.keys.find(credentials.credentials)
    if key is None:
        raise Unauthorized("Send a valid API key: Authorization: Bearer KEY.")
    return key


_admin = HTTPBearer(
    auto_error=False, scheme_name="AdminKey", description="The admin key; without one set nobody may."
)


async def require_admin_key(
    service: Service, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_admin)]
) -> None:
    """Let only those through who may change what serves.

    Raises:
        Forbidden: no admin key is set.
        Unauthorized: this is not it; an API key does not do.
    """
    if not service.admin_key.is_set:
        raise Forbidden("No admin key is set (BLVNET_ADMIN_KEY), so models cannot be changed over HTTP.")
    if credentials is None or not service.admin_key.matches(credentials.credentials):
        raise Unauthorized("Send the admin key: Authorization: Bearer KEY. An API key does not do.")


async def take_share(
    service: Service, key: Annotated[int | None, Depends(require_key)]
) -> AsyncIterator[None]:
    """Count a request for work against the share of its key, until it is answered.

    Raises:
        RateLimited: the share is used up.
    """
    with service.keys.share(key):
        yield


@dataclass(frozen=True)
class Deadline:
    """When a request is to be done, in seconds of `time.monotonic`, and how long that is from its start."""

    at: float
    timeout_s: float


RequestTimeout = Annotated[
    float | None,
    Header(
        gt=0,
        allow_inf_nan=False,
        description="Seconds after which the answer is of no use; the service's own limit holds too.",
    ),
]


async def request_deadline(
    request: Request, service: Service, x_request_timeout: RequestTimeout = None
) -> Deadline:
    """The service's time limit for a request, or a shorter one of the caller's."""
    return _deadline(request, service.settings.request_timeout_s, x_request_timeout)


async def timeline_deadline(
    request: Request, service: Service, x_request_timeout: RequestTimeout = None
) -> Deadline:
    """The service's time limit for a timeline, or a shorter one of the caller's."""
    return _deadline(request, service.settings.timeline_timeout_s, x_request_timeout)


def _deadline(request: Request, longest_s: float, asked_s: float | None) -> Deadline:
    timeout_s = longest_s if asked_s is None else min(asked_s, longest_s)
    return Deadline(record_of(request).started + timeout_s, timeout_s)


RequestDeadline = Annotated[Deadline, Depends(request_deadline)]
TimelineDeadline = Annotated[Deadline, Depends(timeline_deadline)]


@asynccontextmanager
async def until(deadline: Deadline) -> AsyncIterator[None]:
    """Hold a block to a deadline.

    Raises:
        DeadlineExceeded: the block was not done by then.
    """
    timeout = asyncio.timeout(deadline.at - time.monotonic())
    try:
        async with timeout:
            yield
    except TimeoutError:
        if not timeout.expired():
            raise
        raise DeadlineExceeded(f"The request was not answered within {deadline.timeout_s:g} s.") from None


@asynccontextmanager
async def while_connected(request: Request) -> AsyncIterator[None]:
    """Cancel the block when the caller goes away; the body has to be read before.

    Raises:
        ClientDisconnect: the caller went away.
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
