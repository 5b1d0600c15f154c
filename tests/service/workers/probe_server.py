"""A fork server whose workers run code inside the sandbox instead of decoding.

python -m tests.service.workers.probe_server CONTROL_DESCRIPTOR
"""

from __future__ import annotations

import socket
from typing import Any

from service.workers import decode_worker, fork_server
from service.workers.messages import DecodeFailure, Ready, encode

MAX_SOURCE_BYTES = 10_000


def run_code(channel: socket.socket, memory_mb: int) -> None:
    """Enter the sandbox, then send the repr of `result` after running each received source."""
    from service.workers import sandbox

    channel.send(encode(Ready(sandbox.enter(channel.fileno(), memory_mb))))
    while source := channel.recvmsg(MAX_SOURCE_BYTES)[0]:
        names: dict[str, Any] = {}
        try:
            exec(source, names)
            outcome = repr(names["result"])
        except OSError as exc:
            outcome = repr(type(exc).__name__)
        channel.send(encode(DecodeFailure(outcome)))


if __name__ == "__main__":
    decode_worker.main = run_code
    fork_server.main()
