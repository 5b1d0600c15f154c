"""The serving image is really built, and docker-compose.yml really started, with podman."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from benchmarks.serving import classify, free_port, ready
from tests.containers import PROMETHEUS_IMAGE, PYTHON_IMAGE, Podman, configure
from tests.observability import Prometheus
from tests.tiny_models import colour_clip, write_package
from tests.tools import need

# Of this run alone, so that two runs on one machine do not share containers.
RUN = f"test-{os.getpid()}"
PROJECT = f"blvnet-{RUN}"
IMAGE = f"localhost/blvnet-serve:{RUN}"
# What onnxruntime, FFmpeg's libraries and numpy come to, and a tenth more. Torch alone would be 700 MB.
ADDED_BYTES_LIMIT = 350e6
STARTED_WITHIN_S = 60


@dataclass(frozen=True)
class Stack:
    """A started compose project, its service and its Prometheus."""

    podman: Podman
    container: str
    http: httpx.Client
    prometheus: Prometheus

    def wait_until_ready(self) -> None:
        """Return once `/readyz` is 200; fail with the service's log otherwise."""
        deadline = time.monotonic() + STARTED_WITHIN_S
        while not ready(self.http):
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.2)

    def log(self) -> str:
        """What the service has written so far."""
        return self.podman.attempt("podman", "logs", self.container).stderr


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """Podman with the serving image built as `IMAGE`; base images stay for the next time."""
    need("podman", "buildah", "mmdebstrap", package="podman buildah mmdebstrap")
    if os.geteuid() != 0:
        pytest.skip("stand-in images and container networks need root")
    folder = tmp_path_factory.mktemp("podman")
    podman = Podman(configure(folder))
    podman.build("docker/Dockerfile", IMAGE, folder, PYTHON_IMAGE=podman.base_image(PYTHON_IMAGE))
    yield podman
    podman.run("podman", "rmi", IMAGE)


@pytest.fixture(scope="module")
def stack(podman: Podman, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Compose with a tiny model in place of the bundled one, so that answers can be predicted."""
    write_package(models := tmp_path_factory.mktemp("models"))
    models.chmod(0o755)  # the service's user has to read it, and pytest's folders are for their owner
    ports = {"PORT": str(free_port()), "PROMETHEUS_PORT": str(free_port())}
    variables = ports | {
        "TAG": RUN,
        "MODELS": str(models),
        "PROMETHEUS_IMAGE": podman.base_image(PROMETHEUS_IMAGE),
    }
    with (
        podman.compose(PROJECT, "docker/compose.models.yml", **variables),
        httpx.Client(base_url=f"http://127.0.0.1:{ports['PORT']}", timeout=30) as http,
        httpx.Client(base_url=f"http://127.0.0.1:{ports['PROMETHEUS_PORT']}") as prometheus,
    ):
        stack = Stack(podman, f"{PROJECT}_service_1", http, Prometheus(prometheus))
        stack.wait_until_ready()
        yield stack


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


def test_prometheus_sees_its_target_up(stack: Stack) -> None:
    assert stack.prometheus.value('min_over_time(up{job="blvnet"}[5s])') == 1


def test_prometheus_counts_posted_clips(stack: Stack) -> None:
    classify(stack.http, colour_clip((0, 255, 0)))
    sample = re.search(
        r'^blvnet_requests_total{code="200",route="/v1/classify"} (\S+)$',
        stack.http.get("/metrics").text,
        re.MULTILINE,
    )
    assert sample is not None
    count = f'blvnet_requests_total{{instance="service:8000",route="/v1/classify",code="200"}} == {sample[1]}'
    assert stack.prometheus.wait_for(count)


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


def test_stop_ends_the_service_cleanly(stack: Stack) -> None:
    stack.podman.run("podman", "stop", "--time=40", stack.container)
    assert stack.podman.inspect(stack.container)["State"]["ExitCode"] == 0
