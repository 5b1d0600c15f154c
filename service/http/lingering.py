"""An answer that comes before the end of an upload has to outlive it.

A server that closes a connection with unread data resets it, and the reset can overtake the answer: the
caller sees a broken connection instead of "too large". So the answer goes out at once, and what is still
coming is read and dropped for a while before the connection may close, as other web servers do.
"""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LONGEST_S = 30.0
LONGEST_PAUSE_S = 5.0


class LingeringMiddleware:
    """Wraps an ASGI application; see the module."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and _may_be_sending(Headers(scope=scope)):
            exchange = _Exchange(receive, send)
            await self._app(scope, exchange.receive, exchange.send)
            await exchange.end()
        else:
            await self._app(scope, receive, send)


def _may_be_sending(headers: Headers) -> bool:
    """Whether a body is on its way; one that was announced with `Expect` is not before it is asked for."""
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    return has_body and "expect" not in headers


class _Exchange:
    """One request and its answer, between the server and the application."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._received = False
        self._lingers = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._received = message["type"] == "http.disconnect" or not message.get("more_body", False)
        return message

    async def send(self, message: MutableMapping[str, Any]) -> None:
        is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
        self._lingers = is_last and not self._received
        await self._send({**message, "more_body": True} if self._lingers else message)

    async def end(self) -> None:
        """The application is done: drop the rest of the upload, then let the connection go."""
        if self._lingers:
            with suppress(TimeoutError):  # that was patience enough
                async with asyncio.timeout(LONGEST_S):
                    await self._drop_the_rest()
            await self._send({"type": "http.response.body", "body": b""})

    async def _drop_the_rest(self) -> None:
        while not self._received:
            async with asyncio.timeout(LONGEST_PAUSE_S):
                await self.receive()
