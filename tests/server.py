"""A real `blvnet serve` process on a real free port, and what it logs."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

Found = TypeVar("Found")

PATIENCE_S = 120.0
POLL_S = 0.01
# One worker and one thread start sooner, and the tests share the machine.
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
    """A server process; `log` has a dict for each line that it wrote, `{"text": ...}` if it is no JSON."""

    process: subprocess.Popen[str]
    reader: threading.Thread = field(init=False)
    log: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reader = threading.Thread(target=self._read_log)
        self.reader.start()

    @property
    def url(self) -> str:
        """Where the service listens."""
        return str(self.line(event="listening", server="service")["url"])

    @property
    def metrics_url(self) -> str:
        """Where the metrics are, if they have a port of their own."""
        return str(self.line(event="listening", server="metrics")["url"])

    def client(self, **options: Any) -> httpx.Client:
        """A client of the service; without certificates, which take longer to read than a clip to label."""
        return httpx.Client(base_url=self.url, timeout=PATIENCE_S, verify=False, **options)

    def get(self, path: str) -> httpx.Response:
        """Get one answer, on a connection of its own."""
        with self.client() as client:
            return client.get(path)

    def post(self, clip: bytes, **parameters: Any) -> httpx.Response:
        """Post a clip as the raw body, on a connection of its own."""
        with self.client() as client:
            return client.post("/v1/classify", content=clip, params=parameters)

    def begin_upload(self, announced: int, sent: bytes = b"", **headers: str) -> socket.socket:
        """A connection on which a clip of `announced` bytes begins, and stops after `sent`."""
        return begin_upload(self.url, announced, sent, **headers)

    def is_ready(self) -> bool:
        """Whether the service says so."""
        return self.get("/readyz").is_success

    def lines(self, **fields: Any) -> list[dict[str, Any]]:
        """The log lines up to now that have these fields."""
        return [line for line in list(self.log) if fields.items() <= line.items()]

    def line(self, **fields: Any) -> dict[str, Any]:
        """The first log line with these fields, as soon as it is there."""
        return self.wait_for(lambda: self.lines(**fields), f"a log line with {fields}")[0]

    def metric(self, name: str, **labels: str) -> float:
        """A sample of /metrics by its name and labels; 0 if there is none."""
        for match in SAMPLE.finditer(self.get("/metrics").text):
            if match["name"] == name and dict(LABEL.findall(match["labels"] or "")) == labels:
                return float(match["value"])
        return 0.0

    def wait_for(self, ask: Callable[[], Found], what: str) -> Found:
        """Ask again and again until the answer is true; fail when the process ends or it takes too long."""
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
        """Send a signal, wait for the end, and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for text in self.process.stderr:
            self.log.append(_parsed(text))


def begin_upload(server: str, announced: int, sent: bytes = b"", **headers: str) -> socket.socket:
    """A connection to a server on which a clip of `announced` bytes begins, and stops after `sent`."""
    url = httpx.URL(server)
    fields = {"Host": "test", "Content-Type": "video/mp4", "Content-Length": str(announced)} | headers
    head = ["POST /v1/classify HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    connection = socket.create_connection((url.host, url.port or 80), PATIENCE_S)
    connection.sendall("\r\n".join(head).encode() + sent)
    return connection


@contextmanager
def starting_server(
    models: Path, variables: Mapping[str, str] | None = None, **settings: object
) -> Iterator[RunningServer]:
    """Start `blvnet serve`, and stop it at the end.

    Args:
        models: folder of packages.
        variables: more environment variables.
        settings: by their names without the prefix.
    """
    command = [str(Path(sys.executable).with_name("blvnet")), "serve"]
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
    models: Path, variables: Mapping[str, str] | None = None, **settings: object
) -> Iterator[RunningServer]:
    """`starting_server`, once it is ready."""
    with starting_server(models, variables, **settings) as server:
        server.wait_for(server.is_ready, "readiness")
        yield server


def server_environment(settings: Mapping[str, object]) -> dict[str, str]:
    """This process's environment, with these settings and no others."""
    return clean_environment() | {
        f"BLVNET_{name}": str(value) for name, value in (SMALL | dict(settings)).items()
    }


def clean_environment() -> dict[str, str]:
    """This process's environment without any setting."""
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
