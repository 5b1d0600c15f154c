"""The outermost middleware around small ASGI applications."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.contextvars import get_contextvars

from service.http.context import SCOPE_KEY, RequestRecord
from service.http.middleware.requests import RequestMiddleware
from service.monitoring.metrics import Metrics

pytestmark = pytest.mark.anyio

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Handled:
    """A request through the middleware: its answer, its log line, its metrics, and what the handler saw."""

    def __init__(self, handler: Callable[[Scope, RequestRecord], object], path: str | None = "/v1/classify"):
        self._registry = CollectorRegistry()
        self._metrics = Metrics(self._registry, request_timeout_s=30.0, max_batch=8)
        self.app = RequestMiddleware(self._application(handler, path), self._metrics)
        self.context: dict[str, Any] = {}
        self.in_progress = 0.0

    def _application(self, handler: Callable[[Scope, RequestRecord], object], path: str | None) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if path is not None:
                scope["route"] = type("Route", (), {"path": path})
            self.context = get_contextvars()
            self.in_progress = self.sample("blvnet_inflight_requests") or 0.0
            response = handler(scope, scope[SCOPE_KEY])
            if isinstance(response, PlainTextResponse):
                await response(scope, receive, send)

        return app

    async def get(self, headers: dict[str, str] | None = None) -> httpx.Response:
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get("/some/path", headers=headers)

    def sample(self, name: str, **labels: str) -> float | None:
        return self._registry.get_sample_value(name, labels)


def ok(scope: Scope, record: RequestRecord) -> PlainTextResponse:
    return PlainTextResponse("done", 201)


def request_line(caplog: pytest.LogCaptureFixture) -> logging.LogRecord:
    (line,) = [record for record in caplog.records if record.name == "service.request"]
    return line


@pytest.fixture(autouse=True)
def _all_levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


async def test_answers_are_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    def handler(scope: Scope, record: RequestRecord) -> PlainTextResponse:
        record.stages_ms["decode"] = 12.34567
        record.caller, record.model, record.upload_bytes = "c0ffee", "tiny", 77
        return ok(scope, record)

    handled = Handled(handler)
    response = await handled.get({"X-Request-ID": "mine"})
    assert (response.status_code, response.headers["X-Request-ID"]) == (201, "mine")
    line = vars(request_line(caplog))
    assert line["levelname"] == "INFO"
    expected = {
        "method": "GET", "route": "/v1/classify", "code": 201, "caller": "c0ffee", "model": "tiny",
        "bytes": 77, "decode_ms": 12.35,
    }  # fmt: skip
    assert expected.items() <= line.items()
    assert line["total_ms"] == round(line["total_ms"], 2) > 0
    assert "problem" not in line
    assert handled.sample("blvnet_requests_total", route="/v1/classify", code="201") == 1
    assert handled.sample("blvnet_request_seconds_count", route="/v1/classify", outcome="answered") == 1
    seconds = handled.sample("blvnet_request_seconds_sum", route="/v1/classify", outcome="answered")
    assert seconds == pytest.approx(line["total_ms"] / 1000, abs=1e-5)
    assert handled.sample("blvnet_upload_bytes_sum") == 77
    assert handled.context == {"request_id": "mine"}
    assert (handled.in_progress, handled.sample("blvnet_inflight_requests")) == (1, 0)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (TRACE, True),
        (TRACE.upper(), False),
        (TRACE + "-more", False),
        ("01" + TRACE[2:], False),
        (TRACE.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32), False),
        (TRACE.replace("b7ad6b7169203331", "0" * 16), False),
        (TRACE[:-1], False),
    ],
)
async def test_trace_of_the_caller_is_logged_if_it_is_valid(sent: str, kept: bool) -> None:
    handled = Handled(ok)
    await handled.get({"traceparent": sent})
    assert (handled.context.get("traceparent") == sent) is kept


async def test_request_without_a_route_has_one_label(caplog: pytest.LogCaptureFixture) -> None:
    handled = Handled(ok, path=None)
    await handled.get()
    assert vars(request_line(caplog))["route"] == "unmatched"
    assert handled.sample("blvnet_requests_total", route="unmatched", code="201") == 1
    assert handled.sample("blvnet_upload_bytes_count") == 0


def refused(scope: Scope, record: RequestRecord) -> PlainTextResponse:
    record.problem, record.model = "overloaded", "tiny"
    return PlainTextResponse("no", 503)


@pytest.mark.parametrize(
    ("path", "level", "rejected"),
    [
        ("/v1/classify", "INFO", 1),
        ("/healthz", "DEBUG", None),
        ("/readyz", "DEBUG", None),
        ("/metrics", "DEBUG", None),
    ],
)
async def test_probes_are_logged_at_debug_level_and_not_counted_as_rejected(
    caplog: pytest.LogCaptureFixture, path: str, level: str, rejected: int | None
) -> None:
    handled = Handled(refused, path)
    assert (await handled.get()).status_code == 503
    line = vars(request_line(caplog))
    assert (line["levelname"], line["problem"]) == (level, "overloaded")
    assert handled.sample("blvnet_rejected_total", reason="overloaded") == rejected
    assert handled.sample("blvnet_request_seconds_count", route=path, outcome="refused") == 1


async def test_unexpected_error_is_a_problem_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    def fail(scope: Scope, record: RequestRecord) -> None:
        raise ZeroDivisionError("secret")

    handled = Handled(fail)
    response = await handled.get({"X-Request-ID": "mine"})
    assert (response.status_code, response.json()["code"]) == (500, "internal_error")
    assert response.headers["X-Request-ID"] == response.json()["request_id"] == "mine"
    assert "secret" not in response.text
    assert any(record.exc_info and record.levelname == "ERROR" for record in caplog.records)
    assert handled.sample("blvnet_rejected_total", reason="internal_error") == 1
    assert handled.sample("blvnet_requests_total", route="/v1/classify", code="500") == 1


@pytest.mark.parametrize("started", [False, True])
async def test_client_that_left_is_counted_as_499(started: bool) -> None:
    def handler(scope: Scope, record: RequestRecord) -> PlainTextResponse | None:
        record.client_gone = started
        return ok(scope, record) if started else None

    handled = Handled(handler)
    if started:
        await handled.get()
    else:

        async def nothing(*_: object) -> dict[str, Any]:
            return {"type": "http.disconnect"}

        scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        send: Callable[..., Awaitable[Any]] = nothing
        await handled.app(scope, nothing, send)
    assert handled.sample("blvnet_requests_total", route="/v1/classify", code="499") == 1
    assert handled.sample("blvnet_request_seconds_count", route="/v1/classify", outcome="failed") == 1


async def test_other_connections_pass_through() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])
        assert SCOPE_KEY not in scope

    async def receive() -> dict[str, Any]:
        return {}

    async def send(message: object) -> None:
        pass

    metrics = Metrics(CollectorRegistry(), request_timeout_s=30.0, max_batch=8)
    await RequestMiddleware(app, metrics)({"type": "lifespan"}, receive, send)
    assert seen == ["lifespan"]
