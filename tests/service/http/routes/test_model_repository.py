"""/v2/repository and SIGHUP: models loaded, unloaded and swapped while the service runs."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest

from tests.support.server import RunningServer, running_server
from tests.support.tiny_models import ONE_STREAM, TWO_STREAMS, TinyModel, write_package

ADMIN, USER = "the-admin-key", "a-user-key"
DIGEST = "sha256:" + hashlib.sha256(ADMIN.encode()).hexdigest()
AS_ADMIN = {"Authorization": f"Bearer {ADMIN}"}
AS_USER = {"Authorization": f"Bearer {USER}"}
CALLERS = 3


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def changing(models: Path) -> Iterator[RunningServer]:
    """A server whose models change, with both kinds of keys."""
    write_package(models, version=1)
    write_package(models, version=2)
    (write_package(models, "broken") / "model.onnx").write_bytes(b"no graph")
    with running_server(models, ADMIN_KEY=DIGEST, API_KEYS=USER) as server:
        yield server


def ask(server: RunningServer, path: str, headers: Any = AS_ADMIN, content: bytes = b"") -> httpx.Response:
    with server.client(headers=headers) as client:
        return client.post(f"/v2/repository/{path}", content=content)


def row(name: str, version: int, state: str, reason: str = "") -> dict[str, str]:
    return {"name": name, "version": str(version), "state": state, "reason": reason}


def test_triton_client_loads_and_unloads(changing: RunningServer) -> None:
    address = changing.url.split("//")[1]
    command = [sys.executable, "-m", "tests.service.http.routes.triton_admin", address, ADMIN]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    broken, *tiny = got["before"]
    assert (broken["name"], broken["version"], broken["state"]) == ("broken", "1", "UNAVAILABLE")
    assert broken["reason"].startswith("model.onnx has SHA-256 ")
    serves, does_not = [row("tiny", 2, "READY"), row("tiny", 1, "UNAVAILABLE", "unloaded")], "unloaded"
    assert tiny == got["loaded"][1:] == serves
    assert got["unloaded"][1:] == [row("tiny", version, "UNAVAILABLE", does_not) for version in (2, 1)]
    assert got["older"][1:][1] == row("tiny", 1, "READY")
    assert got["no key"].startswith("401: Send the admin key")
    assert got["nonesuch"] == "404: There is no package of a model 'nonesuch'; there are broken, tiny."
    assert got["refused"].startswith("409: broken/1 is refused: model.onnx has SHA-256 ")
    assert changing.metric("blvnet_model_refused", model="broken", version="1") == 1


def test_versions_are_served_side_by_side_when_asked_for(changing: RunningServer) -> None:
    config = json.dumps({"parameters": {"config": '{"version_policy": {"all": {}}}'}})
    answer = ask(changing, "models/tiny/load", content=config.encode())
    assert answer.json() == [row("tiny", 2, "READY"), row("tiny", 1, "READY")]
    assert ask(changing, "index", content=b'{"ready": true}').json() == answer.json()
    with changing.client(headers=AS_USER) as client:
        assert client.get("/v2/models/tiny").json()["versions"] == ["1", "2"]
        for version in (1, 2):
            assert client.get(f"/v2/models/tiny/versions/{version}/ready").status_code == 200
        assert "model_repository" in client.get("/v2").json()["extensions"]


@pytest.mark.parametrize("path", ["index", "models/tiny/load", "models/tiny/unload"])
@pytest.mark.parametrize("headers", [{}, AS_USER, {"Authorization": f"Bearer {DIGEST}"}])
def test_only_the_admin_key_may_change_models(changing: RunningServer, path: str, headers: Any) -> None:
    answer = ask(changing, path, headers)
    assert (answer.status_code, list(answer.json())) == (401, ["error"])


def test_admin_key_gives_no_other_access_and_is_never_logged(changing: RunningServer) -> None:
    with changing.client(headers=AS_ADMIN) as client:
        assert client.get("/v1/models").status_code == 401
    assert ADMIN not in json.dumps(changing.log)
    assert DIGEST not in json.dumps(changing.log)


@pytest.mark.parametrize("path", ["index", "models/tiny/load", "models/tiny/unload"])
def test_models_cannot_be_changed_without_an_admin_key(server: RunningServer, path: str) -> None:
    answer = ask(server, path)
    assert answer.status_code == 403
    assert "BLVNET_ADMIN_KEY" in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"parameters": {"file:1/model.onnx": "AAAA"}}, "parameters.file:1/model.onnx: Extra inputs"),
        ({"parameters": {"config": "{"}}, "Invalid JSON"),
        ({"parameters": {"config": '{"max_batch_size": 8}'}}, "version_policy: Field required"),
        ({"parameters": {"config": '{"version_policy": {}}'}}, "must be one of latest, all and specific"),
        ({"parameters": {"config": '{"version_policy": {"all": null}}'}}, "must be one of"),
        ({"parameters": {"config": '{"version_policy": {"specific": {"versions": [0]}}}'}}, "versions.0"),
        ({"version": 1}, "version: Extra inputs"),
        ([], "The request: "),
    ],
)
def test_invalid_load_parameters_are_refused(changing: RunningServer, body: Any, error: str) -> None:
    answer = ask(changing, "models/tiny/load", content=json.dumps(body).encode())
    assert answer.status_code == 400
    assert error in answer.json()["error"]


def test_a_body_too_large_is_refused(changing: RunningServer) -> None:
    assert ask(changing, "index", content=b"{}" + b" " * 65_534).status_code == 200
    assert ask(changing, "index", content=b"{}" + b" " * 65_535).status_code == 413


def test_sighup_finds_new_invalid_and_removed_packages(
    changing: RunningServer, models: Path, red_clip: bytes
) -> None:
    changing.process.send_signal(signal.SIGHUP)
    changing.line(event="models are rescanned")
    write_package(models, "new")
    (write_package(models, "tiny", 3) / "model.json").write_text("{")
    shutil.rmtree(models / "broken")
    changing.process.send_signal(signal.SIGHUP)
    changing.wait_for(lambda: len(changing.lines(event="models are rescanned")) == 2, "second rescan")
    with changing.client(headers=AS_USER) as client:
        entries = client.get("/v1/models").json()["models"]
        states = {(entry["name"], entry["version"]): entry["state"] for entry in entries}
        assert states.keys() == {("new", 1), ("tiny", 3), ("tiny", 2), ("tiny", 1)}
        assert (states["new", 1], states["tiny", 3]) == ("ready", "refused")
        assert client.post("/v1/classify", content=red_clip, params={"model": "new"}).status_code == 200
    reason = "model.json cannot be read as JSON: EOF while parsing an object at line 1 column 1"
    assert changing.line(event=f"model tiny/3 is refused: {reason}")
    assert changing.metric("blvnet_model_refused", model="broken", version="1") == 0
    assert changing.metric("blvnet_model_refused", model="tiny", version="3") == 1


def test_no_request_fails_while_models_are_swapped(tmp_path: Path, red_clip: bytes) -> None:
    """Versions differ in frames and labels, so that mixed answers would be detected."""

    def write(version: int) -> Path:
        labels = [f"{colour} {version}" for colour in ("red", "green", "blue")]
        spec = ONE_STREAM if version % 2 else TWO_STREAMS
        return write_package(tmp_path, version=version, model=TinyModel(spec, labels, work=500))

    write(1)
    ended = Event()
    with (
        running_server(tmp_path, ADMIN_KEY=ADMIN, DECODE_WORKERS=2) as server,
        ThreadPoolExecutor(CALLERS) as callers,
    ):
        seen: set[int] = set()

        def call() -> None:
            with server.client() as client:
                while not ended.is_set():
                    answer = client.post("/v1/classify", content=red_clip)
                    assert answer.status_code == 200, answer.text
                    version = answer.json()["model"]["version"]
                    assert answer.json()["predictions"][0]["label"] == f"red {version}"
                    seen.add(version)

        calls = [callers.submit(call) for _ in range(CALLERS)]
        try:
            for version in range(2, 7):
                write(version)
                shutil.rmtree(tmp_path / "tiny" / str(version - 1))
                assert ask(server, "models/tiny/load").json()[0] == row("tiny", version, "READY")
                server.wait_for(
                    lambda: version in seen or any(call.done() for call in calls),  # noqa: B023
                    f"answer of version {version}",
                )
        finally:
            ended.set()
        for done in calls:
            done.result()
        server.wait_for(lambda: len(server.lines(event="model tiny/5 is unloaded")) == 1, "unloading")
        [entry] = server.get("/v1/models").json()["models"]
        assert (entry["version"], entry["state"]) == (6, "ready")
