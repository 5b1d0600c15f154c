"""Streaming answers of newline-delimited JSON (NDJSON).

The status line is sent with the first document, so an earlier error gets its own status as on any route. A
later error becomes the last line, `{"error": ...}`, and the response still ends properly.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from service.errors import RequestError
from service.http import problems
from service.http.context import record_of
from service.http.schemas.common import Problem
from service.http.schemas.timeline import TimelineError
from service.http.transfer.protocol import abort_connection

NDJSON_TYPE = "application/x-ndjson"

logger = logging.getLogger(__name__)


class ReaderStalled(Exception):
    """The client keeps the connection open but has stopped reading."""


class NDJSONWriter:
    """Writes documents to the response.

    Args:
        send: ASGI send function.
        headers: sent with the status line.
        write_timeout_s: longest time that a write waits for the client to read.

    Attributes:
        started: Whether the status line was sent.
    """

    def __init__(self, send: Send, headers: Mapping[str, str], write_timeout_s: float) -> None:
        self._send = send
        self._headers = dict(headers)
        self._write_timeout_s = write_timeout_s
        self.started = False

    async def start(self, headers: Mapping[str, str]) -> None:
        """Send status 200 with these additional headers; call it before the first `write`."""
        self.started = True
        fields = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in {**self._headers, **headers}.items()
        ]
        await self._send({"type": "http.response.start", "status": 200, "headers": fields})

    async def write(self, document: BaseModel, *, exclude_none: bool = False) -> None:
        """Send one line; wait if the client reads more slowly than lines are written.

        Raises:
            ReaderStalled: the client read nothing for `write_timeout_s`.
        """
        body = document.model_dump_json(exclude_none=exclude_none).encode() + b"\n"
        await self._send_body({"type": "http.response.body", "body": body, "more_body": True})

    async def finish(self) -> None:
        """End the response; raises `ReaderStalled` like `write`."""
        await self._send_body({"type": "http.response.body", "body": b""})

    async def _send_body(self, message: dict[str, object]) -> None:
        timeout = asyncio.timeout(self._write_timeout_s)
        try:
            async with timeout:
                await self._send(message)
        except TimeoutError:
            if not timeout.expired():
                raise
            raise ReaderStalled from None


class NDJSONResponse(StreamingResponse):
    """Response whose lines are written by `produce`.

    Args:
        request: the request to answer.
        produce: starts the response and writes its lines; an exception becomes the last line.
        write_timeout_s: see `NDJSONWriter`.
    """

    def __init__(
        self, request: Request, produce: Callable[[NDJSONWriter], Awaitable[None]], write_timeout_s: float
    ) -> None:
        super().__init__((), media_type=NDJSON_TYPE)
        self._record = record_of(request)
        self._produce = produce
        self._write_timeout_s = write_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI signature
        """Produce and send the response."""
        writer = NDJSONWriter(send, self.headers, self._write_timeout_s)
        try:
            try:
                await self._produce(writer)
            except (ClientDisconnect, ReaderStalled):
                raise
            except Exception as exc:  # every error becomes the last line; an unexpected one is raised again
                if not writer.started:
                    raise
                await self._write_error(writer, exc)
            await writer.finish()
        except ClientDisconnect:
            if not writer.started:
                raise
            self._record.client_gone = True
        except ReaderStalled:
            self._record.client_gone = True
            logger.warning("client stopped reading, connection aborted")
            # A normal close would keep the connection until the client has read the buffered lines.
            abort_connection(scope)

    async def _write_error(self, writer: NDJSONWriter, exc: Exception) -> None:
        document = problems.problem_document_of(exc, self._record.request_id)
        self._record.problem = document["code"]
        await writer.write(TimelineError(error=Problem(**document)), exclude_none=True)
        if not isinstance(exc, RequestError):
            await writer.finish()
            raise exc
