"""A minimal HTTP/1.1 client for posting clips.

The load generator shares the cores with the measured server. uvloop and httptools are compiled, and this
client adds little to them, whereas a general client library costs several times as much CPU per request.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Self, cast
from urllib.parse import urlsplit

import httptools

HEADERS = {"Content-Type": "application/octet-stream"}


@dataclass(frozen=True)
class Target:
    """The address that clips are posted to."""

    host: str
    port: int
    path: str

    @classmethod
    def of(cls, url: str) -> Self:
        """Parse a URL `http://HOST:PORT/PATH`."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or not parts.port:
            raise ValueError(f"{url} is not of the form http://HOST:PORT/PATH")
        return cls(parts.hostname, parts.port, parts.path or "/")

    def head(self, length: int) -> bytes:
        """The request line and headers of a body with `length` bytes."""
        fields = {"Host": f"{self.host}:{self.port}", "Content-Length": length} | HEADERS
        lines = [f"POST {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        return "\r\n".join([*lines, "", ""]).encode()


@dataclass(frozen=True)
class Reply:
    """A response; `keeps` says whether the connection can be reused."""

    status: int
    body: bytes
    keeps: bool


class Connection(asyncio.Protocol):
    """A connection that sends one post at a time.

    Responses must have a Content-Length or be chunked; a response that ends with the connection counts as
    cut.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._transport: asyncio.WriteTransport | None = None
        self._reply: asyncio.Future[Reply] | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._body: list[bytes] = []

    @property
    def is_open(self) -> bool:
        """Whether the connection can send a post."""
        return self._transport is not None and not self._transport.is_closing()

    @classmethod
    async def open(cls, target: Target) -> Self:
        """Connect.

        Raises:
            OSError: the connection failed.
        """
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: cls(target), target.host, target.port)
        return connection

    async def post(self, clip: bytes) -> Reply:
        """Post a clip and return the complete response.

        Raises:
            OSError: the connection ended early, or the response is not valid HTTP.
        """
        if self._transport is None or not self.is_open:
            raise ConnectionError("the connection is closed")
        self._reply = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._body = []
        self._transport.writelines((self._target.head(len(clip)), clip))
        return await self._reply

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    # asyncio.Protocol:

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        """Feed the parser."""
        if self._parser is None:
            return  # no request was sent
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            self._fail(ConnectionError(f"the response is not valid HTTP: {exc}"))
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the pending post."""
        self._fail(exc or ConnectionResetError("the connection ended before the response"))
        self._transport = None

    # httptools callbacks:

    def on_body(self, body: bytes) -> None:
        """Collect a part of the body."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Complete the pending post."""
        if self._parser is not None and self._reply is not None and not self._reply.done():
            keeps = self._parser.should_keep_alive()
            self._reply.set_result(Reply(self._parser.get_status_code(), b"".join(self._body), keeps))

    def _fail(self, exc: Exception) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(exc)
