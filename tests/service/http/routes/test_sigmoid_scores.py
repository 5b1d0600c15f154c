"""A model whose labels are independent of each other, on a real server."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from tests.support.server import RunningServer, running_server
from tests.support.tiny_models import GAIN, TinyModel, colour_clip, write_head, write_package

RED, YELLOW = (255, 0, 0), (255, 255, 0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """The same graph twice, with scores of both kinds, and a head on the one with sigmoids."""
    models = tmp_path_factory.mktemp("models")
    base = write_package(models, "several", model=TinyModel(features=True), scores="sigmoid")
    write_package(models, "single")
    write_head(models, base, threshold=0.5)
    with running_server(models, provider="cpu") as running:
        yield running


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def classify(client: httpx.Client, clip: bytes, **parameters: Any) -> dict[str, Any]:
    answer = client.post("/v1/classify", files={"file": clip}, params=parameters)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def logits(client: httpx.Client, clip: bytes) -> dict[str, float]:
    """The logits that belong to the softmax scores, up to a constant: the blue of a yellow clip is 0."""
    found = {item["label"]: item["score"] for item in classify(client, clip, model="single")["predictions"]}
    return {label: math.log(score / found["blue"]) for label, score in found.items()}


def test_scores_are_probabilities_of_each_label(client: httpx.Client) -> None:
    clip = colour_clip(YELLOW)
    found = classify(client, clip, model="several")["predictions"]
    assert {item["label"] for item in found[:2]} == {"red", "green"}
    assert min(item["score"] for item in found[:2]) > 0.99
    assert found[2]["score"] == pytest.approx(0.5, abs=0.05)  # no evidence for or against it
    assert [item["score"] for item in found] == sorted((item["score"] for item in found), reverse=True)
    expected = logits(client, clip)
    for item in found[:2]:
        margin = math.log(item["score"] / (1 - item["score"]))
        blue = math.log(found[2]["score"] / (1 - found[2]["score"]))
        assert margin - blue == pytest.approx(expected[item["label"]], abs=0.01)
        assert margin <= GAIN + 0.1


def test_margins_of_the_moments_add_up_to_the_scores(client: httpx.Client) -> None:
    clip = colour_clip(RED, YELLOW, frames=48)
    answer = classify(client, clip, model="several", evidence=True, clips=2, top_k=2)
    evidence = answer["evidence"]
    assert evidence["runner_up"] is None
    margins, scores = np.array(evidence["margins"]), np.array(evidence["scores"])
    for mean, item in zip(margins.mean(axis=0), answer["predictions"], strict=True):
        assert mean == pytest.approx(math.log(item["score"] / (1 - item["score"])), abs=1e-3)
    assert scores == pytest.approx(1 / (1 + np.exp(-margins)), abs=1e-6)
    green = [item["label"] for item in answer["predictions"]].index("green")
    assert margins[0, green] < 1 < margins[-1, green]  # green appears in the second half


def test_windows_of_a_timeline_have_scores_of_that_kind(client: httpx.Client) -> None:
    clip = colour_clip(RED, YELLOW, frames=100)
    for model, total in (("several", 2.4), ("single", 1.0)):
        answer = client.post("/v1/timeline", content=clip, params={"model": model, "window_s": 2})
        *windows, _ = [json.loads(line) for line in answer.text.splitlines()]
        sums = [sum(item["score"] for item in line["predictions"]) for line in windows]
        assert len(sums) == 2
        assert sums[1] == pytest.approx(total, abs=0.15), model


def test_models_say_how_they_score(client: httpx.Client) -> None:
    models = client.get("/v1/models").json()["models"]
    assert {item["name"]: item["scores"] for item in models} == {
        "several": "sigmoid",
        "single": "softmax",
        "hues": "softmax",
    }


def test_taught_model_on_such_a_base_has_softmax_scores(client: httpx.Client) -> None:
    answer = classify(client, colour_clip(YELLOW), model="hues")
    assert sum(item["score"] for item in answer["predictions"]) == pytest.approx(1)
    assert answer["unsure"] in (True, False)


def test_open_inference_has_the_same_logits_for_both(client: httpx.Client) -> None:
    frames = {"little": np.zeros((1, 4, 32, 32, 3)), "big": np.full((1, 4, 16, 16, 3), 100)}
    inputs = [
        {
            "name": name,
            "shape": list(value.shape),
            "datatype": "UINT8",
            "data": value.astype(int).ravel().tolist(),
        }
        for name, value in frames.items()
    ]
    rows = []
    for model in ("several", "single"):
        answer = client.post(
            f"/v2/models/{model}/infer", json={"inputs": inputs, "outputs": [{"name": "logits"}]}
        )
        assert answer.status_code == 200, answer.text
        rows.append(answer.json()["outputs"][0]["data"])
    assert rows[0] == pytest.approx(rows[1])


def test_schema_says_what_the_scores_are(client: httpx.Client) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    assert "sigmoid" in schemas["ModelInfo"]["properties"]["scores"]["description"]
    assert "sigmoid" in schemas["ClassifyAnswer"]["properties"]["predictions"]["description"]
