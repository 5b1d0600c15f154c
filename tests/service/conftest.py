"""Fixtures for all of the service's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.common.service_process import free_port
from tests.support.redis_server import redis_server


@pytest.fixture
def anyio_backend() -> str:
    """Tests marked `anyio` run on asyncio, as the service does."""
    return "asyncio"


@pytest.fixture(scope="session")
def redis_address() -> Iterator[str]:
    """A Redis for tests, which use different databases; it stores nothing on disk."""
    port = free_port()
    with redis_server(port):
        yield f"redis://127.0.0.1:{port}"
