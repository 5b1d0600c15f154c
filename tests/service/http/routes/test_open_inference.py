"""/v2: the Open Inference Protocol with tritonclient and with unusual requests."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.http.open_inference import tensors as open_inference
from service.http.service import BODIES_IN_MEMORY
from tests.support.server import RunningServer, running_server
from tests.support.tiny_models import GAIN, ONE_STREAM, TinyModel, colour_clip, write_package

INFER = "/v2/models/tiny/infer"
LITTLE, BIG = [1, 4, 32, 32, 3], [1, 4, 16, 16, 3]


@pytest.fixture(scope="module")
def answers(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The answers to `triton_user` for a green clip and its tensors."""
    clip = tmp_path_factory.mktemp("triton") / "clip.mp4"
    clip.write_bytes(colour_clip((0, 255, 0)))
    command = [
        sys.executable,
        "-m",
        "tests.service.http.routes.triton_user",
        server.url.split("//")[1],
        str(clip),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    parsed: dict[str, Any] = json.loads(done.stdout)
    return parsed


def test_triton_client_finds_server_and_model(answers: dict[str, Any]) -> None:
    assert (answers["live"], answers["ready"], answers["model_ready"]) == (True, True, True)
    assert answers["other_ready"] is False
    assert answers["server"]["name"] == "blvnet-serve"
    assert "binary_tensor_data" in answers["server"]["extensions"]
    assert answers["model"] == {
        "name": "tiny",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [
            {"name": "little", "datatype": "UINT8", "shape": [-1, *LITTLE[1:]]},
            {"name": "big", "datatype": "UINT8", "shape": [-1, *BIG[1:]]},
        ],
        "outputs": [
            {"name": "logits", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "evidence", "datatype": "FP32", "shape": [-1, 4, 3]},
        ],
    }


@pytest.mark.parametrize("form", ["False-False", "False-True", "True-False", "True-True"])
def test_triton_client_infers_with_json_and_binary_tensors(answers: dict[str, Any], form: str) -> None:
    got = answers["tensors"][form]
    assert got["id"] == "seven"
    assert got["evidence_shape"] == [2, 4, 3]
    np.testing.assert_allclose(got["logits"], [[0, 0, GAIN], [GAIN, 0, 0]], atol=1e-5)


def test_triton_client_sends_an_encoded_clip(answers: dict[str, Any]) -> None:
    [logits] = answers["clip"]
    assert np.argmax(logits) == 1
    best, _ = answers["labels"]
    value, index, label = best.split(":")
    assert (index, label) == ("1", "green")
    assert float(value) == pytest.approx(logits[1], abs=1e-5)
    assert answers["error"].startswith("415: ")


def test_triton_client_compresses_bodies(answers: dict[str, Any]) -> None:
    for logits in answers["compressed"]:
        np.testing.assert_allclose(logits, [[GAIN, 0, 0]], atol=1e-5)


def test_triton_client_gets_configuration_and_statistics(answers: dict[str, Any]) -> None:
    config = answers["config"]
    assert (config["name"], config["backend"], config["max_batch_size"]) == ("tiny", "onnxruntime", 1)
    assert config["input"][0] == {"name": "little", "data_type": "TYPE_UINT8", "dims": LITTLE[1:]}
    assert config["output"][0] == {"name": "logits", "data_type": "TYPE_FP32", "dims": [3]}
    [statistics] = answers["statistics"]["model_stats"]
    assert (statistics["name"], statistics["version"]) == ("tiny", "1")
    assert statistics["inference_stats"]["success"]["count"] >= 8
    assert statistics["inference_stats"]["fail"]["count"] >= 1
    assert statistics["inference_count"] >= statistics["execution_count"] > 0
    assert statistics["inference_stats"]["compute_infer"]["ns"] > 0
    assert "tiny" in {item["name"] for item in answers["all_statistics"]["model_stats"]}


def test_large_json_is_refused_and_does_not_block_the_process(server: RunningServer) -> None:
    nested = (
        b'{"inputs":[{"name":"little","shape":[1],"datatype":"UINT8","data":[' + b"[]," * 200_000 + b"[]]}]}"
    )
    answer = infer(server, nested)
    assert answer.status_code == 400
    assert "more than 100000 lists and objects" in answer.json()["error"]
    document = json.dumps(pixels()).encode()
    padded = document + b" " * 1000
    answer = infer(server, padded, **{"Inference-Header-Content-Length": str(5_000_000)})
    assert (answer.status_code, "JSON document exceeds" in answer.json()["error"]) == (413, True)


def test_clip_as_base64_in_json_is_classified(server: RunningServer, red_clip: bytes) -> None:
    answer = infer(server, clip_input(base64.b64encode(red_clip).decode()), version="/versions/1")
    document = answer.json()
    assert (document["model_name"], document["model_version"]) == ("tiny", "1")
    logits, evidence = document["outputs"]
    assert (logits["shape"], evidence["shape"], logits["datatype"]) == ([1, 3], [1, 4, 3], "FP32")
    score = server.post(red_clip).json()["predictions"][0]["score"]
    softmax = np.exp(logits["data"]) / np.exp(logits["data"]).sum()
    assert softmax[0] == pytest.approx(score, abs=1e-4)
    assert {"receive", "decode", "queue", "inference"} == {
        part.split(";")[0].strip() for part in answer.headers["Server-Timing"].split(",")
    }
    line = server.line(request_id=answer.headers["X-Request-ID"], event="request")
    assert (line["route"], line["code"], line["model"]) == (
        "/v2/models/{name}/versions/{version}/infer",
        200,
        "tiny",
    )


def clip_input(data: Any, **fields: Any) -> dict[str, Any]:
    """A request with an input `clip`."""
    return {"inputs": [{"name": "clip", "shape": [1], "datatype": "BYTES", "data": [data]} | fields]}


def pixels(little: Any = 0, **fields: Any) -> dict[str, Any]:
    """A request with constant graph inputs; `fields` override those of the first input."""
    first = {"name": "little", "shape": LITTLE, "datatype": "UINT8", "data": [little] * (4 * 32 * 32 * 3)}
    second = {"name": "big", "shape": BIG, "datatype": "UINT8", "data": [0] * (4 * 16 * 16 * 3)}
    return {"inputs": [first | fields, second]}


def infer(server: RunningServer, request: Any, version: str = "", **headers: str) -> httpx.Response:
    """Post a request; bytes are sent unchanged."""
    content = request if isinstance(request, bytes) else json.dumps(request).encode()
    with server.client() as client:
        return client.post(f"/v2/models/tiny{version}/infer", content=content, headers=headers)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (b"", "not a JSON document"),
        (b"\xff\xfe", "not a JSON document"),
        (b"[" * 100_000, "not a JSON document"),
        ([], "the document: should be"),
        ({"inputs": []}, "inputs: List should have at least 1"),
        ({"inputs": [{"name": "little"}]}, "inputs.0.shape: Field required"),
        (pixels(256), "whole numbers from 0 to 255"),
        (pixels(-1), "whole numbers from 0 to 255"),
        (pixels(0.5), "whole numbers from 0 to 255"),
        (pixels(True), "whole numbers from 0 to 255"),
        (pixels("0"), "whole numbers from 0 to 255"),
        (pixels(10**30), "whole numbers from 0 to 255"),
        (pixels(data=None), "whole numbers from 0 to 255"),
        (pixels(data=[[1], [1, 2]]), "whole numbers from 0 to 255"),
        (pixels(data=[1]), "has 1 values, but its shape 12288"),
        (pixels(shape=[1, 4, 32, 32]), "the model takes UINT8 [-1, 4, 32, 32, 3]"),
        (pixels(shape=[0, *LITTLE[1:]], data=[]), "the model takes UINT8"),
        (pixels(shape=[-1, *LITTLE[1:]]), "inputs.0.shape.0"),
        (pixels(datatype="FP32"), "is FP32"),
        (pixels(name="large"), "the model takes little and big, or 'clip' alone"),
        (pixels(name="big"), "more than once"),
        (pixels(shape=[2, *LITTLE[1:]], data=[0] * (2 * 4 * 32 * 32 * 3)), "different numbers of clips"),
        (pixels(parameters={"binary_data_size": 5}, data=None), "does not match binary_data_size"),
        (pixels(parameters={"binary_data_size": "5"}, data=None), "does not match binary_data_size"),
        (pixels() | {"outputs": [{"name": "scores"}]}, "Unknown output 'scores'"),
        (
            pixels() | {"outputs": [{"name": "logits", "parameters": {"classification": "many"}}]},
            "'classification' must be",
        ),
        (
            pixels() | {"outputs": [{"name": "evidence", "parameters": {"classification": 1}}]},
            "'classification' must be",
        ),
        (clip_input("no base64!"), "must be base64"),
        (clip_input(7), "must have one string"),
        (clip_input("AAAA", shape=[2]), "must be BYTES with one element"),
        (clip_input("AAAA", datatype="UINT8"), "must be BYTES with one element"),
    ],
)  # fmt: skip
def test_bad_requests_are_400_in_the_protocols_form(
    server: RunningServer, request_: Any, message: str
) -> None:
    answer = infer(server, request_)
    assert (answer.status_code, list(answer.json())) == (400, ["error"])
    assert message in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "length", "message"),
    [
        (b"{}", "3", "not the length of the JSON"),
        (b"{}", "two", "not the length of the JSON"),
        (json.dumps(pixels()).encode() + b"12", None, "not a JSON document"),
        (json.dumps(pixels()).encode() + b"12", "all but 2", "2 more bytes than its inputs"),
    ],
)
def test_a_wrong_length_of_the_document_is_refused(
    server: RunningServer, body: bytes, length: str | None, message: str
) -> None:
    headers = {} if length is None else {"Inference-Header-Content-Length": length}
    if length == "all but 2":
        headers["Inference-Header-Content-Length"] = str(len(body) - 2)
    answer = infer(server, body, **headers)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_binary_clip_of_another_length_than_declared_is_refused(server: RunningServer) -> None:
    document = clip_input("", parameters={"binary_data_size": 6})
    del document["inputs"][0]["data"]
    header = json.dumps(document).encode()
    answer = infer(server, header + b"\x03\0\0\0ab", **{"Inference-Header-Content-Length": str(len(header))})
    assert answer.status_code == 400
    assert "must be a length in 4 bytes" in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/models/nonesuch", 404),
        ("/v2/models/tiny/versions/2", 404),
        ("/v2/models/tiny/versions/2/ready", 404),
        ("/v2/models/tiny/versions/one", 422),
        ("/v2/models/tiny/versions/" + "9" * 5000, 422),
        ("/v2/nowhere", 404),
        ("/v2/models/tiny/infer", 405),
    ],
)
def test_other_errors_have_the_protocols_form_too(server: RunningServer, path: str, status: int) -> None:
    answer = server.get(path)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])


def test_no_video_and_too_large_keep_their_statuses(server: RunningServer) -> None:
    answer = infer(server, clip_input(base64.b64encode(b"no video").decode()))
    assert (answer.status_code, list(answer.json())) == (415, ["error"])
    answer = infer(server, b" " * 2_000_001)
    assert (answer.status_code, list(answer.json())) == (413, ["error"])
    assert server.post(b"no video").json()["code"] == "not_a_video"  # other routes return a problem document


def test_features_are_an_output_of_models_that_have_them(tmp_path: Path) -> None:
    write_package(tmp_path, "base", model=TinyModel(ONE_STREAM, features=True))
    shape = [2, *ONE_STREAM.inputs[0].shape(8)]
    tensor = {"name": "frames", "shape": shape, "datatype": "UINT8", "data": [255] * int(np.prod(shape))}
    with running_server(tmp_path, MAX_JSON_MB=10) as server, server.client() as client:
        outputs = client.get("/v2/models/base").json()["outputs"]
        assert outputs[2] == {"name": "features", "datatype": "FP32", "shape": [-1, 8, 3]}
        answer = client.post("/v2/models/base/infer", json={"inputs": [tensor]}).json()
        assert [(item["name"], item["shape"]) for item in answer["outputs"]] == [
            ("logits", [2, 3]),
            ("evidence", [2, 8, 3]),
            ("features", [2, 8, 3]),
        ]
        assert answer["outputs"][2]["data"] == [255.0] * 48
        wanted = [{"name": "features", "parameters": {"classification": 1}}]
        refused = client.post("/v2/models/base/infer", json={"inputs": [tensor], "outputs": wanted})
        assert refused.status_code == 400


def test_keys_are_asked_for(tiny_models: Path) -> None:
    with running_server(tiny_models, API_KEYS="secret") as server, server.client() as client:
        answer = client.get("/v2/models/tiny")
        assert (answer.status_code, list(answer.json())) == (401, ["error"])
        given = {"Authorization": "Bearer secret"}
        assert client.get("/v2/models/tiny", headers=given).status_code == 200


UPLOAD_MB = 1


def test_many_bodies_at_once_take_no_more_memory_than_one_may(tiny_models: Path) -> None:
    """Concurrent documents of nested lists, which take about 25 times their size when parsed."""
    tensor = {"name": "little", "shape": LITTLE, "datatype": "UINT8", "data": "HERE"}
    head, tail = json.dumps({"inputs": [tensor]}).split('"HERE"')
    data = ",".join(["[]"] * ((UPLOAD_MB * 10**6 - 200) // 3))
    body = f"{head}[{data}]{tail}".encode()
    with running_server(tiny_models, MAX_UPLOAD_MB=UPLOAD_MB) as server:
        before = memory_mb(server, "VmRSS")

        def post(_: int) -> int:
            with server.client() as client:
                return client.post(INFER, content=body).status_code

        with ThreadPoolExecutor(8) as callers:
            assert set(callers.map(post, range(8))) == {400}
        peak = memory_mb(server, "VmHWM")
    room_mb = max(BODIES_IN_MEMORY, open_inference.JSON_MEMORY) * UPLOAD_MB
    assert peak - before < room_mb + SLACK_MB


SLACK_MB = 40  # uploads in progress, and memory kept by the allocator


def memory_mb(server: RunningServer, name: str) -> float:
    text = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+) kB", text)[1]) / 1e3  # type: ignore[index]
