"""The application in a real Ray: two replicas behind Ray's proxy, on real ports."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from service.pipeline.limits.admission import UPLOADS_PER_PLACE
from tests.support.processes import alive, command, descendants
from tests.support.ray_cluster import POLL_S, Cluster, serving
from tests.support.server import PATIENCE_S, begin_upload, read_response

UPLOADS = 6
QUEUE_LIMIT = UPLOADS
MAX_UPLOAD_BYTES = 2_000_000
MORE_THAN_IN_MEMORY = 1_500_000


@pytest.fixture(scope="module")
def cluster(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with serving(
        tmp_path_factory.mktemp("serve"),
        num_cpus=0.5,
        models=str(tiny_models),
        max_upload_mb=MAX_UPLOAD_BYTES / 1e6,
        queue_limit=QUEUE_LIMIT,
    ) as running:
        yield running


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
        assert read_response(connection).status_code == 413


def test_unannounced_upload_past_the_limit_is_refused(cluster: Cluster) -> None:
    with cluster.client() as client:
        answer = client.post("/v1/classify", content=iter([b"x" * MAX_UPLOAD_BYTES, b"x"]))
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_both_replicas_are_in_the_metrics_of_ray(cluster: Cluster, red_clip: bytes) -> None:
    for _ in range(UPLOADS):
        assert cluster.post(red_clip).status_code == 200
    cluster.wait_for(
        lambda: cluster.samples("ray_blvnet_model_info{", 'model="tiny"') == [1, 1], "series of two replicas"
    )
    counted = ("ray_blvnet_requests_total{", 'code="200"', 'route="/v1/classify"')
    cluster.wait_for(lambda: sum(cluster.samples(*counted)) >= UPLOADS, "count of requests")


def test_disconnected_caller_is_not_a_failure(cluster: Cluster) -> None:
    connections = [
        begin_upload(cluster.url, MAX_UPLOAD_BYTES, b"x" * MORE_THAN_IN_MEMORY) for _ in range(UPLOADS)
    ]
    cluster.wait_for(lambda: cluster.spooled() == UPLOADS, "uploads under way")
    for connection in connections:
        connection.close()
    cluster.wait_for(lambda: cluster.spooled() == 0, "end of the uploads")
    cluster.wait_for(lambda: cluster.log.read_text().count('"code": 499') == UPLOADS, "their log lines")
    assert "unexpected error" not in cluster.log.read_text()


def test_refusal_of_a_full_queue_is_our_problem_document(cluster: Cluster) -> None:
    room = 2 * UPLOADS_PER_PLACE * QUEUE_LIMIT
    with ExitStack() as stack:
        uploads = [stack.enter_context(begin_upload(cluster.url, 1000, b"x")) for _ in range(room + 4)]
        refused = cluster.wait_for(lambda: answered(uploads, least=4), "refusals")
        answers = [read_response(connection) for connection in refused]
    for answer in answers:
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["code"] == "overloaded"


def test_changed_user_config_makes_every_replica_rescan_its_models(cluster: Cluster) -> None:
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


def test_ended_replica_answers_its_requests(cluster: Cluster, red_clip: bytes) -> None:
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
        answers = [read_response(connection).status_code for connection in uploads]
    assert answers == [200] * UPLOADS
    cluster.wait_for(lambda: len(cluster.replicas()) == 1, "only one replica")
    assert cluster.replicas() < before


def test_end_leaves_no_process_and_no_files(cluster: Cluster) -> None:
    family = descendants(cluster.process.pid)
    cluster.process.send_signal(signal.SIGINT)
    cluster.process.wait(PATIENCE_S)
    deadline = time.monotonic() + 10
    while alive(family) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    assert [command(pid) for pid in alive(family)] == []
    assert list(cluster.home.iterdir()) == []


def answered(connections: list[socket.socket], least: int) -> list[socket.socket]:
    """The connections with an answer, once there are at least `least`."""
    found = select.select(connections, [], [], 0)[0]
    return found if len(found) >= least else []
