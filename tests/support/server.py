"""Starts a real `blvnet serve` process on a free port and reads its log."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

Found = TypeVar("Found")

PATIENCE_S = 120.0
POLL_S = 0.01
# One worker and one thread start faster, and the tests share the machine.
SMALL = {
    "PORT": "0",
    "DECODE_WORKERS": "1",
    "INFERENCE_THREADS": "1",
    "LOG_FORMAT": "json",
    "LOG_LEVEL": "debug",
}
SAMPLE = re.compile(r"^(?P<name>\w+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass
class RunningServer:
    """A server process; `log` holds a dict per log line, `{"text": ...}` for lines that are not JSON."""

    process: subprocess.Popen[str]
    reader: threading.Thread = field(init=False)
    log: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reader = threading.Thread(target=self._read_log)
        self.reader.start()

    @property
    def url(self) -> str:
        """The address of the service."""
        return str(self.line(event="listening", server="service")["url"])

    @property
    def metrics_url(self) -> str:
        """The address of the metrics if they use a separate port."""
        return str(self.line(event="listening", server="metrics")["url"])

    def client(self, **options: Any) -> httpx.Client:
        """A client that skips loading certificates, which takes longer than a request."""
        return httpx.Client(base_url=self.url, timeout=PATIENCE_S, verify=False, **options)

    def get(self, path: str) -> httpx.Response:
        """Send a GET request over a new connection."""
        with self.client() as client:
            return client.get(path)

    def post(self, clip: bytes, **parameters: Any) -> httpx.Response:
        """Post a video as the raw body over a new connection."""
        with self.client() as client:
            return client.post("/v1/classify", content=clip, params=parameters)

    def begin_upload(
        self, announced: int, sent: bytes = b"", path: str = "/v1/classify", **headers: str
    ) -> socket.socket:
        """Open a connection that announces `announced` bytes and sends only `sent`."""
        return begin_upload(self.url, announced, sent, path, **headers)

    def is_ready(self) -> bool:
        """Whether `/readyz` returns 200."""
        return self.get("/readyz").is_success

    def lines(self, **fields: Any) -> list[dict[str, Any]]:
        """The log lines so far that have these fields."""
        return [line for line in list(self.log) if fields.items() <= line.items()]

    def line(self, **fields: Any) -> dict[str, Any]:
        """Wait for a log line with these fields and return the first one."""
        return self.wait_for(lambda: self.lines(**fields), f"a log line with {fields}")[0]

    def metric(self, name: str, **labels: str) -> float:
        """The value of a metric by name and labels; 0 if it does not exist."""
        for match in SAMPLE.finditer(self.get("/metrics").text):
            if match["name"] == name and dict(LABEL.findall(match["labels"] or "")) == labels:
                return float(match["value"])
        return 0.0

    def wait_for(self, ask: Callable[[], Found], what: str) -> Found:
        """Poll a condition until it is true; fail if the process ends or the time limit passes."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            ended = self.process.poll() is not None
            if found := ask():
                return found
            if ended:
                break
            time.sleep(POLL_S)
        raise AssertionError(f"no {what}; the log is:\n" + "\n".join(map(str, self.log)))

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait for the process to end, and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for text in self.process.stderr:
            self.log.append(_parsed(text))


@contextmanager
def key_in_use(server: RunningServer, key: str) -> Iterator[socket.socket]:
    """Occupy the only concurrent request of a key until the yielded connection is closed."""
    headers = {"Authorization": f"Bearer {key}"}

    def is_refused() -> bool:
        with server.client(headers=headers) as client:
            return client.post("/v1/classify", content=b"no video").status_code == 429

    with server.begin_upload(1000, b"x", **headers) as connection:
        server.wait_for(is_refused, "refusal of a second request")
        yield connection


def begin_upload(
    server: str, announced: int, sent: bytes = b"", path: str = "/v1/classify", **headers: str
) -> socket.socket:
    """Open a connection that announces `announced` bytes and sends only `sent`."""
    url = httpx.URL(server)
    fields = {"Host": "test", "Content-Type": "video/mp4", "Content-Length": str(announced)} | headers
    head = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    connection = socket.create_connection((url.host, url.port or 80), PATIENCE_S)
    connection.sendall("\r\n".join(head).encode() + sent)
    return connection


def read_response(connection: socket.socket) -> httpx.Response:
    """The complete response on a connection, in however many packets it arrives."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return httpx.Response(response.status, headers=response.getheaders(), content=response.read())


@contextmanager
def starting_server(
    models: Path,
    variables: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
    **settings: object,
) -> Iterator[RunningServer]:
    """Start `blvnet serve` and stop it at the end of the block.

    Args:
        models: folder of packages.
        variables: more environment variables.
        prefix: command that runs the service, such as `setpriv` with its options.
        settings: settings by name, without the prefix.
    """
    command = [*prefix, str(Path(sys.executable).with_name("blvnet")), "serve"]
    environment = server_environment({"MODELS": models} | settings) | dict(variables or {})
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        server = RunningServer(process)
        try:
            yield server
        finally:
            process.terminate()
            _end(process)
            server.reader.join()


@contextmanager
def running_server(
    models: Path,
    variables: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
    **settings: object,
) -> Iterator[RunningServer]:
    """Like `starting_server`, but wait until the server is ready."""
    with starting_server(models, variables, prefix, **settings) as server:
        server.wait_for(server.is_ready, "readiness")
        yield server


def server_environment(settings: Mapping[str, object]) -> dict[str, str]:
    """This process's environment with these settings only."""
    return clean_environment() | {
        f"BLVNET_{name}": str(value) for name, value in (SMALL | dict(settings)).items()
    }


def clean_environment() -> dict[str, str]:
    """This process's environment without settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("BLVNET_")}


def _end(process: subprocess.Popen[str]) -> None:
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


def _parsed(text: str) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except ValueError:
        return {"text": text.rstrip("\n")}
    return line if isinstance(line, dict) else {"text": text}
