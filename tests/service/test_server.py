"""The service process: start, refused starts, load, and shutdown."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.pipeline.limits.admission import UPLOADS_PER_PLACE
from service.server import listen
from tests.support.server import (
    PATIENCE_S,
    RunningServer,
    read_response,
    running_server,
    starting_server,
)
from tests.support.tiny_models import TinyModel, write_package

# Side of a matrix whose product takes a good part of a second: time to do something meanwhile.
SLOW = 2500
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture(scope="module")
def slow_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("slow")
    write_package(models, model=TinyModel(work=SLOW))
    return models


@pytest.fixture(scope="module")
def locked(tiny_models: Path) -> Iterator[RunningServer]:
    """A server that requires a key."""
    with running_server(tiny_models, API_KEYS="first-key,second-key") as server:
        yield server


@contextmanager
def open_upload(server: RunningServer, announced: int, sent: bytes = b"x") -> Iterator[socket.socket]:
    """A connection on which an upload has begun and does not continue by itself."""
    with server.begin_upload(announced, sent) as connection:
        server.wait_for(lambda: server.metric("blvnet_inflight_requests") >= 2, "upload under way")
        yield connection


def answer_on(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """Status and document of the answer."""
    response = read_response(connection)
    return response.status_code, response.json()


def test_start_is_logged_and_readiness_follows_the_models(server: RunningServer) -> None:
    states = [line["state"] for line in server.log if line.get("logger") == "service.pipeline.recognizer"]
    assert states == ["starting", "serving"]
    assert server.get("/healthz").json() == {"status": "ok"}
    assert server.get("/readyz").json() == {"status": "ready"}


def test_objects_of_the_start_are_excluded_from_garbage_collection(server: RunningServer) -> None:
    assert server.line(event="excluded from garbage collection")["objects"] > 50_000


def run_to_its_end(models: Path, **settings: Any) -> tuple[int, list[dict[str, Any]]]:
    with starting_server(models, **settings) as server:
        status = server.process.wait(PATIENCE_S)
        server.reader.join()
        return status, server.log


@pytest.mark.parametrize(
    ("settings", "status", "message"),
    [
        ({"PORT": "http"}, 2, "BLVNET_PORT"),
        ({"HOST": "no.such.host.invalid"}, 1, "cannot listen on no.such.host.invalid port 0"),
        ({"MODELS": "/nonexistent"}, 1, "/nonexistent: there is no such folder"),
        ({"PROVIDER": "cuda"}, 1, "cuda"),
    ],
)
def test_start_that_must_fail_ends_with_one_line(
    tiny_models: Path, settings: dict[str, str], status: int, message: str
) -> None:
    ended, log = run_to_its_end(tiny_models, **settings)
    assert ended == status
    assert log[-1]["text"].startswith("blvnet: ")
    assert message in log[-1]["text"]
    assert not any("Traceback" in str(line) for line in log)


def test_port_that_is_taken_ends_the_start(server: RunningServer, tiny_models: Path) -> None:
    ended, log = run_to_its_end(tiny_models, PORT=server.url.rpartition(":")[2])
    assert ended == 1
    assert "cannot listen" in log[-1]["text"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_connections_send_small_answers_at_once(host: str) -> None:
    with listen(host, 0) as listener, socket.create_connection(listener.getsockname()[:2]):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_unknown_variable_is_warned_about(tiny_models: Path) -> None:
    with starting_server(tiny_models, MAX_BATHC=4) as server:
        assert "BLVNET_MAX_BATHC" in server.line(level="warning", logger="service.server")["event"]


def test_bad_package_does_not_keep_the_others_from_serving(tmp_path: Path, red_clip: bytes) -> None:
    write_package(tmp_path, "good")
    (write_package(tmp_path, "bad") / "model.onnx").write_bytes(b"not a graph")
    with running_server(tmp_path) as server:
        states = {entry["name"]: entry["state"] for entry in server.get("/v1/models").json()["models"]}
        assert states == {"good": "ready", "bad": "refused"}
        assert server.post(red_clip).json()["model"]["name"] == "good"


class TestKeys:
    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Bearer first-key,second-key"},
            {"Authorization": "Bearer"},
            {"Authorization": "Basic first-key"},
            {"Authorization": b"Bearer \xff\xfe"},
        ],
    )
    @pytest.mark.parametrize("path", ["/v1/models", "/v1/models/tiny"])
    def test_no_valid_key_is_unauthorized(self, locked: RunningServer, path: str, headers: Any) -> None:
        with locked.client() as client:
            answer = client.get(path, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        assert answer.headers["WWW-Authenticate"] == "Bearer"

    def test_clip_without_a_key_is_not_read(self, locked: RunningServer) -> None:
        with locked.begin_upload(1_000_000, b"x") as connection:
            assert answer_on(connection)[0] == 401

    @pytest.mark.parametrize("key", ["first-key", "second-key"])
    def test_valid_key_may_classify(self, locked: RunningServer, red_clip: bytes, key: str) -> None:
        with locked.client(headers={"Authorization": f"Bearer {key}"}) as client:
            assert client.post("/v1/classify", content=red_clip).status_code == 200

    @pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/", "/docs", "/openapi.json"])
    def test_probes_and_pages_stay_open(self, locked: RunningServer, path: str) -> None:
        assert locked.get(path).status_code == 200

    def test_keys_are_never_logged(self, locked: RunningServer) -> None:
        assert "-key" not in json.dumps(locked.log)


def test_metrics_can_move_to_a_port_of_their_own(tiny_models: Path) -> None:
    with running_server(tiny_models, METRICS_PORT=0) as server:
        assert server.get("/metrics").status_code == 404
        paths = {"/metrics": 200, "/healthz": 200, "/readyz": 200, "/v1/models": 404, "/": 404}
        with httpx.Client(base_url=server.metrics_url, verify=False) as client:
            assert {path: client.get(path).status_code for path in paths} == paths
            assert "blvnet_model_info" in client.get("/metrics").text
        assert server.get("/readyz").status_code == 200
        assert server.stop() == 0


class TestOneLineARequest:
    def test_it_has_the_stages_the_size_and_the_model(self, server: RunningServer, red_clip: bytes) -> None:
        with server.client(headers={"X-Request-ID": "log-1"}) as client:
            answer = client.post("/v1/classify", files={"file": ("secret-name.mp4", red_clip)}).json()
        line = server.line(event="request", request_id="log-1")
        assert (line["route"], line["code"], line["method"]) == ("/v1/classify", 200, "POST")
        assert (line["model"], line["bytes"]) == ("tiny", len(red_clip))
        for stage in ("receive", "decode", "queue", "inference"):
            assert line[f"{stage}_ms"] == pytest.approx(answer["timing_ms"][stage], abs=0.01)
        assert len(server.lines(event="request", request_id="log-1")) == 1
        assert "secret-name" not in json.dumps(server.log)

    def test_it_names_the_problem(self, server: RunningServer) -> None:
        with server.client(headers={"X-Request-ID": "log-2"}) as client:
            client.post("/v1/classify", content=b"no video")
        assert server.line(event="request", request_id="log-2")["problem"] == "not_a_video"

    @pytest.mark.parametrize(
        ("given", "logged"),
        [
            (TRACE, TRACE),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", None),
            ("anything", None),
        ],
    )
    def test_it_has_the_trace_of_the_caller(
        self, server: RunningServer, given: str, logged: str | None
    ) -> None:
        request_id = f"trace-{len(given)}-{given[3]}"
        with server.client(headers={"X-Request-ID": request_id, "traceparent": given}) as client:
            client.get("/v1/models")
        assert server.line(event="request", request_id=request_id).get("traceparent") == logged

    def test_probes_are_logged_at_debug_level_only(self, server: RunningServer) -> None:
        server.get("/healthz")
        assert server.line(event="request", route="/healthz")["level"] == "debug"


@pytest.mark.parametrize(
    ("given", "taken"), [("my-id_1.2:3/4", True), ("with blank", False), ("x" * 129, False)]
)
def test_plain_request_id_of_the_caller_is_used(server: RunningServer, given: str, taken: bool) -> None:
    with server.client(headers={"X-Request-ID": given}) as client:
        answer = client.get("/v1/models/nonesuch")
    returned = answer.headers["X-Request-ID"]
    assert answer.json()["request_id"] == returned
    assert (returned == given) is taken
    assert re.fullmatch(r"[0-9a-f]{32}", returned) or taken


def test_metrics_pass_promtool(server: RunningServer, red_clip: bytes) -> None:
    server.post(red_clip)
    exposition = server.get("/metrics").content
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=exposition, capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_slow_upload_does_not_delay_others(server: RunningServer, red_clip: bytes) -> None:
    with open_upload(server, 1_000_000):
        assert server.post(red_clip).status_code == 200


def test_upload_that_takes_too_long_is_cancelled(tiny_models: Path) -> None:
    with (
        running_server(tiny_models, REQUEST_TIMEOUT_S=1) as server,
        open_upload(server, 1_000_000) as connection,
    ):
        status, problem = answer_on(connection)
        assert (status, problem["code"]) == (504, "deadline_exceeded")
        assert "1 s" in problem["detail"]


def test_disconnection_during_an_upload_leaves_nothing_behind(server: RunningServer) -> None:
    before = len(server.lines(event="request", code=499))
    with open_upload(server, 1_900_000, bytes(1_500_000)):
        pass
    server.wait_for(lambda: len(server.lines(event="request", code=499)) > before, "line of the lost request")
    assert server.metric("blvnet_inflight_requests") == 1  # the scrape itself


def test_worker_killed_during_a_clip_loses_no_request(server: RunningServer, red_clip: bytes) -> None:
    def killed() -> float:
        return server.metric("blvnet_decode_worker_restarts_total", reason="killed")

    before = killed()
    (pid,) = decode_workers(server)
    os.kill(pid, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(3) as pool:
            clips = [pool.submit(server.post, red_clip) for _ in range(3)]
            server.wait_for(
                lambda: server.metric("blvnet_queue_depth") == 2, "clip in work, and two that wait"
            )
            os.kill(pid, signal.SIGKILL)
            assert [clip.result().status_code for clip in clips] == [200] * 3
    finally:
        if killed() == before:
            os.kill(pid, signal.SIGCONT)
    assert killed() == before + 1
    assert server.metric("blvnet_decode_workers") == 1
    assert pid not in decode_workers(server)


def decode_workers(server: RunningServer) -> set[int]:
    """Process ids: the children of the service's only child, which forks them."""
    (fork_server,) = children_of(server.process.pid)
    return children_of(fork_server)


def children_of(pid: int) -> set[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()  # a child is its thread's
    return {int(child) for task in tasks for child in (task / "children").read_text().split()}


class TestUnderLoad:
    def test_requests_beyond_the_limit_are_refused_with_retry_after(
        self, slow_models: Path, red_clip: bytes
    ) -> None:
        with (
            running_server(slow_models, QUEUE_LIMIT=2, REQUEST_TIMEOUT_S=600) as server,
            ThreadPoolExecutor(8) as pool,
        ):
            answers = list(pool.map(lambda _: server.post(red_clip), range(8)))
        refused = [answer for answer in answers if answer.status_code == 503]
        assert refused
        assert {answer.json()["code"] for answer in refused} == {"overloaded"}
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
        assert {answer.status_code for answer in answers} == {200, 503}

    def test_concurrent_uploads_are_limited(self, tiny_models: Path, red_clip: bytes) -> None:
        with running_server(tiny_models, QUEUE_LIMIT=1) as server, ExitStack() as uploads:
            connections = [
                uploads.enter_context(server.begin_upload(1000, b"x")) for _ in range(2 * UPLOADS_PER_PLACE)
            ]

            def refused() -> list[socket.socket]:
                """Uploads that are refused at once, or after a pause because another one took their place."""
                found = select.select(connections, [], [], 0)[0]
                return found if len(found) >= UPLOADS_PER_PLACE else []

            for connection in server.wait_for(refused, "refusals"):
                status, problem = answer_on(connection)
                assert (status, problem["code"]) == (503, "overloaded")
            uploads.close()
            server.wait_for(lambda: server.metric("blvnet_inflight_requests") == 1, "end of the uploads")
            assert server.post(red_clip).status_code == 200

    def test_heads_without_bodies_do_not_block_others(self, tiny_models: Path, red_clip: bytes) -> None:
        limit, keys = 8, ("first", "second", "third")
        places = UPLOADS_PER_PLACE * limit
        headers = [{"Authorization": f"Bearer {key}"} for key in keys]
        with (
            running_server(
                tiny_models,
                API_KEYS=",".join(keys),
                QUEUE_LIMIT=limit,
                LATENCY_TARGET_S=600,
                REQUEST_TIMEOUT_S=600,
            ) as server,
            server.client(headers=headers[2]) as client,
            ExitStack() as stack,
        ):

            def open_heads(number: int, key: int) -> list[socket.socket]:
                begin = partial(server.begin_upload, 1000, b"", "/v1/timeline", **headers[key])
                return [stack.enter_context(begin()) for _ in range(number)]

            def posted() -> set[int]:
                paths = ("/v1/classify", "/v1/timeline")
                return {client.post(path, content=red_clip).status_code for path in paths}

            heads = open_heads(places, key=0)
            server.wait_for(
                lambda: (
                    server.metric("blvnet_requests_total", route="/v1/timeline", code="429") == places / 2
                ),
                "the end of the share of the key",
            )
            assert posted() == {200}
            heads += open_heads(places // 2, key=1)
            server.wait_for(
                lambda: server.metric("blvnet_inflight_requests") == places + 1, "uploads in all places"
            )
            server.wait_for(lambda: posted() == {200}, "answers")
            details = {answer_on(head)[1]["detail"] for head in select.select(heads, [], [], 0)[0]}
            assert any("while others waited for its place" in detail for detail in details)

    def test_request_past_its_deadline_is_a_504(self, slow_models: Path, red_clip: bytes) -> None:
        with running_server(slow_models, REQUEST_TIMEOUT_S=0.05) as server:
            answer = server.post(red_clip)
        assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")

    def test_a_caller_may_ask_for_less_time_but_not_for_more(
        self, slow_models: Path, red_clip: bytes
    ) -> None:
        with running_server(slow_models, REQUEST_TIMEOUT_S=20) as server, server.client() as client:

            def post(path: str, timeout_s: str) -> httpx.Response:
                return client.post(path, content=red_clip, headers={"X-Request-Timeout": timeout_s})

            answer = post("/v1/classify", "0.05")
            assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
            assert "within 0.05 s" in answer.json()["detail"]
            assert post("/v1/classify", "3600").status_code == 200
            for wrong in ("0", "-1", "nan", "inf", "soon"):
                answer = post("/v1/classify", wrong)
                assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")
            assert post("/v2/models/tiny/infer", "0").status_code == 422
        with running_server(slow_models, REQUEST_TIMEOUT_S=0.05) as server, server.client() as client:
            answer = client.post("/v1/classify", content=red_clip, headers={"X-Request-Timeout": "60"})
            assert answer.status_code == 504

    def test_work_for_a_disconnected_caller_is_cancelled(self, slow_models: Path, red_clip: bytes) -> None:
        with running_server(slow_models) as server:
            with open_upload(server, len(red_clip), red_clip):
                pass
            server.line(event="request", code=499, bytes=len(red_clip))
            assert server.metric("blvnet_predictions_total", model="tiny", label="red") == 0


class TestShutdown:
    def test_accepted_upload_is_finished_and_new_ones_are_refused(
        self, tiny_models: Path, red_clip: bytes
    ) -> None:
        with (
            running_server(tiny_models) as server,
            open_upload(server, len(red_clip), red_clip[:9]) as upload,
        ):
            server.process.send_signal(signal.SIGTERM)
            server.line(state="draining")
            time.sleep(0.5)  # a server that did not wait would be gone by now
            late, probe = server.post(red_clip), server.get("/readyz")
            upload.sendall(red_clip[9:])
            assert answer_on(upload)[0] == 200
            assert server.process.wait(PATIENCE_S) == 0
        assert (late.status_code, late.json()["code"]) == (503, "not_ready")
        assert (probe.status_code, probe.json()["detail"]) == (503, "The service is shutting down.")
        assert "Retry-After" in late.headers

    def test_accepted_work_is_finished_during_shutdown(self, slow_models: Path, red_clip: bytes) -> None:
        with (
            running_server(slow_models, MAX_BATCH=1, DECODE_WORKERS=2, SHUTDOWN_GRACE_S=600) as server,
            server.client() as kept_alive,
            ExitStack() as stack,
        ):
            kept_alive.get("/healthz")
            clips = [stack.enter_context(server.begin_upload(len(red_clip), red_clip)) for _ in range(5)]
            server.wait_for(lambda: server.metric("blvnet_inflight_requests") == 6, "five clips in work")
            server.process.send_signal(signal.SIGTERM)
            server.line(state="draining")
            late = [kept_alive.post("/v1/classify", content=red_clip) for _ in range(3)]
            late += [server.post(red_clip) for _ in range(3)]
            assert {(answer.status_code, answer.json()["code"]) for answer in late} == {(503, "not_ready")}
            assert [answer_on(clip)[0] for clip in clips] == [200] * 5
            assert server.process.wait(PATIENCE_S) == 0

    def test_request_that_outlasts_the_grace_period_gets_an_error(self, tiny_models: Path) -> None:
        with running_server(tiny_models, SHUTDOWN_GRACE_S=0.2) as server, open_upload(server, 1000) as upload:
            server.process.send_signal(signal.SIGTERM)
            status, problem = answer_on(upload)
            assert (status, problem["code"]) == (503, "not_ready")
            upload.close()
            assert server.process.wait(PATIENCE_S) == 0

    def test_second_signal_ends_the_wait(self, tiny_models: Path) -> None:
        with (
            running_server(tiny_models, SHUTDOWN_GRACE_S=3600) as server,
            open_upload(server, 1000) as upload,
        ):
            server.process.send_signal(signal.SIGTERM)
            server.line(state="draining")
            server.process.send_signal(signal.SIGTERM)
            assert answer_on(upload)[1]["code"] == "not_ready"
            upload.close()
            assert server.process.wait(PATIENCE_S) == 0

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_idle_service_ends_at_once_with_status_0(self, tiny_models: Path, number: signal.Signals) -> None:
        with running_server(tiny_models, SHUTDOWN_GRACE_S=3600) as server, server.client() as idle:
            idle.get("/healthz")
            assert server.stop(number) == 0
        assert [line["state"] for line in server.log if "state" in line] == [
            "starting", "serving", "draining", "stopped",
        ]  # fmt: skip

    def test_endless_inference_does_not_block_the_shutdown(self, tmp_path: Path, red_clip: bytes) -> None:
        write_package(tmp_path, model=TinyModel(endless=True))
        with running_server(tmp_path, REQUEST_TIMEOUT_S=1, SHUTDOWN_GRACE_S=1) as server:
            workers = children_of(server.process.pid)
            answer = server.post(red_clip)
            assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
            server.wait_for(lambda: not server.is_ready(), "the news that inference is stuck")
            assert server.stop() == 1
        assert server.line(event="exiting with inferences that do not return")["inferences"] == 1
        give_up = time.monotonic() + PATIENCE_S
        while any(Path(f"/proc/{pid}").exists() for pid in workers):
            assert time.monotonic() < give_up
            time.sleep(0.01)

    def test_signal_during_the_start_ends_it(self, tiny_models: Path) -> None:
        with starting_server(tiny_models) as server:
            server.line(event="service is starting")
            assert server.stop() == 0


def test_requests_are_accepted_between_the_signal_and_the_drain(tiny_models: Path, red_clip: bytes) -> None:
    with running_server(tiny_models, SHUTDOWN_DELAY_S=60) as server:
        server.process.send_signal(signal.SIGTERM)
        server.wait_for(lambda: not server.is_ready(), "not ready")
        assert server.get("/healthz").is_success
        assert server.post(red_clip).status_code == 200
        assert server.stop() == 0  # the second signal ends the delay


def test_misspelt_key_variable_stops_the_start(tiny_models: Path) -> None:
    ended, log = run_to_its_end(tiny_models, API_KEY="secret")
    assert ended == 2
    assert "BLVNET_API_KEY is set but is not a setting" in log[-1]["text"]
    assert "secret" not in str(log)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/"])
def test_head_is_answered_like_get_without_a_body(server: RunningServer, path: str) -> None:
    with server.client() as client:
        answer = client.head(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["Content-Type"] == server.get(path).headers["Content-Type"]
