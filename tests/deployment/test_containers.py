"""Builds the serving image and runs docker-compose.yml with podman."""

from __future__ import annotations

import itertools
import json
import os
import re
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.common.service_process import classify, free_port, ready
from tests.support.containers import (
    ALERTMANAGER_IMAGE,
    HAPROXY_IMAGE,
    PROMETHEUS_IMAGE,
    PYTHON_IMAGE,
    REDIS_IMAGE,
    Podman,
    configure,
)
from tests.support.long_clips import long_clip
from tests.support.observability import Prometheus
from tests.support.tiny_models import colour_clip, write_package
from tests.support.tools import need

# Unique per run, so that concurrent runs do not share containers.
RUN = f"test-{os.getpid()}"
PROJECT = f"blvnet-{RUN}"
IMAGE = f"localhost/blvnet-serve:{RUN}"
# The size of onnxruntime, FFmpeg's libraries and numpy, plus a tenth. Torch alone takes 700 MB.
ADDED_BYTES_LIMIT = 350e6
STARTED_WITHIN_S = 60
REPLICAS = 3
KEY_LIMIT = 10
KEYS = [f"secret-{number:03d}" for number in range(100)]
RED = colour_clip((255, 0, 0))
JOBS_DIR = "/var/lib/blvnet/jobs"
LARGE_BYTES = 90_000_000
MEMORY = "450m"
WEBHOOK = "http://receiver.example/alerts"


@dataclass(frozen=True)
class Stack:
    """A running compose project with the service, Prometheus and, if it was started, Alertmanager."""

    podman: Podman
    container: str
    http: httpx.Client
    prometheus: Prometheus
    alertmanager: httpx.Client

    def wait_until_ready(self) -> None:
        """Wait until `/readyz` is 200; fail with the service's log."""
        wait_until(lambda: ready(self.http), self.log)

    def log(self) -> str:
        """The log of the service so far."""
        return self.podman.attempt("podman", "logs", self.container).stderr


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """Podman with the serving image built as `IMAGE`; base images are kept for later runs."""
    need("podman", "buildah", "mmdebstrap", package="podman buildah mmdebstrap")
    if os.geteuid() != 0:
        pytest.fail("stand-in images and container networks need root; without it, leave this file out")
    folder = tmp_path_factory.mktemp("podman")
    podman = Podman(configure(folder))
    podman.build("docker/Dockerfile", IMAGE, folder, PYTHON_IMAGE=podman.base_image(PYTHON_IMAGE))
    yield podman
    podman.run("podman", "rmi", IMAGE)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, whose answers are predictable."""
    write_package(models := tmp_path_factory.mktemp("models"))
    models.chmod(0o755)  # readable for the service's user, unlike pytest's folders
    return models


@pytest.fixture(scope="module")
def start(podman: Podman, models: Path) -> Iterator[Callable[..., Stack]]:
    """Starts compose projects and waits until they are ready; arguments as those of `Podman.compose`."""
    with ExitStack() as running:

        def start(project: str, *files: str, **options: Any) -> Stack:
            ports = {name: str(free_port()) for name in ("PORT", "PROMETHEUS_PORT", "ALERTMANAGER_PORT")}
            variables = {
                "TAG": RUN,
                "MODELS": str(models),
                "PROMETHEUS_IMAGE": podman.base_image(PROMETHEUS_IMAGE),
                "ALERTMANAGER_IMAGE": podman.base_image(ALERTMANAGER_IMAGE),
                **ports,
            }
            running.enter_context(
                podman.compose(project, "docker/compose.models.yml", *files, **variables, **options)
            )
            http, prometheus, alertmanager = (
                running.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60))
                for port in ports.values()
            )
            stack = Stack(podman, f"{project}_service_1", http, Prometheus(prometheus), alertmanager)
            stack.wait_until_ready()
            return stack

        yield start


@pytest.fixture(scope="module")
def stack(start: Callable[..., Stack]) -> Stack:
    """The service, Prometheus and Alertmanager; only Grafana has no stand-in."""
    return start(PROJECT, services=("service", "prometheus", "alertmanager"), ALERT_WEBHOOK=WEBHOOK)


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The API keys, in a file that the service's user can read."""
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text("\n".join(KEYS))
    path.chmod(0o644)
    return path


@pytest.fixture(scope="module")
def replicas(start: Callable[..., Stack], podman: Podman, key_file: Path) -> Stack:
    """Three replicas behind HAProxy, as `make up REPLICAS=3` starts them; their keys have a limit."""
    return start(
        f"{PROJECT}-scale",
        "docker/compose.scale.yml",
        "docker/compose.keys.yml",
        services=("service", "redis", "proxy", "prometheus"),
        REPLICAS=str(REPLICAS),
        HAPROXY_IMAGE=podman.base_image(HAPROXY_IMAGE),
        REDIS_IMAGE=podman.base_image(REDIS_IMAGE),
        API_KEYS_FILE=str(key_file),
        BLVNET_KEY_REQUESTS_PER_MINUTE=str(KEY_LIMIT),
        BLVNET_JOBS_DIR=JOBS_DIR,
    )


def wait_until(is_so: Callable[[], bool], explain: Callable[[], str] = str) -> None:
    """Wait until a condition is true; fail with an explanation."""
    deadline = time.monotonic() + STARTED_WITHIN_S
    while not is_so():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.2)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_image_has_no_torch_and_no_compiler(podman: Podman) -> None:
    look = "import importlib.util, shutil; print(importlib.util.find_spec('torch'), shutil.which('gcc'))"
    assert (
        podman.run("podman", "run", "--rm", "--network=none", IMAGE, "python3", "-c", look) == "None None\n"
    )


def test_image_holds_the_bundled_model(podman: Podman) -> None:
    listed = podman.run("podman", "run", "--rm", "--network=none", IMAGE, "blvnet", "models", "--json")
    assert [model["name"] for model in json.loads(listed)["models"]] == ["blvnet-tam-mini"]


def test_image_is_small(podman: Podman) -> None:
    base = podman.inspect(podman.base_image(PYTHON_IMAGE))
    assert podman.inspect(IMAGE)["Size"] - base["Size"] < ADDED_BYTES_LIMIT


def test_posted_clip_is_answered(stack: Stack) -> None:
    answer = classify(stack.http, colour_clip((0, 0, 255)))
    assert answer["predictions"][0]["label"] == "blue"


def test_prometheus_target_is_up(stack: Stack) -> None:
    assert stack.prometheus.value('min_over_time(up{job="blvnet"}[5s])') == 1


def test_prometheus_counts_posted_clips(stack: Stack) -> None:
    classify(stack.http, colour_clip((0, 255, 0)))
    sample = re.search(
        r'^blvnet_requests_total{code="200",route="/v1/classify"} (\S+)$',
        stack.http.get("/metrics").text,
        re.MULTILINE,
    )
    assert sample is not None
    count = f'blvnet_requests_total{{job="blvnet",route="/v1/classify",code="200"}} == {sample[1]}'
    assert stack.prometheus.wait_for(count)


def test_prometheus_reaches_alertmanager_which_knows_the_receiver(stack: Stack) -> None:
    [address] = stack.prometheus.alertmanagers()
    name, _, port = address.removeprefix("http://").removesuffix("/api/v2/alerts").partition(":")
    assert port == "9093"
    look_up = f"getent hosts {name} || nslookup {name}"  # of Debian, or of the real image
    found = stack.podman.run("podman", "exec", f"{PROJECT}_prometheus_1", "sh", "-c", look_up)
    networks = stack.podman.inspect(f"{PROJECT}_alertmanager_1")["NetworkSettings"]["Networks"]
    assert {network["IPAddress"] for network in networks.values()} & set(found.split())
    wait_until(lambda: ready(stack.alertmanager, "/-/ready"))
    status = stack.alertmanager.get("/api/v2/status").json()
    # Newer versions treat the addresses of receivers as secrets.
    assert re.search(rf"url: (<secret>|{WEBHOOK})", status["config"]["original"])


def test_models_can_be_taught_on_the_volume(stack: Stack) -> None:
    assert stack.http.get("/v1/taught").json()["taught"] == []
    stack.podman.run("podman", "exec", stack.container, "ls", "/var/lib/blvnet/taught/examples")


def test_health_check_passes(stack: Stack) -> None:
    assert stack.podman.attempt("podman", "healthcheck", "run", stack.container).returncode == 0


def test_process_is_not_root_and_has_no_capability(stack: Stack) -> None:
    status = stack.podman.run("podman", "exec", stack.container, "cat", "/proc/self/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    assert fields["Uid"].split() == ["10001"] * 4
    assert int(fields["CapPrm"], 16) == int(fields["CapBnd"], 16) == 0
    assert fields["NoNewPrivs"] == "1"


@pytest.mark.parametrize(
    ("path", "writable"), [("/opt/blvnet/x", False), ("/models/x", False), ("/tmp/x", True)]
)
def test_only_temporary_files_can_be_written(stack: Stack, path: str, writable: bool) -> None:
    result = stack.podman.attempt("podman", "exec", "--user=0", stack.container, "touch", path)
    assert (result.returncode == 0) is writable, result.stderr


def test_log_lines_are_json_and_name_the_request(stack: Stack) -> None:
    stack.http.get("/v1/models", headers={"X-Request-ID": "asked-by-the-test"})
    events = [json.loads(line) for line in stack.log().splitlines()]
    assert "asked-by-the-test" in {event.get("request_id") for event in events}


def test_stop_exits_cleanly(stack: Stack) -> None:
    stack.podman.run("podman", "stop", "--time=40", stack.container)
    assert stack.podman.inspect(stack.container)["State"]["ExitCode"] == 0


def test_decoding_that_needs_more_memory_than_there_is_does_not_end_the_service(
    podman: Podman, tmp_path: Path
) -> None:
    podman = replace(podman, folder=tmp_path)  # when a process is killed, podman leaves a file there
    name, port = f"blvnet-{RUN}-memory", free_port()
    options = [f"--memory={MEMORY}", f"--memory-swap={MEMORY}", "--read-only", "--tmpfs=/tmp:size=100m"]
    published = f"--publish=127.0.0.1:{port}:8000"
    podman.run("podman", "run", "--detach", f"--name={name}", "--init", *options, published, IMAGE)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            wait_until(lambda: ready(http), lambda: podman.attempt("podman", "logs", name).stderr)
            before = podman.inspect(name)["State"]
            with ThreadPoolExecutor(4) as pool:
                large = [pool.submit(http.post, "/v1/classify", content=long_clip(50)) for _ in range(8)]
                small = Counter[int]()
                while not (all(answer.done() for answer in large) and small[200]):
                    assert http.get("/healthz").status_code == 200
                    small[http.post("/v1/classify", content=RED).status_code] += 1
            assert {answer.result().status_code for answer in large} <= {200, 422, 503}
            after = podman.inspect(name)
        assert (after["RestartCount"], after["State"]["Pid"]) == (0, before["Pid"])
    finally:
        podman.run("podman", "rm", "--force", "--time=0", name)


def test_every_replica_is_a_target_and_gets_requests(replicas: Stack) -> None:
    assert replicas.prometheus.wait_for(f'count(up{{job="blvnet"}} == 1) == {REPLICAS}')
    assert replicas.prometheus.wait_for(f'haproxy_backend_active_servers{{proxy="replicas"}} == {REPLICAS}')
    for key in KEYS[:3]:
        for _ in range(KEY_LIMIT):
            assert replicas.http.post("/v1/classify", content=RED, headers=bearer(key)).status_code == 200
    answered = 'blvnet_requests_total{job="blvnet",route="/v1/classify",code="200"} > 0'
    assert replicas.prometheus.wait_for(f"count({answered}) == {REPLICAS}")


def test_keys_from_a_file_are_needed_and_do_not_show_in_the_container(
    replicas: Stack, podman: Podman
) -> None:
    assert replicas.http.post("/v1/classify", content=RED).status_code == 401
    shown = podman.run("podman", "inspect", replicas.container)
    assert "BLVNET_API_KEYS_FILE=/run/secrets/api_keys" in shown
    assert not any(key in shown for key in KEYS)


def test_limit_of_a_key_holds_for_all_replicas_together(replicas: Stack) -> None:
    answers = Counter(
        replicas.http.post("/v1/classify", content=RED, headers=bearer(KEYS[3])).status_code
        for _ in range(2 * KEY_LIMIT)
    )
    assert answers == {200: KEY_LIMIT, 429: KEY_LIMIT}


def test_large_upload_and_lines_of_a_timeline_pass_the_proxy(replicas: Stack) -> None:
    padding = struct.pack(">I4s", LARGE_BYTES, b"free") + bytes(LARGE_BYTES - 8)
    answer = replicas.http.post("/v1/classify", content=RED + padding, headers=bearer(KEYS[4]))
    assert answer.json()["predictions"][0]["label"] == "red"
    video = colour_clip((255, 0, 0), (0, 0, 255), frames=200)
    timeline = replicas.http.post(
        "/v1/timeline", params={"window_s": 1}, content=video, headers=bearer(KEYS[4])
    )
    *windows, end = timeline.text.splitlines()
    assert end.startswith('{"summary"')
    assert len(windows) == json.loads(end)["summary"]["windows"]


def test_every_replica_knows_every_job(replicas: Stack) -> None:
    job = replicas.http.post("/v1/jobs", content=RED, headers=bearer(KEYS[5])).json()
    states: list[str] = []
    while states[-1:] != ["done"] or len(states) < 2 * REPLICAS:
        answer = replicas.http.get(f"/v1/jobs/{job['id']}", headers=bearer(KEYS[5]) | {"Connection": "close"})
        assert answer.status_code == 200, answer.text
        states.append(answer.json()["state"])


def test_killed_replica_costs_no_more_than_its_requests(replicas: Stack) -> None:
    keys, stop, dead = itertools.cycle(KEYS[10:]), threading.Event(), threading.Event()
    answers = [Counter[int](), Counter[int](), Counter[int]()]

    def call(counts: Counter[int]) -> None:
        while not stop.is_set():
            try:
                answer = replicas.http.post("/v1/classify", content=RED, headers=bearer(next(keys)))
            except httpx.TransportError:  # on a kept connection the proxy closes it instead of a 502
                status = 502
            else:
                status = answer.status_code
            counts[status] += 1
            if status == 502:
                # A process that ends closes its connections one after another. Until the last one is
                # closed, the proxy may send the next request over it.
                dead.wait()

    def wait_for_more(count: int) -> None:
        goals = [counts[200] + count for counts in answers]
        while any(counts[200] < goal for counts, goal in zip(answers, goals, strict=True)):
            assert not any(caller.done() for caller in callers)
            time.sleep(0.02)

    killed = f"{PROJECT}-scale_service_2"
    process = Path(f"/proc/{replicas.podman.inspect(killed)['State']['Pid']}")
    with ThreadPoolExecutor(len(answers)) as pool:
        callers = [pool.submit(call, counts) for counts in answers]
        try:
            wait_for_more(3)
            replicas.podman.run("podman", "kill", "--signal=KILL", killed)
            wait_until(lambda: not process.exists())
            dead.set()
            wait_for_more(10)
        finally:
            stop.set()
            dead.set()
        for caller in callers:
            caller.result()
    # A caller has one request at a time, so the killed replica had at most one of each.
    for counts in answers:
        assert set(counts) <= {200, 502}
        assert counts[502] <= 1
