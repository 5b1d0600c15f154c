"""A TCP proxy that cuts connections after some bytes, as broken networks and restarting balancers do."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

PIECE_BYTES = 4096


@dataclass
class Cut:
    """The bytes of the request or of the answer after which a connection is cut; None for never."""

    request_bytes: int | None = None
    answer_bytes: int | None = None


@dataclass
class CuttingProxy:
    """Forwards connections to `target`; `cuts` is for the next ones, in order; later ones are never cut."""

    target: tuple[str, int]
    cuts: list[Cut] = field(default_factory=list)
    connections: int = 0
    url: str = ""

    def serve(self, listener: socket.socket) -> None:
        """Accept connections until the listener is closed."""
        with suppress(OSError):
            while True:
                caller, _ = listener.accept()
                self.connections += 1
                cut = self.cuts.pop(0) if self.cuts else Cut()
                threading.Thread(target=relay, args=(caller, self.target, cut)).start()


def relay(caller: socket.socket, target: tuple[str, int], cut: Cut) -> None:
    """Forward one connection in both directions until it ends or is cut."""
    with caller, socket.create_connection(target) as server:
        back = threading.Thread(target=forward, args=(server, caller, cut.answer_bytes))
        back.start()
        forward(caller, server, cut.request_bytes)
        back.join()


def forward(source: socket.socket, sink: socket.socket, limit: int | None) -> None:
    """Copy one direction; at the limit, or at its end, shut both sockets down."""
    sent = 0
    with suppress(OSError):
        while data := source.recv(PIECE_BYTES):
            if limit is not None and sent + len(data) >= limit:
                sink.sendall(data[: limit - sent])
                break
            sink.sendall(data)
            sent += len(data)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@contextmanager
def cutting_proxy(url: str) -> Iterator[CuttingProxy]:
    """A proxy in front of the server at `url`."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    proxy = CuttingProxy((parts.hostname, parts.port))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=proxy.serve, args=(listener,))
        thread.start()
        try:
            yield proxy
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
