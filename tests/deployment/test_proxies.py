"""Real proxies, with the project's configuration, in front of real replicas."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from benchmarks.common.service_process import free_ports
from tests.support.observability import ROOT
from tests.support.server import RunningServer, running_server
from tests.support.tiny_models import TinyModel, write_package
from tests.support.tools import need

HAPROXY = ROOT / "docker/haproxy/haproxy.cfg"
DELAY_S = 3
# Long enough for several requests in progress at each replica.
WORK = 400


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    write_package(models, model=TinyModel(work=WORK))
    return models


@contextmanager
def haproxy(port: int, ports: list[int], folder: Path) -> Iterator[tuple[str, Path]]:
    """HAProxy with fixed servers instead of names from DNS; yields its URL and its log."""
    need("haproxy", package="haproxy")
    text = HAPROXY.read_text()
    servers = "\n".join(f"  server replica{port} 127.0.0.1:{port}" for port in ports)
    text, replaced = re.subn(r"^  server-template .*$", servers, text, flags=re.MULTILINE)
    text, unresolved = re.subn(r"^resolvers .*\n(  .*\n)+", "", text, flags=re.MULTILINE)
    text, without_metrics = re.subn(r"^frontend metrics\n(  .*\n)+", "", text, flags=re.MULTILINE)
    text, bound = re.subn(r"bind :8000", f"bind 127.0.0.1:{port}", text)
    assert replaced == unresolved == without_metrics == bound == 1
    (folder / "haproxy.cfg").write_text(text)
    with (
        (folder / "haproxy.log").open("w") as log,
        proxy(["haproxy", "-db", "-f", folder / "haproxy.cfg"], log),
    ):
        yield f"http://127.0.0.1:{port}", folder / "haproxy.log"


@contextmanager
def nginx(port: int, ports: list[int], folder: Path) -> Iterator[str]:
    """Nginx with the configuration that docs/deployment.md shows."""
    need("nginx", package="nginx-light")
    [snippet] = re.findall(r"```nginx\n(.*?)```", (ROOT / "docs/deployment.md").read_text(), re.DOTALL)
    servers = " ".join(f"server 127.0.0.1:{port} max_fails=0;" for port in ports)
    snippet, replaced = re.subn(r"(?:server \S+ max_fails=0;\s*)+", servers, snippet)
    snippet, bound = re.subn(r"listen \d+;", f"listen 127.0.0.1:{port};", snippet)
    assert replaced == bound == 1
    paths = "".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{ access_log off; {paths}\n{snippet} }}\n"
    )
    with (folder / "nginx.out").open("w") as log, proxy(["nginx", "-c", folder / "nginx.conf"], log):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def proxy(command: list[str | Path], log: object) -> Iterator[None]:
    with subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as process:  # type: ignore[call-overload]
        try:
            yield
        finally:
            process.terminate()


class Callers:
    """Threads that post a video again and again, each through one of several addresses."""

    def __init__(self, urls: list[str], clip: bytes) -> None:
        self.answers = Counter[tuple[str, str]]()
        self._clip = clip
        self._stop = threading.Event()
        self._urls = set(urls)
        self._threads = [threading.Thread(target=self._post, args=(url,)) for url in urls]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def at_least(self, count: int) -> None:
        """Wait for this many more answers of each address."""
        goal = {url: total + count for url, total in self._totals().items()}
        while any(self._totals()[url] < wanted for url, wanted in goal.items()):
            time.sleep(0.02)

    def _totals(self) -> Counter[str]:
        totals = Counter(dict.fromkeys(self._urls, 0))
        for (url, _), count in list(self.answers.items()):
            totals[url] += count
        return totals

    def _post(self, url: str) -> None:
        with httpx.Client(base_url=url, timeout=60, verify=False) as client:
            while not self._stop.is_set():
                try:
                    answer = client.post("/v1/classify", content=self._clip)
                    status = "200" if answer.is_success else answer.text
                except httpx.HTTPError as exc:
                    status = repr(exc)
                self.answers[url, status] += 1


def wait_until_up(url: str) -> None:
    """Wait until a proxy has found a replica that is ready."""
    with httpx.Client(base_url=url, verify=False) as client:
        for _ in range(600):
            try:
                if client.get("/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
    raise AssertionError(f"{url} has no replica")


def test_metrics_are_not_reachable_through_a_proxy(models: Path, tmp_path: Path) -> None:
    haproxy_port, nginx_port, port = free_ports(3)
    with (
        running_server(models, PORT=port) as replica,
        haproxy(haproxy_port, [port], tmp_path) as (by_haproxy, _),
        nginx(nginx_port, [port], tmp_path) as by_nginx,
    ):
        assert replica.get("/metrics").status_code == 200
        for url in (by_haproxy, by_nginx):
            wait_until_up(url)
            found = {}
            for path in ("/readyz", "/metrics", "/metrics?x", "/%6Detrics", "/%6detric%73?x", "//metrics"):
                connection = http.client.HTTPConnection(url.removeprefix("http://"))
                connection.request("GET", path)  # unlike httpx, it sends the path as it is
                found[path] = connection.getresponse().status
                connection.close()
            assert found == dict.fromkeys(found, 404) | {"/readyz": 200}


def test_rolling_restart_costs_no_request(models: Path, red_clip: bytes, tmp_path: Path) -> None:
    haproxy_port, nginx_port, *ports = free_ports(5)
    (tmp_path / "haproxy").mkdir()
    (tmp_path / "nginx").mkdir()

    def start(port: int) -> RunningServer:
        server = running_server(models, PORT=port, SHUTDOWN_DELAY_S=DELAY_S, LATENCY_TARGET_S=30)
        return stack.enter_context(server)

    with ExitStack() as stack:
        replicas = [start(port) for port in ports]
        by_haproxy, _ = stack.enter_context(haproxy(haproxy_port, ports, tmp_path / "haproxy"))
        by_nginx = stack.enter_context(nginx(nginx_port, ports, tmp_path / "nginx"))
        for url in (by_haproxy, by_nginx):
            wait_until_up(url)
        with Callers([by_haproxy] * 3 + [by_nginx] * 3, red_clip) as callers:
            callers.at_least(3)
            for number, port in enumerate(ports):
                assert replicas[number].stop() == 0
                callers.at_least(2)
                replicas[number] = start(port)
                callers.at_least(3)
        assert set(callers.answers) == {(by_haproxy, "200"), (by_nginx, "200")}
        spread = [
            replica.metric("blvnet_requests_total", route="/v1/classify", code="200") for replica in replicas
        ]
        assert min(spread[:2]) > 0


def test_overload_takes_no_replica_out_of_the_rotation(models: Path, red_clip: bytes, tmp_path: Path) -> None:
    proxy_port, *ports = free_ports(4)
    with ExitStack() as stack:
        for port in ports:
            stack.enter_context(running_server(models, PORT=port, QUEUE_LIMIT=1))
        url, log = stack.enter_context(haproxy(proxy_port, ports, tmp_path))
        wait_until_up(url)
        with Callers([url] * 12, red_clip) as callers:
            callers.at_least(300)
        problems = {json.loads(answer)["code"] for _, answer in callers.answers if answer != "200"}
        assert problems == {"overloaded"}
        assert log.read_text().count(" is DOWN") == 0
