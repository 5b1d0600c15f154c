"""HTTP/1.1 connections: uvicorn's h11 protocol, with limits on what a client can hold open.

h11 is used although httptools is faster. httptools drops the body of a request that offers an upgrade to
HTTP/2 (`Upgrade: h2c`), as Java's client and `curl --http2` do by default, and does not limit the size of
heads.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

import h11
from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

# From the start of a connection, or of a later request on it, to the end of the request's head.
HEAD_TIMEOUT_S = 30.0
MAX_HEAD_BYTES = 65_536
# Interval of checks for a full close, after the client has closed its sending side.
HALF_CLOSED_POLL_S = 0.25
REQUEST_TIMEOUT = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
TRANSPORT = "blvnet.transport"

logger = logging.getLogger(__name__)


def abort_connection(scope: Scope) -> None:
    """Close the connection of a request at once and discard unsent data; no-op under other servers."""
    transport = scope.get("state", {}).get(TRANSPORT)
    if transport is not None:
        transport.abort()


class StrictConnection(h11.Connection):
    """h11's parser, with two checks that h11 leaves to the caller."""

    def next_event(self) -> Any:
        """Return the next event.

        Raises:
            h11.RemoteProtocolError: also for a head above `MAX_HEAD_BYTES`, and for a request with both
                Content-Length and Transfer-Encoding, which proxies may delimit differently (RFC 9112, 6.1).
        """
        before = len(self.trailing_data[0]) if self.their_state is h11.IDLE else 0
        event = super().next_event()
        if isinstance(event, h11.Request):
            # h11 only limits incomplete heads, so it accepts a large head that arrives in one read.
            if before > MAX_HEAD_BYTES and before - len(self.trailing_data[0]) > MAX_HEAD_BYTES:
                raise h11.RemoteProtocolError("The request head is too large.", error_status_hint=431)
            if {b"content-length", b"transfer-encoding"} <= {name for name, _ in event.headers}:
                raise h11.RemoteProtocolError("Content-Length and Transfer-Encoding exclude each other.")
        return event


class BoundedProtocol(H11Protocol):
    """Connection with a timeout for request heads, and support for clients that half-close early."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn = StrictConnection(h11.SERVER, MAX_HEAD_BYTES)
        self._head_timer: asyncio.TimerHandle | None = None
        self._half_closed_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # like uvicorn
        """Start the timeout for the first head."""
        super().connection_made(transport)
        # uvicorn copies this dict into the scope of each request.
        self.app_state = self.app_state | {TRANSPORT: transport}
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        self._stop_head_timer()
        if self._half_closed_timer is not None:
            self._half_closed_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse the data; the head timeout runs while no request is in progress."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_head_timer()
        elif self._head_timer is None:
            self._start_head_timer()

    def eof_received(self) -> bool:  # type: ignore[override] # uvicorn always closes
        """Keep the connection for the answer if the client has sent a whole request.

        A client that closes the connection completely looks the same at first. An interim response
        distinguishes the two: a closed socket answers it with a reset.
        """
        cycle = self.cycle
        if cycle is None or cycle.response_complete or cycle.more_body:
            return False
        cycle.keep_alive = False
        if not cycle.response_started and self.conn.their_http_version == b"1.1":
            interim = h11.InformationalResponse(status_code=100, headers=[], reason="Continue")
            self.transport.write(self.conn.send(interim))
        self._poll_half_closed()
        return True

    def _poll_half_closed(self) -> None:
        """Abort the connection after a reset; the transport no longer reads, so it would not notice one."""
        sock = self.transport.get_extra_info("socket")
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
        elif not self.transport.is_closing():
            self._half_closed_timer = self.loop.call_later(HALF_CLOSED_POLL_S, self._poll_half_closed)

    def _unsupported_upgrade_warning(self) -> None:
        """Replace uvicorn's advice to install a WebSocket library."""
        logger.debug("upgrade offer ignored")

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._head_timed_out)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_timed_out(self) -> None:
        if self.transport.is_closing():
            return
        # Browsers open connections in advance and send nothing; these are closed without an answer.
        received, _ = self.conn.trailing_data
        if received:
            self.transport.write(REQUEST_TIMEOUT)
        self.transport.close()
