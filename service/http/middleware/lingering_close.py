"""Reading and dropping the rest of an upload after an early answer.

A server that closes a connection with unread data resets it, and the reset can overtake the answer: the
client sees a broken connection instead of "too large". So the answer is sent at once, but the connection
stays open for a while to receive the rest of the client's data, like `lingering_close` in nginx.
"""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TIMEOUT_S = 30.0
PAUSE_TIMEOUT_S = 5.0


class LingeringCloseMiddleware:
    """ASGI middleware; see the module."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http" and _may_have_body(Headers(scope=scope)):
            exchange = _Exchange(receive, send)
            await self._app(scope, exchange.receive, exchange.send)
            await exchange.finish()
        else:
            await self._app(scope, receive, send)


def _may_have_body(headers: Headers) -> bool:
    # A client that sent `Expect: 100-continue` waits for permission to send its body.
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    return has_body and "expect" not in headers


class _Exchange:
    """Wraps the ASGI functions of one request; delays the end of an answer that precedes the upload's end."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._upload_complete = False
        self._end_delayed = False

    async def receive(self) -> Message:
        message = await self._receive()
        disconnected = message["type"] == "http.disconnect"
        self._upload_complete = disconnected or not message.get("more_body", False)
        return message

    async def send(self, message: MutableMapping[str, Any]) -> None:
        is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
        self._end_delayed = is_last and not self._upload_complete
        await self._send({**message, "more_body": True} if self._end_delayed else message)

    async def finish(self) -> None:
        """Drop the rest of the upload, then end the answer."""
        if not self._end_delayed:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(TIMEOUT_S):
                while not self._upload_complete:
                    async with asyncio.timeout(PAUSE_TIMEOUT_S):
                        await self.receive()
        await self._send({"type": "http.response.body", "body": b""})
