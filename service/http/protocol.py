"""HTTP/1.1 on one connection, as uvicorn reads it with h11, but not for ever.

Uvicorn closes a connection that says nothing after an answer. One that says nothing at all, or a byte of a
head a minute, it keeps: a few thousand of them use up the descriptors of the process. What comes behind the
head has its own bound, where it is read.

h11 and not httptools, which is faster: httptools drops the body of a request that also asks for
HTTP/2 (`Upgrade: h2c`), as Java's client and `curl --http2` do of their own accord, and takes a head of any
size; with h11 a head has at most 64 KB.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

# From the start of a connection, or of a head on one that is kept, to the end of that head.
LONGEST_HEAD_S = 30.0
REFUSAL = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class BoundedProtocol(H11Protocol):
    """Waits `LONGEST_HEAD_S` seconds for a head, then refuses it with 408; see the module."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        """It is open."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is closed."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some bytes, which may begin a head, end one, or both."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_waiting()
        elif self._patience is None:
            self._expect_head()

    def _expect_head(self) -> None:
        self._patience = self.loop.call_later(LONGEST_HEAD_S, self._wait_no_longer)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _wait_no_longer(self) -> None:
        if self.transport.is_closing():
            return
        has_begun, _ = self.conn.trailing_data
        if has_begun:  # and if not, an answer would answer nothing: browsers open connections in advance
            self.transport.write(REFUSAL)
        self.transport.close()
