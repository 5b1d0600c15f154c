"""POST /v1/timeline against a real server: streamed lines and all endings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.http.problems import PROBLEM_TYPES
from service.http.schemas.common import Problem
from service.http.schemas.timeline import LINE, TimelineEnd, TimelineWindow
from tests.service.http.routes.test_classify import BAD_BODIES, STAGES, assert_problem
from tests.support.clips import numbered_clip, remuxed
from tests.support.long_clips import long_clip
from tests.support.server import RunningServer, running_server
from tests.support.tiny_models import colour_clip

# Two seconds per colour.
RED_GREEN_RED = colour_clip((255, 0, 0), (0, 255, 0), (255, 0, 0), frames=150)
PATH = "/v1/timeline"
SECONDS = {"window_s": 1}


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture(scope="module")
def limited(tiny_models: Path) -> Iterator[RunningServer]:
    """A server with one concurrent timeline and 100 windows, for videos beyond the limits of other tests."""
    with running_server(tiny_models, MAX_WINDOWS=100, TIMELINES_AT_ONCE=1) as running:
        yield running


def post(server: RunningServer, clip: bytes, **parameters: Any) -> httpx.Response:
    with server.client() as client:
        return client.post(PATH, content=clip, params=parameters)


def lines_of(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    assert answer.text.endswith("\n")
    return [json.loads(line) for line in answer.text.splitlines()]


def test_lines_are_those_of_the_contract(client: httpx.Client) -> None:
    answer = client.post(PATH, files={"file": RED_GREEN_RED}, params={"window_s": 1.5, "top_k": 2})
    *windows, end = lines_of(answer)
    assert [list(line) for line in windows] == [
        ["window", "windows", "start_s", "end_s", "sampled", "predictions"]
    ] * 4
    assert [(line["window"], line["windows"]) for line in windows] == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert [(line["start_s"], line["end_s"]) for line in windows] == [(0, 1.5), (1.5, 3), (3, 4.5), (4.5, 6)]
    first = windows[0]
    assert [list(item) for item in first["predictions"]] == [["label", "index", "score"]] * 2
    assert first["sampled"]["frames"] == [2, 7, 11, 16, 21, 26, 30, 35]
    assert first["sampled"]["timestamps_s"] == [index / 25 for index in first["sampled"]["frames"]]
    assert list(end) == ["summary", "model", "video", "timing_ms", "sha256", "provider", "request_id"]
    assert list(end["summary"]) == ["windows", "segments"]
    assert end["summary"]["windows"] == 4
    assert list(end["summary"]["segments"][0]) == ["label", "index", "start_s", "end_s", "score"]
    assert [one["label"] for one in end["summary"]["segments"]] == ["red", "green", "red"]
    assert end["model"] == {"name": "tiny", "version": 1}
    assert (end["video"]["frames"], end["video"]["duration_s"]) == (150, 6)
    assert list(end["timing_ms"]) == STAGES
    assert end["request_id"] == answer.headers["X-Request-ID"]
    kinds = [type(LINE.validate_json(line)) for line in answer.text.splitlines()]
    assert kinds == [TimelineWindow] * 4 + [TimelineEnd]


def test_time_to_the_first_line_is_in_the_server_timing_header(client: httpx.Client) -> None:
    answer = client.post(PATH, content=RED_GREEN_RED, params=SECONDS)
    header = dict(re.findall(r"(\w+);dur=([\d.]+)", answer.headers["Server-Timing"]))
    assert list(header) == STAGES
    assert 0 < float(header["total"]) <= lines_of(answer)[-1]["timing_ms"]["total"]


@pytest.mark.parametrize("frames", [1, 5, 60])
def test_video_of_one_window_is_answered_as_a_clip(client: httpx.Client, frames: int) -> None:
    clip = numbered_clip(frames=frames)
    classified = client.post("/v1/classify", content=clip).json()
    window, end = lines_of(client.post(PATH, content=clip, params={"window_s": 10}))
    assert window["predictions"] == classified["predictions"]
    assert window["sampled"] == classified["sampled"]
    assert end["video"] == classified["video"]


@contextmanager
def begun(
    server: RunningServer, clip: bytes, query: Mapping[str, float] = SECONDS, **headers: str
) -> Iterator[Iterator[str]]:
    """The lines of a streamed answer."""
    with (
        server.client() as client,
        client.stream("POST", PATH, content=clip, params=query, headers=headers) as answer,
    ):
        assert answer.status_code == 200
        yield answer.iter_lines()


def test_lines_are_streamed_and_a_disconnection_ends_the_timeline(
    limited: RunningServer, red_clip: bytes
) -> None:
    server = limited
    before = labelled(server)
    counted = counts_by_code(server)
    with begun(server, long_clip()) as lines:
        assert json.loads(next(lines)).keys() >= {"window", "predictions"}
        assert labelled(server) - before < 30  # of 60, each of which takes a quarter of a second
        assert server.metric("blvnet_inflight_requests") == 2
        # Short videos are not delayed; a second timeline exceeds the limit.
        assert server.post(red_clip).status_code == 200
        refused = post(server, red_clip)
        assert_problem(refused, "overloaded")
        assert int(refused.headers["Retry-After"]) >= 1
    server.wait_for(lambda: server.metric("blvnet_inflight_requests") == 1, "end of the timeline")
    done = labelled(server)
    assert done - before < 60
    # Disconnected clients are counted separately, although status 200 was sent.
    assert counts_by_code(server) == counted | {"499": counted["499"] + 1, "503": counted["503"] + 1}
    assert server.line(event="request", route=PATH, code=499)["model"] == "tiny"
    assert lines_of(post(server, red_clip))[-1]["summary"]["windows"] == 1
    assert labelled(server) - done == 1
    assert not server.lines(level="error")


def counts_by_code(server: RunningServer) -> dict[str, float]:
    """Number of timelines so far, by counted status."""
    codes = ("200", "499", "503")
    return {code: server.metric("blvnet_requests_total", route=PATH, code=code) for code in codes}


def labelled(server: RunningServer) -> float:
    """Number of classified windows and videos so far."""
    labels = ("red", "green", "blue")
    return sum(server.metric("blvnet_predictions_total", model="tiny", label=label) for label in labels)


def mostly_broken() -> bytes:
    """Two valid seconds and eight damaged ones."""
    clip = numbered_clip(frames=250, options={"qp": "0", "g": "25", "preset": "ultrafast", "threads": "1"})

    def damage(number: int, content: bytearray) -> bytearray:
        if number > 50:
            content[10:] = bytes(len(content) - 10)
        return content

    return remuxed(clip, damage, "mp4")


def test_error_after_lines_is_the_last_line(server: RunningServer) -> None:
    rejected = server.metric("blvnet_rejected_total", reason="undecodable")
    *windows, end = lines_of(post(server, mostly_broken(), **SECONDS))
    assert [line["window"] for line in windows] == list(range(len(windows)))
    assert 1 <= len(windows) <= 3
    assert list(end) == ["error"]
    problem = Problem(**end["error"])
    assert (problem.code, problem.status) == ("undecodable", PROBLEM_TYPES["undecodable"].status)
    assert server.metric("blvnet_rejected_total", reason="undecodable") == rejected + 1
    assert not server.lines(level="error")


def test_timeline_ends_at_the_callers_time_limit(limited: RunningServer) -> None:
    a_few_frames = {"window_s": 0.1, "stride_s": 0.6}
    with begun(limited, long_clip(), a_few_frames, **{"X-Request-Timeout": "3"}) as lines:
        *windows, end = [json.loads(line) for line in lines]
    assert 1 <= len(windows) < 100
    assert end["error"]["code"] == "deadline_exceeded", (end, limited.lines(level="warning"))
    assert limited.post(numbered_clip(frames=3)).status_code == 200


@pytest.mark.parametrize("case", BAD_BODIES)
def test_bad_body_is_a_problem_with_its_status(client: httpx.Client, upload_folder: Path, case: str) -> None:
    request, code = BAD_BODIES[case]
    if "chunks" in case:
        request = {"content": (bytes(100_000) for _ in range(21))}  # a generator can be consumed once
    before = {*upload_folder.rglob("*")}
    assert_problem(client.post(PATH, **request), code)
    assert {*upload_folder.rglob("*")} == before


@pytest.mark.parametrize(
    ("query", "code", "detail"),
    [
        ("window_s=0", "invalid_parameter", "window_s"),
        ("window_s=nan", "invalid_parameter", "window_s"),
        ("window_s=3601", "invalid_parameter", "window_s"),
        ("stride_s=0.01", "invalid_parameter", "stride_s"),
        ("window_s=2&stride_s=0.1", "invalid_parameter", "stride_s must be at least window_s / 16"),
        ("top_k=101", "invalid_parameter", "top_k"),
        ("clips=2", "invalid_parameter", "clips"),
        ("model=nonesuch", "model_not_found", "nonesuch"),
    ],
)
def test_bad_parameter_is_a_problem(client: httpx.Client, query: str, code: str, detail: str) -> None:
    answer = client.post(f"{PATH}?{query}", content=RED_GREEN_RED)
    assert_problem(answer, code)
    assert detail in answer.json()["detail"]


def test_too_many_windows_are_over_a_limit(limited: RunningServer) -> None:
    clip = numbered_clip(frames=300)
    assert len(lines_of(post(limited, clip, window_s=0.12))) == 101
    answer = post(limited, clip, window_s=0.1)
    assert_problem(answer, "over_limit")
    problem = answer.json()
    assert (problem["limit"], problem["value"], problem["maximum"]) == ("windows", 120, 100)
    assert limited.get("/v1/models").json()["limits"]["max_windows"] == 100


def test_windows_are_counted_like_clips(server: RunningServer, client: httpx.Client) -> None:
    def counts() -> list[float]:
        return [
            server.metric("blvnet_requests_total", route=PATH, code="200"),
            server.metric("blvnet_request_seconds_count", route=PATH, outcome="answered"),
            server.metric("blvnet_predictions_total", model="tiny", label="red"),
            server.metric("blvnet_predictions_total", model="tiny", label="green"),
            server.metric("blvnet_stage_seconds_count", stage="receive", model="tiny"),
            server.metric("blvnet_stage_seconds_count", stage="decode", model="tiny"),
            server.metric("blvnet_stage_seconds_count", stage="inference", model="tiny"),
            server.metric("blvnet_batch_size_sum", model="tiny"),
            server.metric("blvnet_upload_bytes_count"),
        ]

    before = counts()
    client.post(PATH, content=RED_GREEN_RED, params=SECONDS)
    assert [after - first for after, first in zip(counts(), before, strict=True)] == [
        1, 1, 4, 2, 1, 6, 6, 6, 1,
    ]  # fmt: skip


def test_timeline_counts_for_its_key_and_ends_with_an_error_at_shutdown(
    tiny_models: Path,
) -> None:
    key = {"Authorization": "Bearer key"}
    with running_server(tiny_models, SHUTDOWN_GRACE_S=0, API_KEYS="key", KEY_REQUESTS_AT_ONCE=1) as server:
        assert_problem(post(server, b"x"), "unauthorized")
        with begun(server, long_clip(), SECONDS, **key) as lines, server.client(headers=key) as client:
            next(lines)
            assert_problem(client.post("/v1/classify", content=b"x"), "rate_limited")
            server.process.terminate()
            *_, end = [json.loads(line) for line in lines]
        assert end["error"]["code"] == "not_ready"
        assert server.process.wait(20) == 0
