"""The health check of containers finds the port of the service and reports whether it is ready."""

from __future__ import annotations

import urllib.error
from pathlib import Path

import httpx
import pytest

from benchmarks.common.service_process import free_port
from service import health_check
from tests.support.server import RunningServer


@pytest.mark.parametrize(
    ("command_line", "port"),
    [
        (b"/opt/blvnet/bin/python3\0/opt/blvnet/bin/blvnet\0serve\0", "8100"),
        (b"blvnet\0serve\0--host\0::\0--port\09000\0--metrics-port\09001\0", "9000"),
        (b"blvnet\0serve\0--metrics-port\09001\0--port=9000\0", "9000"),
        (b"/usr/bin/catatonit\0--\0blvnet\0serve\0--port\09000\0", "9000"),
        (b"sh\0-c\0blvnet serve --port 9000\0", "9000"),
        (b"blvnet\0serve\0--metrics-port\09001\0", "8100"),
    ],
)
def test_port_is_that_of_the_option_or_of_the_variable(
    monkeypatch: pytest.MonkeyPatch, command_line: bytes, port: str
) -> None:
    monkeypatch.setenv("BLVNET_PORT", "8100")
    assert health_check.port(command_line) == port


def test_check_passes_only_while_a_service_is_ready(
    monkeypatch: pytest.MonkeyPatch, server: RunningServer, tmp_path: Path
) -> None:
    monkeypatch.setattr(health_check, "COMMAND_LINE", path := tmp_path / "cmdline")
    path.write_bytes(b"blvnet\0serve\0--port\0%d\0" % (httpx.URL(server.url).port or 0))
    health_check.main()
    path.write_bytes(b"blvnet\0serve\0--port\0%d\0" % free_port())
    with pytest.raises(urllib.error.URLError):
        health_check.main()
