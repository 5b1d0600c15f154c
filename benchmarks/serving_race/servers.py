"""The compared servers, how to start them, and the environment of the peers."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from benchmarks.common import service_process as serving

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "benchmarks" / "serving_race" / "peers" / "requirements.txt"
START_LIMIT_S = 60.0
STOP_LIMIT_S = 5.0
POLL_S = 0.005
WORKERS = 2
LIMITED = ", limit"  # name suffix of a peer with a queue limit


class PeerFailed(RuntimeError):
    """A peer or its environment could not be prepared."""


@dataclass(frozen=True)
class Server:
    """A server to measure.

    Attributes:
        name: its name in the tables.
        route: path that clips are posted to.
        health: path of its readiness check (peers only).
        arguments: Python arguments for a given port (peers only).
        threads: onnxruntime threads per worker; None leaves the default.
        settings: environment variables (our service only).
        limited: whether the peer's own queue limit is set.
    """

    name: str
    route: str
    health: str = "/health"
    arguments: Callable[[int], list[str]] | None = None
    threads: int | None = None
    settings: dict[str, str] = field(default_factory=dict)
    limited: bool = False

    @property
    def ours(self) -> bool:
        """Whether this is our service."""
        return self.arguments is None


@dataclass(frozen=True)
class Running:
    """A server that is ready."""

    url: str
    pid: int
    started: float
    ready_s: float


def ours() -> list[Server]:
    """Our service with its defaults, and with the engine that the peers use."""
    route = "/v1/classify"
    return [
        Server("ours", route),
        Server("ours, onnxruntime", route, settings={"BLVNET_PROVIDER": "cpu"}),
    ]


def peers(limit: int) -> list[Server]:
    """Each peer as its documentation recommends, and again with its own queue limit if it has one."""
    return [
        Server("FastAPI", "/classify", arguments=_uvicorn()),
        Server("FastAPI" + LIMITED, "/classify", arguments=_uvicorn(limit=limit), limited=True),
        Server("FastAPI, 2 workers", "/classify", arguments=_uvicorn(WORKERS), threads=1),
        Server(
            "FastAPI, 2 workers" + LIMITED,
            "/classify",
            arguments=_uvicorn(WORKERS, limit),
            threads=1,
            limited=True,
        ),
        Server("LitServe", "/predict", arguments=_module("litserve_app"), threads=1),
        Server("mosec", "/inference", "/", _module("mosec_app", "--address", "127.0.0.1", "--port"), 1),
        Server(
            "mosec" + LIMITED,
            "/inference",
            "/",
            _module("mosec_app", "--capacity", str(limit), "--address", "127.0.0.1", "--port"),
            1,
            limited=True,
        ),
    ]


@contextmanager
def running(server: Server, package: Path, python: Path, cache: Path) -> Iterator[Running]:
    """Start a server with a package, wait until it is ready, and stop all its processes at the end.

    Args:
        server: the server to start.
        package: folder `MODELS/NAME/VERSION`.
        python: the interpreter of the peers' environment.
        cache: cache folder of our service, so that it measures the engines only once.

    Raises:
        PeerFailed, serving.ServiceFailed: the server did not become ready.
    """
    if server.ours:
        environment = {"BLVNET_CACHE_DIR": str(cache), **server.settings}
        with serving.service(package.parents[1], environment) as service:
            yield Running(service.url, service.pid, service.started, service.ready_s)
    else:
        with _peer(server, package, python) as peer:
            yield peer


def environment(cache: Path, say: Callable[[str], object]) -> Path:
    """The interpreter of the peers' environment below `cache`; creates the environment if necessary.

    Raises:
        PeerFailed: pip could not install the packages.
    """
    pins = [REQUIREMENTS, ROOT / "constraints.txt"]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in pins) + sys.version.encode()).hexdigest()
    folder = cache / f"peers-{digest[:12]}"
    python, done = folder / "bin" / "python", folder / "installed"
    if not done.exists():
        say(f"installing the peers into {folder}")
        venv.create(folder, clear=True, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        command = [*pip, "--requirement", str(pins[0]), "--constraint", str(pins[1])]
        pip_run = subprocess.run(command, check=False, capture_output=True)
        if pip_run.returncode:
            raise PeerFailed(f"pip could not install the peers: {_last_line(pip_run.stderr)}")
        done.touch()
    return python


def peer_environment(package: Path, threads: int | None) -> dict[str, str]:
    """Environment variables of a peer process."""
    names = {"PYTHONPATH": str(ROOT), "RACE_PACKAGE": str(package), "RACE_THREADS": str(threads or "")}
    return os.environ | names


@contextmanager
def _peer(server: Server, package: Path, python: Path) -> Iterator[Running]:
    assert server.arguments is not None
    port = serving.free_port()
    with tempfile.TemporaryFile() as log:
        started = time.monotonic()
        process = subprocess.Popen(
            [str(python), *server.arguments(port)],
            env=peer_environment(package, server.threads),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            if not _ready(url + server.health, process, started + START_LIMIT_S):
                log.seek(0)
                raise PeerFailed(f"{server.name} did not start: {_last_line(log.read())}")
            yield Running(url, process.pid, started, time.monotonic() - started)
        finally:
            _stop(process)


def _ready(url: str, process: subprocess.Popen[bytes], deadline: float) -> bool:
    with httpx.Client(verify=False, trust_env=False) as http:
        while process.poll() is None and time.monotonic() < deadline:
            try:
                if http.get(url).is_success:
                    return True
            except httpx.TransportError:
                pass  # not listening yet
            time.sleep(POLL_S)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Terminate the process, then kill the remaining processes of its session."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_LIMIT_S)
    with suppress(ProcessLookupError):  # the session has no processes left
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_line(log: bytes) -> str:
    lines = log.decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output")


def _uvicorn(workers: int | None = None, limit: int | None = None) -> Callable[[int], list[str]]:
    command = ["-m", "uvicorn", "benchmarks.serving_race.peers.fastapi_app:app", "--log-level", "warning"]
    command += ["--workers", str(workers)] if workers else []
    command += ["--limit-concurrency", str(limit)] if limit else []
    return lambda port: [*command, "--port", str(port)]


def _module(name: str, *options: str) -> Callable[[int], list[str]]:
    return lambda port: ["-m", f"benchmarks.serving_race.peers.{name}", *options, str(port)]
