"""An answer of JSON lines, each sent as it comes to be.

Nothing is sent before the first line, so an error until then is answered as everywhere, with its status. One
that comes later is the last line, `{"error": ...}`, and the answer ends there in good order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from service.errors import RequestError
from service.http import problems
from service.http.context import record_of
from service.http.openapi import LINES_TYPE
from service.http.schemas import Problem
from service.http.timeline_schemas import TimelineError


class ReaderStuck(Exception):
    """The caller takes no more lines, and has not gone either."""


class Lines:
    """Sends lines. A caller that takes none for `patience_s` seconds is waited for no longer.

    Attributes:
        begun: Whether one was sent, and the status with it.
    """

    def __init__(self, send: Send, headers: Mapping[str, str], patience_s: float) -> None:
        self._send = send
        self._headers = dict(headers)
        self._patience_s = patience_s
        self.begun = False

    async def begin(self, headers: Mapping[str, str]) -> None:
        """Send the status, 200, and these headers too; before the first line."""
        self.begun = True
        fields = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in {**self._headers, **headers}.items()
        ]
        await self._send({"type": "http.response.start", "status": 200, "headers": fields})

    async def send(self, line: BaseModel, **options: bool) -> None:
        """Send a line; waits while the caller is behind.

        Raises:
            ReaderStuck: it stays behind.
        """
        body = line.model_dump_json(**options).encode() + b"\n"  # type: ignore[arg-type]
        await self._put({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self) -> None:
        """That was the last line."""
        await self._put({"type": "http.response.body", "body": b""})

    async def _put(self, message: dict[str, object]) -> None:
        timeout = asyncio.timeout(self._patience_s)
        try:
            async with timeout:
                await self._send(message)
        except TimeoutError:
            if not timeout.expired():
                raise
            raise ReaderStuck from None


class LinesAnswer(StreamingResponse):
    """An answer whose lines `produce` sends.

    Args:
        request: what is answered.
        produce: begins the answer and sends its lines; what it raises becomes the last one.
        patience_s: see `Lines`.
    """

    def __init__(
        self, request: Request, produce: Callable[[Lines], Awaitable[None]], patience_s: float
    ) -> None:
        super().__init__((), media_type=LINES_TYPE)
        self._record = record_of(request)
        self._produce = produce
        self._patience_s = patience_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - as in ASGI
        """Answer."""
        lines = Lines(send, self.headers, self._patience_s)
        try:
            try:
                await self._produce(lines)
            except (ClientDisconnect, ReaderStuck):
                raise
            except Exception as exc:
                if not lines.begun:
                    raise
                await self._send_error(lines, exc)
            await lines.end()
        except (ClientDisconnect, ReaderStuck):
            if not lines.begun:
                raise
            self._record.left = True
            # Nobody reads on; the server drops the connection of an answer without an end.

    async def _send_error(self, lines: Lines, exc: Exception) -> None:
        document = problems.late_document(exc, self._record.request_id)
        self._record.problem = document["code"]
        await lines.send(TimelineError(error=Problem(**document)), exclude_none=True)
        if not isinstance(exc, RequestError):
            await lines.end()
            raise exc
