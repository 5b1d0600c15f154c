"""The application in a real Ray: two replicas behind Ray's proxy, on real ports."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
import yaml

from benchmarks.serving import free_port
from service.errors import BlvnetError, NotReady, PackageError
from service.http.app import create_app
from service.http.lifecycle import UPLOADS_PER_PLACE, Lifecycle
from service.runtime.session import InferenceFailed
from service.settings import load_settings
from tests.server import PATIENCE_S, begin_upload, clean_environment

Found = TypeVar("Found")

EXAMPLE = Path(__file__).parents[2] / "docker/ray/serve.yaml"
POLL_S = 0.1
UPLOADS = 6
QUEUE_LIMIT = UPLOADS
MAX_UPLOAD_BYTES = 2_000_000
MORE_THAN_IN_MEMORY = 1_500_000


# --- building, without a Ray ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"port": 9000}, "BLVNET_PORT (port) has no meaning in Ray Serve: use http_options.port"),
        ({"metrics_port": 0}, "use Ray's metrics"),
        ({"admin_key": "secret"}, "use user_config"),
        ({"queue_limit": "many"}, "BLVNET_QUEUE_LIMIT"),
        ({"modles": "/srv"}, "BLVNET_MODLES"),
        ({"num_replicas": "0"}, "num_replicas is '0'"),
        ({"num_cpus": "all"}, "num_cpus is 'all'"),
        ({"num_gpus": -1}, "num_gpus is -1"),
    ],
)
def test_argument_that_means_nothing_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(BlvnetError) as caught:
        built(arguments)
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("arguments", "resources"),
    [
        ({}, {"num_cpus": 1, "num_gpus": 0}),
        ({"num_cpus": "2.5"}, {"num_cpus": 2.5, "num_gpus": 0}),
        ({"provider": "cuda"}, {"num_cpus": 1, "num_gpus": 1}),
        ({"provider": "tensorrt", "num_gpus": "0.5"}, {"num_cpus": 1, "num_gpus": 0.5}),
    ],
)
def test_replica_asks_for_its_cores_and_gpus(arguments: dict[str, Any], resources: dict[str, float]) -> None:
    options = built(arguments).ray_actor_options
    assert {name: options[name] for name in resources} == resources


def test_settings_decide_how_many_requests_ray_sends_and_how_long_it_waits_for_the_end() -> None:
    deployment = built({"queue_limit": "10", "shutdown_grace_s": "7"})
    assert deployment.max_ongoing_requests == 80  # more than are ever accepted, so that we refuse, not Ray
    assert deployment._deployment_config.graceful_shutdown_timeout_s == 17


def test_variables_are_settings_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLVNET_TOP", "typo")  # no setting: a warning in the replica's log
    monkeypatch.setenv("BLVNET_QUEUE_LIMIT", "20")
    from service import ray_app

    deployment = ray_app.app._bound_deployment
    assert deployment.max_ongoing_requests == 160
    assert deployment.init_args == ({"queue_limit": 20},)


@pytest.mark.parametrize(("assigned", "cores"), [({"CPU": 1.0}, 1), ({}, 1), ({"CPU": 10_000.0}, None)])
def test_replica_takes_the_cores_that_it_was_given(assigned: dict[str, float], cores: int | None) -> None:
    from service.pipeline.cores import usable_cores
    from service.ray_app import own_cores

    assert own_cores(assigned) == (cores or usable_cores())


@pytest.mark.parametrize(("assigned", "seen"), [({"GPU": 0.5}, "2"), ({"CPU": 1.0}, ""), ({"GPU": 0.0}, "")])
def test_replica_sees_the_gpus_that_it_was_given(assigned: dict[str, float], seen: str) -> None:
    from service.ray_app import hide_gpus

    environment = {"CUDA_VISIBLE_DEVICES": "2"}
    hide_gpus(assigned, environment)
    assert environment == {"CUDA_VISIBLE_DEVICES": seen}


def built(arguments: dict[str, Any]) -> Any:
    """The deployment that `build` makes."""
    from service.ray_app import build

    return build(arguments)._bound_deployment


# --- what Ray asks of a replica, without a Ray ---


@pytest.mark.anyio
async def test_replica_is_ill_while_inference_fails(
    tiny_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise InferenceFailed("the device is gone")

    async with replica_of(models=tiny_models, self_test_s=0.1) as (replica, service):
        await replica.check_health()
        with monkeypatch.context() as broken:
            broken.setattr(service.recognizer.model("tiny").model.session, "run", fail)
            async with asyncio.timeout(PATIENCE_S):
                while service.health()[0]:
                    await asyncio.sleep(0.01)
            with pytest.raises(NotReady, match="does not answer"):
                await replica.check_health()


@pytest.mark.anyio
async def test_replica_without_models_does_not_start(tmp_path: Path) -> None:
    async with replica_of(models=tmp_path / "none") as (replica, _):
        with pytest.raises(PackageError, match="no such folder"):
            await replica.check_health()


@pytest.mark.anyio
async def test_request_that_the_proxy_has_no_more_of_is_one_of_a_caller_who_has_gone() -> None:
    from ray.exceptions import TaskCancelledError

    from service.ray_app import _BehindProxy

    received: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        received.append(await receive())

    async def receive() -> Any:
        raise TaskCancelledError

    async def send(message: Any) -> None:
        raise AssertionError("nobody is there")

    await _BehindProxy(app)({"type": "http"}, receive, send)
    assert received == [{"type": "http.disconnect"}]


@asynccontextmanager
async def replica_of(**settings: Any) -> AsyncIterator[tuple[Any, Lifecycle]]:
    """A replica in this process, and its service, started."""
    from service.ray_app import Replica

    given = settings | {"decode_workers": 1}
    replica = Replica(given)
    app = create_app(load_settings(given))
    replica._service = app.state.service
    async with app.router.lifespan_context(app):
        yield replica, app.state.service


# --- two replicas in a Ray of their own ---


@dataclass
class Cluster:
    """`serve run` of the example, with tiny models; `config` is what it was started with."""

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
        """Uploads that the replicas keep in files without a name."""
        links = [links_of(pid) for pid in self.replicas()]
        return sum(
            link.startswith(f"{self.folder}/") and link.endswith("(deleted)") for link in chain(*links)
        )

    def deploy(self, **arguments: Any) -> None:
        """Have Ray change the running application to these arguments."""
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
        """What the agent of Ray shows to Prometheus."""
        [found] = self.folder.glob("ray/prom_metrics_service_discovery.json")
        [group] = json.loads(found.read_text())
        with httpx.Client(timeout=PATIENCE_S, verify=False) as client:
            return "".join(client.get(f"http://{target}/metrics").text for target in group["targets"])

    def samples(self, *parts: str) -> list[float]:
        """Values of the series whose line has these parts, one for each replica."""
        lines = self.metrics().splitlines()
        return [float(line.rpartition(" ")[2]) for line in lines if all(part in line for part in parts)]


@pytest.fixture(scope="module")
def cluster(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    config = yaml.safe_load(EXAMPLE.read_text())
    port = free_port()
    config["http_options"] = {"host": "127.0.0.1", "port": port}
    [application] = config["applications"]
    application["args"] |= {
        "num_cpus": 0.5,
        "models": str(tiny_models),
        "max_upload_mb": MAX_UPLOAD_BYTES / 1e6,
        "queue_limit": QUEUE_LIMIT,
    }
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # sockets below it: their paths are short
    files = tmp_path_factory.mktemp("serve")
    home = files / "home"
    home.mkdir()
    (files / "serve.yaml").write_text(yaml.safe_dump(config))
    token = secrets.token_hex(32)
    environment = clean_environment() | {
        "RAY_USAGE_STATS_ENABLED": "0",
        "HOME": str(home),
        "RAY_TMPDIR": str(folder),
        "TMPDIR": str(folder),
        "RAY_AUTH_MODE": "token",  # one of ours: without, it would be written into the home folder
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
            # A shell in the background has its children ignore SIGINT.
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


INTERRUPTIBLE = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


def end(process: subprocess.Popen[bytes]) -> None:
    """As Ctrl-C does; what outlives that is killed."""
    family = descendants(process.pid)
    process.send_signal(signal.SIGINT)
    try:
        process.wait(PATIENCE_S)
    finally:
        for pid in alive(family):
            os.kill(pid, signal.SIGKILL)


def test_clip_is_labelled(cluster: Cluster, red_clip: bytes) -> None:
    answer = cluster.post(red_clip)
    assert answer.status_code == 200
    assert answer.json()["predictions"][0]["label"] == "red"
    assert answer.headers.get_list("x-request-id") == [answer.json()["request_id"]]


def test_bad_clip_is_refused_with_our_problem(cluster: Cluster) -> None:
    answer = cluster.post(b"not a video")
    assert answer.status_code == 415
    assert answer.json()["code"] == "not_a_video"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v1/models", "/metrics", "/v2/health/ready"])
def test_route_answers(cluster: Cluster, path: str) -> None:
    with cluster.client() as client:
        assert client.get(path).status_code == 200


def test_timeline_comes_line_by_line(cluster: Cluster, red_clip: bytes) -> None:
    with cluster.client() as client:
        answer = client.post("/v1/timeline", content=red_clip)
    assert "summary" in json.loads(answer.text.splitlines()[-1])


def test_upload_past_the_limit_is_refused_before_its_end(cluster: Cluster) -> None:
    with begin_upload(cluster.url, 10**9, b"x" * 1000) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_unannounced_upload_past_the_limit_is_refused(cluster: Cluster) -> None:
    with cluster.client() as client:
        answer = client.post("/v1/classify", content=iter([b"x" * MAX_UPLOAD_BYTES, b"x"]))
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_both_replicas_show_in_the_metrics_of_ray(cluster: Cluster, red_clip: bytes) -> None:
    for _ in range(UPLOADS):
        assert cluster.post(red_clip).status_code == 200
    cluster.wait_for(
        lambda: cluster.samples("ray_blvnet_model_info{", 'model="tiny"') == [1, 1], "series of two replicas"
    )
    counted = ("ray_blvnet_requests_total{", 'code="200"', 'route="/v1/classify"')
    cluster.wait_for(lambda: sum(cluster.samples(*counted)) > UPLOADS, "count of requests")


def test_caller_who_hangs_up_is_no_failure(cluster: Cluster) -> None:
    connections = [
        begin_upload(cluster.url, MAX_UPLOAD_BYTES, b"x" * MORE_THAN_IN_MEMORY) for _ in range(UPLOADS)
    ]
    cluster.wait_for(lambda: cluster.spooled() == UPLOADS, "uploads under way")
    for connection in connections:
        connection.close()
    cluster.wait_for(lambda: cluster.spooled() == 0, "end of the uploads")
    cluster.wait_for(lambda: cluster.log.read_text().count('"code": 499') == UPLOADS, "their log lines")
    assert "unexpected error" not in cluster.log.read_text()


def test_refusal_for_want_of_room_is_ours(cluster: Cluster) -> None:
    room = 2 * UPLOADS_PER_PLACE * QUEUE_LIMIT
    with ExitStack() as stack:
        uploads = [stack.enter_context(begin_upload(cluster.url, 1000, b"x")) for _ in range(room + 4)]
        refused = cluster.wait_for(lambda: answered(uploads, least=4), "refusals")
        answers = [connection.recv(2000) for connection in refused]
    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1\r\n" in answer
        assert b'"code":"overloaded"' in answer


def test_changed_user_config_has_every_replica_look_for_new_models(cluster: Cluster) -> None:
    [deployment] = cluster.config["applications"][0]["deployments"]
    deployment["user_config"] = {"models": 2}
    cluster.deploy()
    cluster.wait_for(lambda: cluster.log.read_text().count("models are rescanned") == 2, "two rescans")


def test_killed_replica_takes_its_workers_along_and_the_other_answers(
    cluster: Cluster, red_clip: bytes
) -> None:
    before = cluster.replicas()
    killed = min(before)
    family = descendants(killed)
    os.kill(killed, signal.SIGKILL)
    cluster.wait_for(lambda: not alive(family), "end of the family")
    cluster.wait_for(lambda: cluster.post(red_clip).status_code == 200, "answer of the other")
    cluster.wait_for(lambda: len(cluster.replicas() - {killed}) == 2, "new replica")


def test_replica_that_is_ended_answers_what_it_has(cluster: Cluster, red_clip: bytes) -> None:
    cluster.wait_for(cluster.is_ready, "readiness")
    before = cluster.replicas()
    with ExitStack() as stack:
        uploads = [
            stack.enter_context(begin_upload(cluster.url, len(red_clip), red_clip[:100]))
            for _ in range(UPLOADS)
        ]
        cluster.deploy(num_replicas=1)
        cluster.wait_for(lambda: "Removing 1 replica" in cluster.log.read_text(), "end of a replica")
        for connection in uploads:
            connection.sendall(red_clip[100:])
        answers = [connection.recv(100)[:15] for connection in uploads]
    assert answers == [b"HTTP/1.1 200 OK"] * UPLOADS
    cluster.wait_for(lambda: len(cluster.replicas()) == 1, "only one replica")
    assert cluster.replicas() < before


def test_end_leaves_no_process_and_nothing_at_home(cluster: Cluster) -> None:
    family = descendants(cluster.process.pid)
    cluster.process.send_signal(signal.SIGINT)
    cluster.process.wait(PATIENCE_S)
    deadline = time.monotonic() + 10
    while alive(family) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    assert [command(pid) for pid in alive(family)] == []
    assert list(cluster.home.iterdir()) == []


def answered(connections: list[socket.socket], least: int) -> list[socket.socket]:
    """Those on which an answer has come, once there are so many."""
    found = select.select(connections, [], [], 0)[0]
    return found if len(found) >= least else []


def descendants(pid: int) -> dict[int, str]:
    """A process and all below it: process id to the time of its start."""
    stats = {int(path.name): stat(int(path.name)) for path in Path("/proc").iterdir() if path.name.isdigit()}
    found: dict[int, str] = {}
    waiting = [pid]
    while waiting:
        current = waiting.pop()
        if fields := stats.get(current):
            found[current] = fields[19]
            waiting += [child for child, other in stats.items() if other and int(other[1]) == current]
    return found


def alive(family: dict[int, str]) -> list[int]:
    """Those of a family that have not ended."""
    return [
        pid for pid, started in family.items() if (now := stat(pid)) and now[19] == started and now[0] != "Z"
    ]


def stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; none if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def links_of(pid: int) -> Iterator[str]:
    """Where the descriptors of a process lead."""
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            yield str(descriptor.readlink())
