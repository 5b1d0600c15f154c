"""`/v1/taught`: a model is taught over HTTP from clips, and serves."""

from __future__ import annotations

import io
import os
import shutil
import signal
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.packages.manifest import read_manifest
from tests.support.server import PATIENCE_S, RunningServer, running_server
from tests.support.tiny_models import TinyModel, colour_clip, write_package

RED, BLUE = (200, 30, 30), (30, 30, 200)


def shades(colour: tuple[int, int, int], count: int, start: int = 0) -> list[bytes]:
    """Different clips of nearly the same colour."""
    return [
        colour_clip((colour[0], colour[1] + 4 * number, colour[2])) for number in range(start, start + count)
    ]


REDS, BLUES = shades(RED, 3), shades(BLUE, 3)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    write_package(models, "colours", model=TinyModel(features=True))
    write_package(models, "plain")
    return models


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("taught")


@pytest.fixture(scope="module")
def teaching(models: Path, folder: Path) -> Iterator[RunningServer]:
    """A server that can be taught."""
    with running_server(models, TEACH_DIR=folder, TEACH_MAX_EXAMPLES=8) as server:
        yield server


@pytest.fixture(scope="module")
def client(teaching: RunningServer) -> Iterator[httpx.Client]:
    with teaching.client() as client:
        yield client


def add(client: httpx.Client, name: str, label: str, clip: bytes, **query: Any) -> httpx.Response:
    return client.post(f"/v1/taught/{name}/examples", params={"label": label} | query, content=clip)


def teach(client: httpx.Client, name: str, **query: Any) -> None:
    """Two examples of each of two labels."""
    for label, clips in (("warm", REDS), ("cold", BLUES)):
        for clip in clips[:2]:
            assert add(client, name, label, clip, **query).status_code == 201


def problem(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_a_model_is_taught_and_serves_when_the_training_returns(
    teaching: RunningServer, client: httpx.Client
) -> None:
    first = add(client, "hues", "warm", REDS[0], group="a").json()
    assert {name: first[name] for name in ("created", "name", "label", "group", "labels", "examples")} == {
        "created": True, "name": "hues", "label": "warm", "group": "a", "labels": {"warm": 1}, "examples": 1,
    }  # fmt: skip
    assert (first["predictions"], first["base"]["name"]) == (None, "colours")
    assert first["video"]["frames"] == 24
    teach(client, "hues")
    trained = client.post("/v1/taught/hues/train").json()
    assert (trained["version"], trained["labels"], trained["damaged"]) == (1, ["cold", "warm"], [])
    answer = client.post("/v1/classify", params={"model": "hues"}, content=REDS[2]).json()
    assert (answer["model"], answer["predictions"][0]["label"]) == ({"name": "hues", "version": 1}, "warm")
    assert answer["unsure"] in (True, False)
    again = add(client, "hues", "cold", BLUES[2]).json()
    assert (again["predictions"][0]["label"], again["unsure"]) == ("cold", answer["unsure"])
    assert client.post("/v1/taught/hues/train").json()["version"] == 2
    described = client.get("/v1/taught/hues").json()
    assert described["labels"] == {"cold": 3, "warm": 2}
    assert [entry["label"] for entry in described["examples"]] == ["warm", "warm", "cold", "cold", "cold"]
    assert [(entry["version"], entry["state"]) for entry in described["versions"]] == [
        (2, "ready"),
        (1, "unloaded"),
    ]
    assert described["report"] == client.get("/v1/taught/hues").json()["report"] != trained["report"]
    entry = client.get("/v1/models/hues").json()
    assert (entry["base"], entry["state"]) == (first["base"], "ready")
    assert teaching.metric("blvnet_taught_examples", model="hues") == 5
    assert teaching.metric("blvnet_trainings_total", result="trained") == 2
    assert teaching.metric("blvnet_predictions_total", model="hues", label="warm") == 1
    assert teaching.metric("blvnet_stage_seconds_count", model="hues", stage="inference") == 1


def test_the_open_inference_protocol_knows_the_taught_model(client: httpx.Client) -> None:
    teach(client, "tensors")
    client.post("/v1/taught/tensors/train")
    metadata = client.get("/v2/models/tensors").json()
    assert {output["name"]: output["shape"] for output in metadata["outputs"]} == {
        "logits": [-1, 2],
        "evidence": [-1, 4, 2],
        "features": [-1, 4, 3],
    }
    inputs = [
        {"name": item["name"], "datatype": "UINT8", "shape": [2, *item["shape"][1:]],
         "data": np.full([2, *item["shape"][1:]], 9).ravel().tolist()}
        for item in metadata["inputs"]
    ]  # fmt: skip
    answer = client.post("/v2/models/tensors/infer", json={"inputs": inputs}).json()
    outputs = {output["name"]: np.reshape(output["data"], output["shape"]) for output in answer["outputs"]}
    assert np.allclose(outputs["evidence"].mean(axis=1), outputs["logits"], atol=1e-5)
    assert outputs["logits"].shape == (2, 2)
    (statistics,) = client.get("/v2/models/tensors/stats").json()["model_stats"]
    assert (statistics["inference_count"], statistics["execution_count"]) == (2, 1)


def test_the_same_bytes_count_once_and_keep_their_label(client: httpx.Client) -> None:
    assert add(client, "once", "warm", REDS[0]).json()["created"] is True
    twice = add(client, "once", "warm", REDS[0])
    assert (twice.status_code, twice.json()["created"], twice.json()["examples"]) == (201, False, 1)
    assert problem(add(client, "once", "cold", REDS[0])) == (409, "label_conflict")
    assert client.get("/v1/taught/once").json()["labels"] == {"warm": 1}


@pytest.mark.parametrize("label", ["Warm", "wa rm", " warm x ".replace(" x ", "") + "\u00a0"])
def test_labels_that_people_would_confuse_are_refused(client: httpx.Client, label: str) -> None:
    add(client, "labels", "warm", REDS[0])
    answer = add(client, "labels", label, REDS[1])
    assert answer.status_code == (201 if label.strip() == "warm" else 409)


def test_one_of_two_labels_that_are_sent_together_is_refused(client: httpx.Client) -> None:
    with ThreadPoolExecutor() as callers:
        answers = callers.map(add, [client] * 2, ["twins"] * 2, ["warm", "Warm"], REDS[:2])
    assert sorted(answer.status_code for answer in answers) == [201, 409]


def test_body_of_a_training_is_limited(client: httpx.Client) -> None:
    def answer(size: int) -> tuple[int, str]:
        return problem(client.post("/v1/taught/nothing/train", content=bytes(size)))

    assert answer(65_536) == (404, "model_not_found")
    assert answer(65_537) == (413, "too_large")


def test_too_few_examples_are_reported(client: httpx.Client) -> None:
    assert problem(client.post("/v1/taught/nothing/train")) == (404, "model_not_found")
    add(client, "little", "warm", REDS[0])
    add(client, "little", "warm", REDS[1])
    answer = client.post("/v1/taught/little/train")
    assert problem(answer) == (422, "too_few_examples")
    assert "only 'warm' has clips" in answer.json()["detail"]
    add(client, "little", "cold", BLUES[0])
    assert "add clips of 'cold'" in client.post("/v1/taught/little/train").json()["detail"]
    assert client.get("/v1/taught/little").json()["versions"] == []


@pytest.mark.parametrize(
    ("name", "query", "code"),
    [
        ("plain", {}, (409, "name_taken")),
        ("new", {"base": "plain"}, (422, "invalid_parameter")),
        ("new", {"base": "nonesuch"}, (404, "model_not_found")),
        ("new", {"label": "  "}, (422, "invalid_parameter")),
        ("new", {"label": "a\nb"}, (422, "invalid_parameter")),
        ("new", {"lable": "x"}, (422, "invalid_parameter")),
        ("..", {}, (422, "invalid_parameter")),
        ("-", {}, (422, "invalid_parameter")),
    ],
)
def test_wrong_use_is_refused_before_the_clip_is_received(
    client: httpx.Client, name: str, query: dict[str, str], code: tuple[int, str]
) -> None:
    path = name.replace(".", "%2E")
    answer = client.post(f"/v1/taught/{path}/examples", params={"label": "warm"} | query, content=REDS[0])
    assert problem(answer) in (code, (404, "not_found"))


def test_a_clip_that_does_not_decode_is_refused_and_the_good_ones_stay(client: httpx.Client) -> None:
    add(client, "mixed", "warm", REDS[0])
    assert problem(add(client, "mixed", "warm", b"no video at all")) == (415, "not_a_video")
    assert problem(add(client, "mixed", "warm", REDS[1][:600])) in (
        (422, "undecodable"),
        (415, "not_a_video"),
    )
    assert client.get("/v1/taught/mixed").json()["labels"] == {"warm": 1}


def test_the_limit_of_examples_is_kept(client: httpx.Client) -> None:
    for clip in shades(RED, 8):
        assert add(client, "full", "warm", clip).status_code == 201
    answer = add(client, "full", "warm", BLUES[0])
    assert problem(answer) == (409, "teaching_full")
    assert answer.json()["detail"] == "full has 8 examples, the limit; delete some."


def test_examples_and_models_are_deleted(client: httpx.Client, folder: Path) -> None:
    teach(client, "gone")
    client.post("/v1/taught/gone/train")
    (first, *_) = client.get("/v1/taught/gone").json()["examples"]
    counts = client.delete(f"/v1/taught/gone/examples/{first['id']}").json()
    assert counts == {"labels": {"cold": 2, "warm": 1}, "examples": 3}
    assert problem(client.delete(f"/v1/taught/gone/examples/{first['id']}")) == (404, "example_not_found")
    assert client.delete("/v1/taught/gone").status_code == 204
    assert problem(client.get("/v1/taught/gone")) == (404, "model_not_found")
    assert problem(client.get("/v1/models/gone")) == (404, "model_not_found")
    assert list(folder.glob("*/*gone*")) == []
    teach(client, "gone")  # the name is free again
    assert client.post("/v1/taught/gone/train").json()["version"] == 1


def test_the_package_is_downloaded_as_it_serves(client: httpx.Client, tmp_path: Path) -> None:
    assert problem(client.get("/v1/taught/pack/package")) == (404, "model_not_found")
    teach(client, "pack")
    assert problem(client.get("/v1/taught/pack/package")) == (404, "model_not_found")
    client.post("/v1/taught/pack/train", params={"mirror": "true"})
    answer = client.get("/v1/taught/pack/package")
    assert answer.headers["content-type"] == "application/zip"
    zipfile.ZipFile(io.BytesIO(answer.content)).extractall(tmp_path)
    manifest = read_manifest(tmp_path / "pack" / "1")
    assert (manifest.labels, manifest.mirror) == (("cold", "warm"), (0, 1))


def test_a_list_of_the_taught_models_has_the_limits(client: httpx.Client) -> None:
    add(client, "listed", "warm", REDS[0])
    found = client.get("/v1/taught").json()
    assert {"listed"} <= {entry["name"] for entry in found["taught"]}
    assert found["limits"] == {"max_examples": 8, "max_bytes": 1_000_000_000, "max_models": 200}
    assert found["bytes"] == sum(entry["bytes"] for entry in found["taught"])


def test_without_a_folder_teaching_is_off(models: Path, server: RunningServer) -> None:
    assert problem(server.get("/v1/taught")) == (403, "teaching_off")
    with server.client() as client:
        assert problem(add(client, "hues", "warm", REDS[0])) == (403, "teaching_off")


def training_process(server: RunningServer) -> int:
    """Wait for the process of a training and stop it, so that the training does not end."""

    def find() -> list[int]:
        children = Path(f"/proc/{server.process.pid}/task").glob("*/children")
        pids = [int(pid) for path in children for pid in path.read_text().split()]
        return [pid for pid in pids if b"training_process" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    (pid,) = server.wait_for(find, "a training process")
    os.kill(pid, signal.SIGSTOP)
    return pid


def ended(pid: int) -> bool:
    """Whether a process is gone, apart from its exit status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def until_ended(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not ended(pid):
        assert time.monotonic() < deadline, "the training process outlives its service"
        time.sleep(0.01)


def test_a_training_is_alone_and_a_killed_or_cancelled_one_loses_nothing(
    teaching: RunningServer, client: httpx.Client
) -> None:
    teach(client, "busy")
    client.post("/v1/taught/busy/train")
    with ThreadPoolExecutor() as callers:
        first = callers.submit(client.post, "/v1/taught/busy/train")
        pid = training_process(teaching)
        assert problem(client.post("/v1/taught/busy/train")) == (409, "training")
        assert problem(client.delete("/v1/taught/busy")) == (409, "training")
        assert client.get("/v1/taught/busy").json()["training"] is True
        assert client.post("/v1/classify", params={"model": "busy"}, content=REDS[2]).is_success
        os.kill(pid, signal.SIGKILL)
        failed = first.result()
    assert problem(failed) == (503, "training_failed")
    assert "its process was ended by SIGKILL; the examples are kept" in failed.json()["detail"]
    with ThreadPoolExecutor() as callers, teaching.client() as impatient:
        leaving = callers.submit(impatient.post, "/v1/taught/busy/train", timeout=3)
        pid = training_process(teaching)
        with pytest.raises(httpx.ReadTimeout):
            leaving.result()
    until_ended(pid)
    teaching.wait_for(lambda: not client.get("/v1/taught/busy").json()["training"], "the end of the training")
    assert teaching.metric("blvnet_trainings_total", result="cancelled") == 1
    assert teaching.metric("blvnet_trainings_total", result="failed") == 1
    described = client.get("/v1/taught/busy").json()
    assert (described["labels"], len(described["versions"])) == ({"cold": 2, "warm": 2}, 1)
    assert client.post("/v1/taught/busy/train").json()["version"] == 2


def test_folder_that_cannot_be_written_is_reported_and_nothing_is_lost(
    client: httpx.Client, folder: Path
) -> None:
    (folder / "examples" / "blocked").write_bytes(b"in the way")
    answer = add(client, "blocked", "warm", REDS[0])
    assert problem(answer) == (503, "storage_full")
    assert "nothing is lost" in answer.json()["detail"]
    (folder / "examples" / "blocked").unlink()
    assert add(client, "blocked", "warm", REDS[0]).json()["examples"] == 1
    add(client, "blocked", "warm", REDS[1])
    for clip in BLUES[:2]:
        add(client, "blocked", "cold", clip)
    (folder / "models" / "blocked").write_bytes(b"in the way")
    assert problem(client.post("/v1/taught/blocked/train")) == (503, "storage_full")
    (folder / "models" / "blocked").unlink()
    assert client.post("/v1/taught/blocked/train").json()["version"] == 1


def test_a_second_service_serves_without_teaching(
    models: Path, folder: Path, teaching: RunningServer
) -> None:
    with running_server(models, TEACH_DIR=folder) as second:
        answer = second.get("/v1/taught")
        assert problem(answer) == (403, "teaching_off")
        assert "cannot be used; the log says why" in answer.json()["detail"]
        second.line(level="warning")


def test_examples_survive_a_killed_service_and_damaged_files(models: Path, tmp_path: Path) -> None:
    """One server for several cases, because a start takes seconds."""
    settings: dict[str, Any] = {"TEACH_DIR": tmp_path, "API_KEYS": "user", "ADMIN_KEY": "admin"}
    as_admin = {"Authorization": "Bearer admin"}
    with running_server(models, **settings) as server:
        for headers in ({}, {"Authorization": "Bearer user"}):
            assert problem(httpx.get(f"{server.url}/v1/taught", headers=headers)) == (401, "unauthorized")
        with server.client(headers=as_admin) as client:
            teach(client, "hues")
            assert client.post("/v1/taught/hues/train").status_code == 200
        with ThreadPoolExecutor() as callers, server.client(headers=as_admin) as client:
            cut_off = callers.submit(client.post, "/v1/taught/hues/train")
            pid = training_process(server)
            assert server.stop(signal.SIGKILL) == -signal.SIGKILL
            with pytest.raises(httpx.TransportError):
                cut_off.result()
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
        until_ended(pid)
    examples = tmp_path / "examples" / "hues"
    (examples / ".half-written.npz.0").write_bytes(b"half")
    damaged, cut, *_ = sorted(examples.glob("*.npz"))
    damaged.write_bytes(b"no example")
    with running_server(models, **settings) as server, server.client(headers=as_admin) as client:
        described = client.get("/v1/taught/hues").json()
        assert (described["damaged"], len(described["examples"])) == ([damaged.name], 3)
        assert [entry["state"] for entry in described["versions"]] == ["ready"]
        assert not (examples / ".half-written.npz.0").exists()
        for label, clip in (("warm", REDS[2]), ("warm", REDS[0]), ("cold", BLUES[2]), ("cold", BLUES[0])):
            add(client, "hues", label, clip)
        content = bytearray(cut.read_bytes())
        content[200] ^= 255  # within the features: found when they are read
        cut.write_bytes(content)
        trained = client.post("/v1/taught/hues/train").json()
        assert (trained["version"], trained["damaged"]) == (2, [cut.name])
        write_package(models, "colours", 2, model=TinyModel(features=True, gain=5))
        try:
            client.post("/v2/repository/models/colours/load")
            assert add(client, "hues", "warm", shades(RED, 1, 9)[0]).status_code == 201  # on the old base
            assert problem(add(client, "hues", "warm", REDS[1], base="colours")) == (409, "base_changed")
            refusal = client.post("/v2/repository/models/colours/unload")
            assert "is the base of the taught models hues; unload them first" in refusal.json()["error"]
        finally:
            shutil.rmtree(models / "colours" / "2")


def test_every_method_of_a_path_is_allowed(client: httpx.Client) -> None:
    answer = client.put("/v1/taught/hues")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, DELETE")
