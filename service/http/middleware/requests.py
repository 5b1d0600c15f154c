"""Outermost middleware: request id, log line, metrics, and the answer to unexpected exceptions."""

from __future__ import annotations

import logging
import re
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from service.http import problems
from service.http.context import REQUEST_ID_HEADER, RequestRecord, open_record
from service.monitoring.metrics import Metrics, RequestOutcome

logger = logging.getLogger("service.request")

# W3C Trace Context, version 00; the ids are not zero.
TRACEPARENT_HEADER = "traceparent"
TRACEPARENT_PATTERN = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
# Label of requests that match no route: paths are the clients' choice, so they cannot be labels.
UNMATCHED = "unmatched"
# Requested every few seconds by monitors; logged at debug level only.
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})


class RequestMiddleware:
    """ASGI middleware; see the module."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        record = open_record(connection)
        log_fields = {"request_id": record.request_id}
        if TRACEPARENT_PATTERN.fullmatch(trace := connection.headers.get(TRACEPARENT_HEADER, "")):
            log_fields[TRACEPARENT_HEADER] = trace
        status = problems.CLIENT_CLOSED_REQUEST  # until an answer starts
        started = False

        async def send_with_id(message: MutableMapping[str, Any]) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                started, status = True, message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = record.request_id
            await send(message)

        with (
            bound_contextvars(**log_fields),
            self._metrics.inflight_requests.track_inprogress(),
        ):
            try:
                await self._app(scope, receive, send_with_id)
            except Exception as exc:  # every error is a problem document, and its traceback is logged
                logger.exception("unexpected error")
                record.problem = problems.INTERNAL_ERROR
                if not started:
                    response = problems.problem_response(exc, record.request_id, scope["path"])
                    await response(scope, receive, send_with_id)
            finally:
                if record.client_gone:
                    status = problems.CLIENT_CLOSED_REQUEST
                self._finish(scope, record, status)

    def _finish(self, scope: Scope, record: RequestRecord, status: int) -> None:
        route = getattr(scope.get("route"), "path", UNMATCHED)
        total_ms = record.elapsed_ms()
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.request_seconds.labels(route, RequestOutcome.of_status(status)).observe(total_ms / 1000)
        if record.upload_bytes is not None:
            self._metrics.upload_bytes.observe(record.upload_bytes)
        # A probe answered with "not ready" is not a rejected request.
        if record.problem is not None and route not in PROBES:
            self._metrics.rejected.labels(record.problem).inc()
            if record.model is not None:
                self._metrics.model_failure(record.model, total_ms / 1000)
        fields = {
            "method": scope["method"],
            "route": route,
            "code": status,
            "problem": record.problem,
            "caller": record.caller,
            "model": record.model,
            "bytes": record.upload_bytes,
            **{f"{stage}_ms": round(value, 2) for stage, value in record.stages_ms.items()},
            "total_ms": round(total_ms, 2),
        }
        level = logging.DEBUG if route in PROBES else logging.INFO
        extra = {name: value for name, value in fields.items() if value is not None}
        logger.log(level, "request", extra=extra)
