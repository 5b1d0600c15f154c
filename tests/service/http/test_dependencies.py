"""The dependencies of the routes, called as FastAPI calls them."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi import Request
from fastapi.security import HTTPAuthorizationCredentials
from starlette.requests import ClientDisconnect
from starlette.types import Message

from service.errors import DeadlineExceeded, Forbidden, NotReady, RateLimited, Unauthorized
from service.http.app import create_app
from service.http.context import SCOPE_KEY, RequestRecord, record_of
from service.http.dependencies import (
    check_ready,
    get_service,
    request_deadline,
    require_admin_key,
    require_key,
    take_share,
    timeline_deadline,
    while_connected,
)
from service.http.service import Service
from service.settings import load_settings

pytestmark = pytest.mark.anyio


def service_with(models: Path, **settings: Any) -> Service:
    service = create_app(load_settings({"models": models, "decode_workers": 1, **settings})).state.service
    return cast("Service", service)


def request_of(*messages: Message, age_s: float = 0.0) -> Request:
    """A request that is `age_s` old, whose client sends the messages and then waits."""
    sent = iter(messages)

    async def receive() -> Message:
        for message in sent:
            return message
        await asyncio.Event().wait()
        raise AssertionError

    record = RequestRecord("one", started=time.monotonic() - age_s)
    return Request({"type": "http", "headers": [], SCOPE_KEY: record}, receive)


def bearer(key: str) -> HTTPAuthorizationCredentials:
    return HTTPAuthorizationCredentials(scheme="Bearer", credentials=key)


@pytest.fixture
def limited(tiny_models: Path) -> Service:
    """A service with limits of 30 s for a request and of 100 s for a timeline."""
    return service_with(tiny_models, request_timeout_s=30, timeline_timeout_s=100)


async def test_service_is_that_of_the_application(tiny_models: Path) -> None:
    app = create_app(load_settings({"models": tiny_models, "decode_workers": 1}))
    request = Request({"type": "http", "headers": [], "app": app})
    assert await get_service(request) is app.state.service


@pytest.mark.parametrize(
    ("wanted", "of_request", "of_timeline"), [(None, 30, 100), (5.0, 5, 5), (1e9, 30, 100)]
)
async def test_callers_can_only_shorten_the_time_limits(
    limited: Service, wanted: float | None, of_request: float, of_timeline: float
) -> None:
    assert (await request_deadline(request_of(), limited, wanted)).limit_s == of_request
    assert (await timeline_deadline(request_of(), limited, wanted)).limit_s == of_timeline


@pytest.mark.parametrize("deadline_of", [request_deadline, timeline_deadline])
async def test_time_limit_begins_when_the_request_arrives(limited: Service, deadline_of: Any) -> None:
    async with await deadline_of(request_of(age_s=10), limited, 20.0):
        await asyncio.sleep(0.01)
    with pytest.raises(DeadlineExceeded):
        async with await deadline_of(request_of(age_s=21), limited, 20.0):
            await asyncio.sleep(60)


async def test_service_without_keys_takes_every_request(limited: Service) -> None:
    assert await require_key(request_of(), limited, None) is None
    assert await require_key(request_of(), limited, bearer("any")) is None


async def test_key_identifies_its_caller(tiny_models: Path) -> None:
    service = service_with(tiny_models, api_keys="first,second")
    callers = []
    for key in ("first", "second"):
        callers.append(await require_key(request := request_of(), service, bearer(key)))
        assert record_of(request).caller == callers[-1]
    assert None not in callers
    assert callers[0] != callers[1]
    for credentials in (None, bearer("third")):
        with pytest.raises(Unauthorized):
            await require_key(request := request_of(), service, credentials)
        assert record_of(request).caller is None


async def test_admin_key_is_another_than_the_api_keys(limited: Service, tiny_models: Path) -> None:
    with pytest.raises(Forbidden, match="BLVNET_ADMIN_KEY"):
        await require_admin_key(limited, bearer("any"))
    service = service_with(tiny_models, api_keys="key", admin_key="admin")
    await require_admin_key(service, bearer("admin"))
    for credentials in (None, bearer("key")):
        with pytest.raises(Unauthorized, match="admin key"):
            await require_admin_key(service, credentials)


async def test_share_of_a_key_is_taken_until_the_request_is_answered(tiny_models: Path) -> None:
    service = service_with(tiny_models, api_keys="key", key_requests_at_once=1)
    share = asynccontextmanager(take_share)
    async with share(service, "caller"):
        with pytest.raises(RateLimited):
            async with share(service, "caller"):
                pass
        async with share(service, "other"):
            pass
    async with share(service, "caller"):
        pass


def test_service_that_is_not_ready_names_the_reason() -> None:
    check_ready(cast("Service", SimpleNamespace(problem=lambda: None)))
    with pytest.raises(NotReady, match="no worker") as caught:
        check_ready(cast("Service", SimpleNamespace(problem=lambda: "no worker")))
    assert caught.value.retry_after_s == 1


def watchers() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == "watch for disconnect"]


async def test_block_ends_when_the_client_disconnects() -> None:
    request = request_of({"type": "http.request", "body": b""}, {"type": "http.disconnect"})
    with pytest.raises(ClientDisconnect):
        async with while_connected(request):
            await asyncio.sleep(60)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_block_of_a_connected_client_ends_by_itself() -> None:
    async with while_connected(request_of({"type": "http.request", "body": b""})):
        await asyncio.sleep(0.01)
        assert len(watchers()) == 1
    await asyncio.sleep(0)
    assert watchers() == []


async def test_cancellation_from_elsewhere_stays_a_cancellation() -> None:
    async def block(request: Request) -> None:
        async with while_connected(request):
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(60)

    for messages in ((), ({"type": "http.disconnect"},)):
        task = asyncio.create_task(block(request_of(*messages)))
        with pytest.raises(asyncio.CancelledError):
            await task
        assert watchers() == []
