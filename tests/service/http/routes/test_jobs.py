"""/v1/jobs against real servers, in a folder and in Redis: submission, results, SIGKILL, and webhooks."""

from __future__ import annotations

import base64
import json
import secrets
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook

from tests.service.http.routes.test_classify import assert_problem
from tests.service.http.routes.test_timeline import RED_GREEN_RED
from tests.support.http_servers import Received, Reply, answering
from tests.support.job_places import Place, new_place
from tests.support.long_clips import long_clip
from tests.support.server import RunningServer, running_server
from tests.support.tiny_models import colour_clip

SECRET = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
# The name `localhost` is listed too, but not its address 127.0.0.1.
LISTED_ADDRESS = "127.0.0.2"
# Takes a few seconds, so that it is interrupted while it runs.
SLOW = long_clip(400)
KEYS = ("first-key", "second-key")


class Receiver:
    """Receives webhooks at `url` and answers the first delivery with 500."""

    def __init__(self) -> None:
        self.url = ""
        self.deliveries: list[Received] = []

    def receive(self, delivery: Received) -> Reply:
        self.deliveries.append(delivery)
        return Reply(500 if len(self.deliveries) == 1 else 204)


@pytest.fixture(scope="module", params=["folder", "redis"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The place of the jobs of `running`."""
    return new_place(request, tmp_path_factory, 1)


@pytest.fixture(scope="module")
def receiver(shared: Place) -> Iterator[Receiver]:
    """A receiver for each kind of place."""
    receiver = Receiver()
    with answering(receiver.receive, LISTED_ADDRESS) as url:
        receiver.url = f"{url}/done"
        yield receiver


@pytest.fixture(params=["folder", "redis"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A place for the jobs of one test."""
    return new_place(request, tmp_path_factory, 2)


@pytest.fixture(scope="module")
def running(tiny_models: Path, shared: Place) -> Iterator[RunningServer]:
    """A server with two keys; webhooks may go to this machine and to a name that has a private address."""
    with running_server(
        tiny_models,
        **shared.settings,
        API_KEYS=",".join(KEYS),
        WEBHOOK_HOSTS=f"{LISTED_ADDRESS},localhost",
        WEBHOOK_SECRET=SECRET,
    ) as server:
        yield server


@contextmanager
def client_of(server: RunningServer, key: str = KEYS[0]) -> Iterator[httpx.Client]:
    with server.client(headers={"Authorization": f"Bearer {key}"}) as client:
        yield client


@pytest.fixture
def client(running: RunningServer) -> Iterator[httpx.Client]:
    with client_of(running) as client:
        yield client


def submit(client: httpx.Client, clip: bytes, key: str | None = None, **parameters: Any) -> dict[str, Any]:
    headers = {} if key is None else {"Idempotency-Key": key}
    answer = client.post("/v1/jobs", content=clip, params=parameters, headers=headers)
    assert answer.status_code == 202, answer.text
    document: dict[str, Any] = answer.json()
    assert answer.headers["Location"] == f"/v1/jobs/{document['id']}"
    return document


def ended(server: RunningServer, client: httpx.Client, job_id: str) -> dict[str, Any]:
    def ask() -> dict[str, Any] | None:
        document: dict[str, Any] = client.get(f"/v1/jobs/{job_id}").raise_for_status().json()
        return document if document["finished_at"] else None

    document = server.wait_for(ask, "the end of the job")
    assert document is not None
    return document


def running_at(servers: Sequence[RunningServer], job_id: str) -> int:
    """Wait until a server runs a job; return its number."""

    def ask() -> list[int]:
        return [
            number for number, server in enumerate(servers) if server.lines(event="job started", job=job_id)
        ]

    [number] = servers[0].wait_for(ask, "a server that runs the job")
    return number


def test_job_has_the_answer_of_a_request(
    running: RunningServer, client: httpx.Client, red_clip: bytes, shared: Place
) -> None:
    job = submit(client, red_clip, top_k=2, evidence=True)
    assert job["state"] in ("queued", "running")
    assert job["parameters"] == {
        "model": "tiny", "top_k": 2, "clips": 1, "crops": 1, "evidence": True, "frames": False,
    }  # fmt: skip
    done = ended(running, client, job["id"])
    assert (done["state"], done["problem"], done["attempts"]) == ("done", None, 1)
    direct = client.post("/v1/classify", content=red_clip, params={"top_k": 2, "evidence": True}).json()
    differing = {"timing_ms", "request_id"}
    for name in direct.keys() - differing:
        assert done["result"][name] == direct[name], name
    assert done["result"]["request_id"] == job["request_id"]
    answer = client.get(done["result_url"])
    assert (answer.headers["Content-Type"], answer.json()) == ("application/json", done["result"])
    assert client.get(done["result_url"], headers={"Range": "bytes=1-4"}).content == answer.content[1:5]
    unchanged = client.get(done["result_url"]).headers
    assert unchanged["ETag"] == answer.headers["ETag"]
    assert not any(name.endswith(f"video:{job['id']}") for name in shared.left())
    assert running.metric("blvnet_jobs_ended_total", kind="classify", state="done") >= 1


def test_timeline_job_has_all_lines(running: RunningServer, client: httpx.Client) -> None:
    job = submit(client, RED_GREEN_RED, kind="timeline", window_s=1.5)
    done = ended(running, client, job["id"])
    assert done["progress"] == {"windows": 4, "of": 4}
    answer = client.get(done["result_url"])
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    *windows, end = map(json.loads, answer.text.splitlines())
    assert end == done["result"]
    direct = client.post("/v1/timeline", content=RED_GREEN_RED, params={"window_s": 1.5})
    assert windows == [json.loads(line) for line in direct.text.splitlines()[:-1]]


def test_same_idempotency_key_is_one_job(
    running: RunningServer, client: httpx.Client, red_clip: bytes
) -> None:
    first = submit(client, red_clip, key="a", top_k=2)
    assert submit(client, red_clip, key="a", top_k=2)["id"] == first["id"]
    with client_of(running, KEYS[1]) as other:
        assert submit(other, red_clip, key="a", top_k=2)["id"] != first["id"]
    for clip, top_k in ((red_clip, 3), (colour_clip((0, 0, 255)), 2)):
        answer = client.post(
            "/v1/jobs", content=clip, params={"top_k": top_k}, headers={"Idempotency-Key": "a"}
        )
        assert_problem(answer, "idempotency_mismatch")


def test_job_fails_with_the_problem_of_the_request(running: RunningServer, client: httpx.Client) -> None:
    done = ended(running, client, submit(client, b"no video at all")["id"])
    assert (done["state"], done["result"], done["result_url"]) == ("failed", None, None)
    assert (done["problem"]["code"], done["problem"]["status"]) == ("not_a_video", 415)
    assert_problem(client.get(f"/v1/jobs/{done['id']}/result"), "job_not_found")


def test_job_belongs_to_the_key_that_submitted_it(
    running: RunningServer, client: httpx.Client, red_clip: bytes
) -> None:
    job = submit(client, red_clip)
    path = f"/v1/jobs/{job['id']}"
    with client_of(running, KEYS[1]) as other:
        for method, url in (("GET", path), ("GET", f"{path}/result"), ("DELETE", path)):
            assert_problem(other.request(method, url), "job_not_found")
    ended(running, client, job["id"])
    assert client.delete(path).status_code == 204
    assert_problem(client.get(path), "job_not_found")


def test_running_job_is_stopped_by_its_deletion(
    running: RunningServer, client: httpx.Client, shared: Place
) -> None:
    job = submit(client, SLOW, kind="timeline", window_s=2)
    path = f"/v1/jobs/{job['id']}"
    running.wait_for(lambda: client.get(path).json()["state"] == "running", "a running job")
    assert client.delete(path).status_code == 204
    following = submit(client, colour_clip((0, 255, 0)))
    assert ended(running, client, following["id"])["result"]["predictions"][0]["label"] == "green"
    assert [name for name in shared.left() if job["id"] in name] == []


@pytest.mark.parametrize(
    ("parameters", "detail"),
    [
        ({"window_s": 2}, "window_s: it does not apply to kind=classify."),
        ({"kind": "timeline", "crops": 3}, "crops: it does not apply to kind=timeline."),
        ({"kind": "timeline", "stride_s": 0.1, "window_s": 60}, "stride_s must be at least"),
        ({"kind": "other"}, "kind"),
        ({"colour": "red"}, "unknown parameter"),
        ({"webhook": "https://elsewhere.example/x"}, "elsewhere.example is not one of the hosts"),
        ({"webhook": "https://☃.example/x"}, "xn--n3h.example is not one of the hosts"),
        ({"webhook": f"ftp://{LISTED_ADDRESS}/x"}, "webhook"),
        ({"webhook": f"http://user:word@{LISTED_ADDRESS}/x"}, "without user and password"),
    ],
)
def test_invalid_parameters_are_refused_at_once(
    client: httpx.Client, red_clip: bytes, parameters: dict[str, Any], detail: str
) -> None:
    answer = client.post("/v1/jobs", content=red_clip, params=parameters)
    assert_problem(answer, "invalid_parameter")
    assert detail in answer.json()["detail"]


def test_webhook_is_signed_and_repeated_after_a_failure(
    running: RunningServer, client: httpx.Client, red_clip: bytes, receiver: Receiver
) -> None:
    job = submit(client, red_clip, webhook=receiver.url)
    running.wait_for(lambda: len(receiver.deliveries) == 2, "a second delivery")
    running.wait_for(
        lambda: (
            client.get(f"/v1/jobs/{job['id']}").json()["webhook"]
            == {"url": receiver.url, "attempts": 2, "delivered": True}
        ),
        "the record of the delivery",
    )
    for delivery in receiver.deliveries:
        document = Webhook(SECRET).verify(delivery.body, dict(delivery.headers))
        assert (document["id"], document["state"]) == (job["id"], "done")
        assert delivery.headers["webhook-id"] == job["id"]


def test_name_with_a_private_address_is_not_called(
    running: RunningServer, client: httpx.Client, red_clip: bytes, receiver: Receiver
) -> None:
    before = len(receiver.deliveries)
    job = submit(client, red_clip, webhook=receiver.url.replace(LISTED_ADDRESS, "localhost"))
    line = running.line(event="webhook failed", host="localhost")
    assert "not public" in line["reason"]
    assert client.get(f"/v1/jobs/{job['id']}").json()["webhook"]["delivered"] is False
    assert len(receiver.deliveries) == before


def test_killed_service_finishes_its_jobs_after_the_restart(tiny_models: Path, place: Place) -> None:
    with running_server(tiny_models, **place.settings) as server, server.client() as client:
        first = submit(client, SLOW, kind="timeline", window_s=4)
        second = submit(client, colour_clip((0, 0, 255)))
        server.wait_for(
            lambda: client.get(f"/v1/jobs/{first['id']}").json()["state"] == "running", "a running job"
        )
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    with running_server(tiny_models, **place.settings) as server, server.client() as client:
        done = ended(server, client, first["id"])
        assert (done["state"], done["attempts"]) == ("done", 2)
        assert done["result"]["summary"]["windows"] == 4
        assert ended(server, client, second["id"])["result"]["predictions"][0]["label"] == "blue"


def test_processes_share_their_jobs(tiny_models: Path, place: Place) -> None:
    """As replicas behind a proxy, each of which may get any request of a caller."""
    with ExitStack() as stack:
        servers = [stack.enter_context(running_server(tiny_models, **place.settings)) for _ in range(2)]
        clients = [stack.enter_context(server.client()) for server in servers]
        first = submit(clients[0], SLOW, key="a", kind="timeline", window_s=4)
        assert submit(clients[1], SLOW, key="a", kind="timeline", window_s=4)["id"] == first["id"]
        runs = running_at(servers, first["id"])
        assert clients[1 - runs].get(f"/v1/jobs/{first['id']}").json()["state"] == "running"
        second = submit(clients[runs], colour_clip((0, 0, 255)))
        assert ended(servers[0], clients[runs], second["id"])["state"] == "done"
        servers[1 - runs].line(event="job ended", job=second["id"])  # the server that was free
        assert clients[runs].get(f"/v1/jobs/{second['id']}/result").is_success
        assert clients[1 - runs].delete(f"/v1/jobs/{first['id']}").status_code == 204
        for client in clients:
            assert_problem(client.get(f"/v1/jobs/{first['id']}"), "job_not_found")
        servers[runs].wait_for(
            lambda: place.left() == [f"{place.result_prefix}{second['id']}"], "an empty store"
        )


def test_replica_finishes_the_job_of_a_killed_one(tiny_models: Path, place: Place) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(running_server(tiny_models, **place.settings)) for _ in range(2)]
        clients = [stack.enter_context(server.client()) for server in servers]
        job = submit(clients[0], SLOW, kind="timeline", window_s=4)
        runs = running_at(servers, job["id"])
        assert servers[runs].stop(signal.SIGKILL) == -signal.SIGKILL
        done = ended(servers[1 - runs], clients[1 - runs], job["id"])
        assert (done["state"], done["attempts"]) == ("done", 2)
        lines = clients[1 - runs].get(done["result_url"]).text.splitlines()
        assert json.loads(lines[-1]) == done["result"]
        assert len(lines) == 5


def test_same_key_at_two_replicas_at_once_is_one_job(
    tiny_models: Path, place: Place, red_clip: bytes
) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(running_server(tiny_models, **place.settings)) for _ in range(2)]
        clients = [stack.enter_context(server.client()) for server in servers]
        with ThreadPoolExecutor(8) as threads:
            jobs = list(threads.map(lambda turn: submit(clients[turn % 2], red_clip, key="a"), range(8)))
        assert len({job["id"] for job in jobs}) == 1
        done = ended(servers[0], clients[0], jobs[0]["id"])
        assert clients[1].get(f"/v1/jobs/{done['id']}").json() == done
        servers[running_at(servers, done["id"])].line(event="job ended", job=done["id"])
        assert sum(len(server.lines(event="job started")) for server in servers) == 1


def test_stopped_service_gives_its_job_back(tiny_models: Path, place: Place) -> None:
    with running_server(tiny_models, **place.settings) as server, server.client() as client:
        job = submit(client, SLOW, kind="timeline", window_s=4)
        server.wait_for(
            lambda: client.get(f"/v1/jobs/{job['id']}").json()["state"] == "running", "a running job"
        )
        assert server.stop() == 0
    with running_server(tiny_models, **place.settings) as server, server.client() as client:
        done = ended(server, client, job["id"])
        assert (done["state"], done["attempts"]) == ("done", 1)


def test_full_queue_is_refused(tiny_models: Path, place: Place, red_clip: bytes) -> None:
    with running_server(tiny_models, **place.settings, JOBS_PENDING=1) as server, server.client() as client:
        submit(client, SLOW, kind="timeline", window_s=4)
        answer = client.post("/v1/jobs", content=red_clip)
        assert_problem(answer, "overloaded")
        assert int(answer.headers["Retry-After"]) > 0


def test_jobs_are_disabled_without_a_folder(server: RunningServer, red_clip: bytes) -> None:
    with server.client() as client:
        assert_problem(client.post("/v1/jobs", content=red_clip), "jobs_off")
        assert_problem(client.get("/v1/jobs/x"), "jobs_off")
