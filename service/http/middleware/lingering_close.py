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
        """Handle one request; delay the end of an answer that precedes the end of the upload."""
        headers = Headers(scope=scope) if scope["type"] == "http" else {}
        has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        # A client that sent `Expect: 100-continue` waits for permission to send its body.
        if not has_body or "expect" in headers:
            await self._app(scope, receive, send)
            return
        upload_complete = end_delayed = False

        async def watched_receive() -> Message:
            nonlocal upload_complete
            message = await receive()
            upload_complete = message["type"] == "http.disconnect" or not message.get("more_body", False)
            return message

        async def delayed_send(message: MutableMapping[str, Any]) -> None:
            nonlocal end_delayed
            is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
            end_delayed = is_last and not upload_complete
            await send({**message, "more_body": True} if end_delayed else message)

        await self._app(scope, watched_receive, delayed_send)
        if end_delayed:
            with suppress(TimeoutError):
                async with asyncio.timeout(TIMEOUT_S):
                    while not upload_complete:
                        async with asyncio.timeout(PAUSE_TIMEOUT_S):
                            await watched_receive()
            await send({"type": "http.response.body", "body": b""})
