"""The outermost layer around every request: its id, its log line, its counts, and the last safety net."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from service.http import problems
from service.http.context import REQUEST_ID_HEADER, RequestRecord, open_record
from service.metrics import Metrics

logger = logging.getLogger("service.request")

UNMATCHED = "unmatched"  # a closed set of routes: what was really asked for is the caller's choice
# Asked for every few seconds by machines; in the log only when debugging.
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})


class RequestMiddleware:
    """Wraps an ASGI application; see the module."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = open_record(HTTPConnection(scope))
        answer = _Answer(send, record.request_id)
        with (
            bound_contextvars(request_id=record.request_id),
            self._metrics.inflight_requests.track_inprogress(),
        ):
            try:
                await self._app(scope, receive, answer.send)
            except Exception:
                logger.exception("unexpected error")
                record.problem = problems.INTERNAL_ERROR
                if not answer.started:
                    await problems.unexpected(record.request_id, scope["path"])(scope, receive, answer.send)
            finally:
                status = problems.CLIENT_CLOSED_REQUEST if record.left else answer.status
                self._close(scope, record, status)

    def _close(self, scope: Scope, record: RequestRecord, status: int) -> None:
        route = getattr(scope.get("route"), "path", UNMATCHED)
        total_ms = record.elapsed_ms()
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(total_ms / 1000)
        if record.upload_bytes is not None:
            self._metrics.upload_bytes.observe(record.upload_bytes)
        # A probe that finds the service not ready has been told so; nothing of a caller's was turned away.
        if record.problem is not None and route not in PROBES:
            self._metrics.rejected.labels(record.problem).inc()
        level = logging.DEBUG if route in PROBES else logging.INFO
        logger.log(level, "request", extra=_log_fields(scope, record, status, route, total_ms))


class _Answer:
    """Watches the answer go out: adds the request id, remembers the status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.started = False
        self.status = problems.CLIENT_CLOSED_REQUEST  # until something is answered

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self.status = message["status"]
            MutableHeaders(scope=message)[REQUEST_ID_HEADER] = self._request_id
        await self._send(message)


def _log_fields(
    scope: Scope, record: RequestRecord, status: int, route: str, total_ms: float
) -> dict[str, Any]:
    stages = {f"{stage}_ms": round(value, 2) for stage, value in record.stages_ms.items()}
    fields = {
        "method": scope["method"],
        "route": route,
        "code": status,
        "problem": record.problem,
        "model": record.model,
        "bytes": record.upload_bytes,
        **stages,
        "total_ms": round(total_ms, 2),
    }
    return {name: value for name, value in fields.items() if value is not None}
