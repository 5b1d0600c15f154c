"""POST /v1/classify against a real server: valid and invalid files, alone and concurrently."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service.http.problems import PROBLEM_TYPES
from tests.support.clips import audio_clip, numbered_clip, png_picture
from tests.support.server import RunningServer
from tests.support.tiny_models import colour_clip

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
STAGES = ["receive", "decode", "queue", "inference", "total"]


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def classify(client: httpx.Client, clip: bytes, **parameters: Any) -> dict[str, Any]:
    answer = client.post("/v1/classify", files={"file": clip}, params=parameters)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def padded(clip: bytes, size: int) -> bytes:
    """The same mp4 with a skipped box, `size` bytes in total."""
    free = size - len(clip)
    return clip + free.to_bytes(4, "big") + b"free" + bytes(free - 8)


def test_answer_has_the_fields_of_the_contract(client: httpx.Client) -> None:
    answer = classify(client, colour_clip(COLOURS["red"], frames=24), top_k=2)
    assert list(answer) == [
        "model", "predictions", "video", "sampled", "evidence", "frames", "timing_ms",
        "sha256", "provider", "cached", "request_id",
    ]  # fmt: skip
    assert (len(answer["sha256"]), answer["provider"]) == (64, "cpu")
    assert answer["model"] == {"name": "tiny", "version": 1}
    assert [item["label"] for item in answer["predictions"]][:1] == ["red"]
    assert [list(item) for item in answer["predictions"]] == [["label", "index", "score"]] * 2
    assert answer["video"] == {
        "container": "mp4", "codec": "h264", "width": 96, "height": 64, "rotation": 0, "frames": 24,
        "fps": 25.0, "duration_s": 0.96, "broken_packets": 0, "timestamps": "exact", "track": 0,
    }  # fmt: skip
    assert answer["sampled"]["frames"] == [1, 4, 7, 10, 13, 16, 19, 22]
    assert answer["sampled"]["timestamps_s"] == [0.04, 0.16, 0.28, 0.4, 0.52, 0.64, 0.76, 0.88]
    assert (answer["evidence"], answer["frames"]) == (None, None)
    assert list(answer["timing_ms"]) == STAGES


@pytest.mark.parametrize("content_type", ["video/mp4", "application/octet-stream"])
def test_raw_body_is_a_clip(client: httpx.Client, red_clip: bytes, content_type: str) -> None:
    answer = client.post("/v1/classify", content=red_clip, headers={"Content-Type": content_type})
    assert answer.json()["predictions"][0]["label"] == "red"


def test_scores_are_probabilities_best_first(client: httpx.Client, red_clip: bytes) -> None:
    scores = [item["score"] for item in classify(client, red_clip)["predictions"]]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1)


def test_evidence_follows_the_clip(client: httpx.Client) -> None:
    answer = classify(client, colour_clip(COLOURS["red"], COLOURS["blue"], frames=48), evidence=True)
    labels = [item["label"] for item in answer["predictions"]]
    best = [labels[row.index(max(row))] for row in answer["evidence"]["scores"]]
    assert best == ["red", "red", "blue", "blue"]
    assert answer["evidence"]["timestamps_s"] == sorted(answer["evidence"]["timestamps_s"])


def test_margins_of_the_moments_add_up_to_the_scores(client: httpx.Client) -> None:
    clip = colour_clip(COLOURS["red"], COLOURS["red"], COLOURS["blue"], frames=48)
    answer = classify(client, clip, evidence=True, top_k=1, clips=2)
    [best], evidence = answer["predictions"], answer["evidence"]
    assert (best["label"], evidence["runner_up"]["label"]) == ("red", "blue")
    assert min(evidence["margins"])[0] < 0 < max(evidence["margins"])[0]
    mean = sum(row[0] for row in evidence["margins"]) / len(evidence["margins"])
    assert mean == pytest.approx(math.log(best["score"] / evidence["runner_up"]["score"]), abs=1e-4)


@pytest.mark.parametrize("crops", [1, 10])
def test_frames_are_those_that_the_network_saw(client: httpx.Client, crops: int) -> None:
    clip = colour_clip(COLOURS["red"], COLOURS["blue"], frames=48)
    answer = classify(client, clip, frames=True, crops=crops)
    frames = answer["frames"]
    assert [item["frame"] for item in frames] == answer["sampled"]["frames"]
    assert [item["timestamp_s"] for item in frames] == answer["sampled"]["timestamps_s"]
    assert [(item["input"], item["size"]) for item in frames] == [("little", 32), ("big", 16)] * 4
    for number, item in enumerate(frames):
        image = Image.open(
            io.BytesIO(base64.b64decode(item["image"].removeprefix("data:image/jpeg;base64,")))
        )
        red, _, blue = np.asarray(image).mean(axis=(0, 1))
        assert image.size == (item["size"], item["size"])
        assert (red > 200 > 50 > blue) == (number < 4)


def test_frames_of_an_answer_are_limited(client: httpx.Client, red_clip: bytes) -> None:
    answer = classify(client, red_clip, frames=True, clips=10)
    assert len(answer["sampled"]["frames"]) == 80
    assert len(answer["frames"]) == 64


def test_several_clips_sample_several_times(client: httpx.Client) -> None:
    answer = classify(client, numbered_clip(frames=60), clips=3, crops=10)
    assert len(answer["sampled"]["frames"]) == 24


def test_stages_are_in_the_server_timing_header(client: httpx.Client, red_clip: bytes) -> None:
    answer = client.post("/v1/classify", content=red_clip)
    header = dict(re.findall(r"(\w+);dur=([\d.]+)", answer.headers["Server-Timing"]))
    assert {stage: float(value) for stage, value in header.items()} == answer.json()["timing_ms"]


def test_stages_add_up_to_no_more_than_the_total(client: httpx.Client, red_clip: bytes) -> None:
    timing = classify(client, red_clip)["timing_ms"]
    assert 0 < sum(timing[stage] for stage in STAGES[:-1]) <= timing["total"] + 0.01


def test_clip_too_large_for_memory_is_answered_and_leaves_no_file(
    client: httpx.Client, red_clip: bytes, upload_folder: Path
) -> None:
    before = {*upload_folder.rglob("*")}
    assert classify(client, padded(red_clip, 1_900_000))["predictions"][0]["label"] == "red"
    assert {*upload_folder.rglob("*")} == before


def half_an_mp4() -> bytes:
    """The index at the end is lost."""
    clip = numbered_clip(frames=40)
    assert clip.index(b"moov") > len(clip) // 2
    return clip[: len(clip) // 2]


BAD_BODIES: dict[str, tuple[dict[str, Any], str]] = {
    "empty body": ({"content": b""}, "bad_request"),
    "empty form": ({"files": {"file": b""}}, "bad_request"),
    "form without the field": ({"files": {"clip": b"x"}}, "bad_request"),
    "form with another field": ({"files": {"file": b"x"}, "data": {"top_k": "3"}}, "bad_request"),
    "no form": (
        {"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=b"}},
        "bad_request",
    ),
    "text": ({"content": b"Not a video, just words. " * 100}, "not_a_video"),
    "picture": ({"content": png_picture()}, "not_a_video"),
    "sound": ({"content": audio_clip()}, "not_a_video"),
    "content type of text": ({"content": b"x", "headers": {"Content-Type": "text/plain"}}, "not_a_video"),
    "curl without a type": ({"data": {"file": "x"}}, "not_a_video"),
    "half an mp4": ({"content": half_an_mp4()}, "undecodable"),
    "past the limit": ({"content": bytes(2_000_001)}, "too_large"),
    "past the limit in a form": ({"files": {"file": bytes(2_000_001)}}, "too_large"),
    "past the limit in chunks": ({"content": (bytes(100_000) for _ in range(21))}, "too_large"),
}


@pytest.mark.parametrize("case", BAD_BODIES)
def test_invalid_body_is_a_problem_and_the_next_clip_is_answered(
    client: httpx.Client, red_clip: bytes, upload_folder: Path, case: str
) -> None:
    request, code = BAD_BODIES[case]
    before = {*upload_folder.rglob("*")}
    answer = client.post("/v1/classify", **request)
    assert_problem(answer, code)
    assert classify(client, red_clip)["predictions"][0]["label"] == "red"
    assert {*upload_folder.rglob("*")} == before


@pytest.mark.parametrize(
    ("query", "code", "detail"),
    [
        ("top_k=0", "invalid_parameter", "top_k"),
        ("top_k=101", "invalid_parameter", "top_k"),
        ("top_k=three", "invalid_parameter", "top_k"),
        ("clips=0", "invalid_parameter", "clips"),
        ("crops=4", "invalid_parameter", "crops"),
        ("evidence=perhaps", "invalid_parameter", "evidence"),
        ("topk=3", "invalid_parameter", "topk"),
        ("model=nonesuch", "model_not_found", "nonesuch"),
        ("model=", "invalid_parameter", "model"),
    ],
)
def test_bad_parameter_is_a_problem(
    client: httpx.Client, red_clip: bytes, query: str, code: str, detail: str
) -> None:
    answer = client.post(f"/v1/classify?{query}", content=red_clip)
    assert_problem(answer, code)
    assert detail in answer.json()["detail"]


def test_every_bad_parameter_is_listed(client: httpx.Client) -> None:
    answer = client.post("/v1/classify?top_k=0&clips=11", content=b"x")
    assert [error["parameter"] for error in answer.json()["errors"]] == ["top_k", "clips"]


def test_clip_past_a_limit_says_which(client: httpx.Client) -> None:
    answer = client.post("/v1/classify", content=numbered_clip(frames=2, width=1024, height=512))
    assert_problem(answer, "over_limit")
    assert (answer.json()["limit"], answer.json()["value"]) == ("pixels", 1024 * 512)


def test_refusals_and_answers_are_counted(
    server: RunningServer, client: httpx.Client, red_clip: bytes
) -> None:
    def counts() -> list[float]:
        return [
            server.metric("blvnet_rejected_total", reason="not_a_video"),
            server.metric("blvnet_requests_total", route="/v1/classify", code="415"),
            server.metric("blvnet_requests_total", route="/v1/classify", code="200"),
            server.metric("blvnet_predictions_total", model="tiny", label="red"),
            server.metric("blvnet_stage_seconds_count", stage="decode", model="tiny"),
            server.metric("blvnet_upload_bytes_count"),
        ]

    before = counts()
    classify(client, red_clip)
    client.post("/v1/classify", content=b"not a video at all")
    assert [after - first for after, first in zip(counts(), before, strict=True)] == [1, 1, 1, 1, 1, 2]


def test_concurrent_callers_get_their_own_answers(server: RunningServer) -> None:
    clips = {name: colour_clip(colour) for name, colour in COLOURS.items()}
    wanted = [*COLOURS] * 8

    def ask(colour: str) -> str:
        label: str = server.post(clips[colour]).json()["predictions"][0]["label"]
        return label

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, wanted)) == wanted


def assert_problem(answer: httpx.Response, code: str) -> None:
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["code"], answer.status_code) == (code, PROBLEM_TYPES[code].status)
    assert problem["status"] == answer.status_code
    assert problem["title"] == PROBLEM_TYPES[code].title
    assert problem["type"]
    assert problem["detail"]
    assert problem["request_id"] == answer.headers["X-Request-ID"]
