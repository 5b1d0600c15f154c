"""Starts the application in a local Ray cluster with `serve run`."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import httpx
import yaml

from benchmarks.common.service_process import free_port
from tests.support.processes import alive, command, descendants, links_of
from tests.support.server import PATIENCE_S, clean_environment

Found = TypeVar("Found")

EXAMPLE = Path(__file__).parents[2] / "docker/ray/serve.yaml"
POLL_S = 0.1
INTERRUPTIBLE = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


@dataclass
class Cluster:
    """A running `serve run` of the example with tiny models; `config` holds its arguments."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path
    folder: Path
    home: Path
    config: dict[str, Any]
    token: str

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=PATIENCE_S, verify=False)

    def post(self, clip: bytes) -> httpx.Response:
        with self.client() as client:
            return client.post("/v1/classify", content=clip)

    def wait_for(self, ask: Callable[[], Found], what: str) -> Found:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if found := ask():
                return found
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(POLL_S)
        raise AssertionError(f"no {what}; the log is:\n{self.log.read_text()}")

    def is_ready(self) -> bool:
        try:
            with self.client() as client:
                return client.get("/readyz").is_success
        except httpx.TransportError:
            return False

    def replicas(self) -> set[int]:
        """Process ids of the replicas."""
        return {pid for pid in descendants(self.process.pid) if command(pid).startswith("ray::ServeReplica")}

    def spooled(self) -> int:
        """Unnamed upload files of the replicas."""
        links = [links_of(pid) for pid in self.replicas()]
        return sum(
            link.startswith(f"{self.folder}/") and link.endswith("(deleted)") for link in chain(*links)
        )

    def deploy(self, **arguments: Any) -> None:
        """Redeploy the running application with these arguments."""
        [application] = self.config["applications"]
        application["args"] |= arguments
        dashboard = re.findall(r"dashboard at .*?(http://[\d.:]+)", self.log.read_text())[0]
        with httpx.Client(timeout=PATIENCE_S, verify=False) as client:
            answer = client.put(
                f"{dashboard}/api/serve/applications/",
                json=self.config,
                headers={"Authorization": f"Bearer {self.token}"},
            )
        assert answer.is_success, answer.text

    def metrics(self) -> str:
        """The metrics page of Ray's agent."""
        [found] = self.folder.glob("ray/prom_metrics_service_discovery.json")
        [group] = json.loads(found.read_text())
        with httpx.Client(timeout=PATIENCE_S, verify=False) as client:
            return "".join(client.get(f"http://{target}/metrics").text for target in group["targets"])

    def samples(self, *parts: str) -> list[float]:
        """Values of all series whose line contains these parts, one per replica."""
        lines = self.metrics().splitlines()
        return [float(line.rpartition(" ")[2]) for line in lines if all(part in line for part in parts)]


@contextmanager
def serving(files: Path, **arguments: Any) -> Iterator[Cluster]:
    """Start the example and wait until it is ready; `files` is an empty folder."""
    config = yaml.safe_load(EXAMPLE.read_text())
    port = free_port()
    config["http_options"] = {"host": "127.0.0.1", "port": port}
    [application] = config["applications"]
    application["args"] |= arguments
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # for sockets, whose paths must be short
    home = files / "home"
    home.mkdir()
    (files / "serve.yaml").write_text(yaml.safe_dump(config))
    token = secrets.token_hex(32)
    environment = clean_environment() | {
        "RAY_USAGE_STATS_ENABLED": "0",
        "HOME": str(home),
        "RAY_TMPDIR": str(folder),
        "TMPDIR": str(folder),
        "RAY_AUTH_MODE": "token",  # otherwise it is written to the home folder
        "RAY_AUTH_TOKEN": token,
        "RAY_metrics_report_interval_ms": "4000",
        "RAY_COLOR_PREFIX": "0",
        "RAY_DEDUP_LOGS": "0",
    }
    serve = [str(Path(sys.executable).with_name("serve")), "run", str(files / "serve.yaml")]
    log = files / "log"
    with log.open("wb") as out, ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        process = subprocess.Popen(
            # Children of a background shell ignore SIGINT.
            [sys.executable, "-c", INTERRUPTIBLE, *serve],
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        stack.callback(end, process)
        running = Cluster(process, f"http://127.0.0.1:{port}", log, folder, home, config, token)
        running.wait_for(running.is_ready, "readiness")
        running.wait_for(lambda: len(running.replicas()) == 2, "second replica")
        yield running


def end(process: subprocess.Popen[bytes]) -> None:
    """Stop the application like Ctrl-C, and kill the remaining processes."""
    family = descendants(process.pid)
    process.send_signal(signal.SIGINT)
    try:
        process.wait(PATIENCE_S)
    finally:
        for pid in alive(family):
            os.kill(pid, signal.SIGKILL)
