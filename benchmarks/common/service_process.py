"""Starts a `blvnet serve` process for a benchmark, and posts clips to it."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

START_LIMIT_S = 120.0
STOP_LIMIT_S = 60.0
LOWEST_PORT = 20_000  # above the ports of Ray's workers
MAKE_SERVE = {
    "BLVNET_PROVIDER": "cpu"
}  # `make serve` installs no other engine; the development environment has OpenVINO too
POLL_S = 0.005  # well below the shortest start time


class ServiceFailed(RuntimeError):
    """The service did not become ready, or answered a valid clip with an error."""


@dataclass(frozen=True)
class ServiceProcess:
    """A running service; `ready_s` is the time from process start to readiness."""

    url: str
    pid: int
    started: float  # time.monotonic() when the process was started
    ready_s: float


@contextmanager
def service(
    models: Path | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[ServiceProcess]:
    """Start `blvnet serve` on a free port, wait until it is ready, and stop it at the end.

    Args:
        models: folder with model packages. By default the bundled demo model, on onnxruntime unless
            BLVNET_PROVIDER is set, as with `make serve`.
        environment: settings (`BLVNET_...`) that override this process's environment.

    Raises:
        ServiceFailed: it does not become ready, or does not exit with status 0.
    """
    port = free_port()
    command = [str(Path(sys.executable).with_name("blvnet")), "serve", "--port", str(port)]
    command += [] if models is None else ["--models", str(models)]
    settings = os.environ | {"BLVNET_LOG_LEVEL": "warning"} | dict(environment or {})
    started = time.monotonic()
    with subprocess.Popen(command, env=(MAKE_SERVE if models is None else {}) | settings) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_ready(url, process, started + START_LIMIT_S)
            yield ServiceProcess(url, process.pid, started, time.monotonic() - started)
        finally:
            process.terminate()
            process.wait(STOP_LIMIT_S)
    if process.returncode != 0:
        raise ServiceFailed(f"blvnet serve exited with status {process.returncode}")


def client(url: str) -> httpx.Client:
    """A client for a local service. It skips loading certificates, which takes longer than a request."""
    return httpx.Client(base_url=url, timeout=60, verify=False)


def free_port() -> int:
    """A free port of 127.0.0.1, outside the range from which the system takes ports of other connections."""
    [port] = free_ports(1)
    return port


def free_ports(count: int) -> list[int]:
    """Different ports as `free_port` chooses them."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found: list[int] = []
    with ExitStack() as held:
        while len(found) < count:
            port = random.SystemRandom().randrange(LOWEST_PORT, max(first, LOWEST_PORT + 10_000))
            with suppress(OSError):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
                found.append(port)
    return found


def classify(http: httpx.Client, clip: bytes, **query: str | int) -> dict[str, Any]:
    """Post a clip as the raw body and return the JSON document.

    Raises:
        ServiceFailed: the status is not 200.
    """
    headers = {"Content-Type": "application/octet-stream"}
    answer = http.post("/v1/classify", content=clip, headers=headers, params=query)
    if answer.status_code != httpx.codes.OK:
        raise ServiceFailed(f"{answer.status_code}: {answer.text}")
    document: dict[str, Any] = answer.json()
    return document


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], deadline: float) -> None:
    with client(url) as http:
        while not ready(http):
            if process.poll() is not None:
                raise ServiceFailed(f"blvnet serve exited with status {process.returncode}")
            if time.monotonic() > deadline:
                raise ServiceFailed(f"not ready after {START_LIMIT_S:.0f} s")
            time.sleep(POLL_S)


def ready(http: httpx.Client, path: str = "/readyz") -> bool:
    """Whether the service is ready, or another server with a readiness route."""
    try:
        return http.get(path).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False  # not listening yet
