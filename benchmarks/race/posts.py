"""Posts over HTTP/1.1 that take as little of the processor as can be: the server that is measured needs it.

The event loop is uvloop's and the answers are read by httptools, both compiled; what such posts need beside
that is little, while a client library does for each of them what is needed for any.
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
    """Where clips are posted to."""

    host: str
    port: int
    path: str

    @classmethod
    def of(cls, url: str) -> Self:
        """The target of a URL of plain HTTP, with its port."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or not parts.port:
            raise ValueError(f"{url} is no URL of the form http://HOST:PORT/PATH")
        return cls(parts.hostname, parts.port, parts.path or "/")

    def head(self, length: int) -> bytes:
        """What goes before a clip of so many bytes."""
        fields = {"Host": f"{self.host}:{self.port}", "Content-Length": length} | HEADERS
        lines = [f"POST {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        return "\r\n".join([*lines, "", ""]).encode()


@dataclass(frozen=True)
class Reply:
    """What the server answered, and whether it takes another request over the same connection."""

    status: int
    body: bytes
    keeps: bool


class Connection(asyncio.Protocol):
    """A connection to a server, for one post after the other.

    An answer tells its length or comes in chunks; one that only ends with the connection counts as cut.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._transport: asyncio.WriteTransport | None = None
        self._reply: asyncio.Future[Reply] | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._body: list[bytes] = []

    @property
    def is_open(self) -> bool:
        """Whether a post can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    @classmethod
    async def open(cls, target: Target) -> Self:
        """Connect.

        Raises:
            OSError: the server takes no connection.
        """
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: cls(target), target.host, target.port)
        return connection

    async def post(self, clip: bytes) -> Reply:
        """Post a clip and wait for all of the answer.

        Raises:
            OSError: the connection ended before, or what came was no HTTP.
        """
        if self._transport is None or not self.is_open:
            raise ConnectionError("the connection is closed")
        self._reply = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._body = []
        self._transport.writelines((self._target.head(len(clip)), clip))
        return await self._reply

    def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.close()

    # What the event loop calls:

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        """A piece of the answer."""
        if self._parser is None:
            return  # nothing was asked
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            self._fail(ConnectionError(f"the answer is no HTTP: {exc}"))
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is closed."""
        self._fail(exc or ConnectionResetError("the connection ended before the answer"))
        self._transport = None

    # What the parser calls:

    def on_body(self, body: bytes) -> None:
        """A piece of the answer's body."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """The whole answer is there."""
        if self._parser is not None and self._reply is not None and not self._reply.done():
            keeps = self._parser.should_keep_alive()
            self._reply.set_result(Reply(self._parser.get_status_code(), b"".join(self._body), keeps))

    def _fail(self, exc: Exception) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(exc)
