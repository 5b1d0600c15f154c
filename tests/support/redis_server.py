"""Starts a real Redis."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import redis

from tests.support.tools import need

IN_MEMORY = ("--save", "")


def on_disk(folder: Path) -> tuple[str, ...]:
    """Options for a Redis that keeps everything in a folder, as jobs need it."""
    return ("--dir", str(folder), "--save", "", "--appendonly", "yes", "--appendfsync", "always")


@contextmanager
def redis_server(port: int, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Redis on a port of the loopback interface; without options it stores nothing on disk."""
    need("redis-server", package="redis-server")
    address = ("--port", str(port), "--bind", "127.0.0.1", "--loglevel", "warning")
    with (
        subprocess.Popen(["redis-server", *address, *(options or IN_MEMORY)]) as process,
        redis.Redis(port=port) as client,
    ):
        try:
            while True:
                with suppress(redis.ConnectionError):
                    client.ping()
                    break
                assert process.poll() is None
                time.sleep(0.01)
            yield process
        finally:
            process.terminate()
