"""The client: problem documents become the errors that they were; everything else is told apart."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from service.client import Client, ServerFailed
from service.errors import (
    BadRequest,
    ModelNotFound,
    NotAVideo,
    OverLimit,
    Overloaded,
    RequestError,
    Unauthorized,
)
from service.http.problems import late_document, problem, request_error, unexpected
from service.http.timeline_schemas import TimelineEnd, TimelineWindow
from tests.server import RunningServer, running_server

INTERNAL = bytes(unexpected("id-2").body)
OVER_SOME_LIMIT = bytes(problem("over_limit", "Too much.", "id-3").body)


@pytest.fixture
def clip(tmp_path: Path, red_clip: bytes) -> Path:
    file = tmp_path / "red.mp4"
    file.write_bytes(red_clip)
    return file


@contextmanager
def answering(status: int, headers: dict[str, str], body: bytes) -> Iterator[str]:
    """A server that gives everybody the same answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name above
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_answer_is_typed(server: RunningServer, clip: Path) -> None:
    with Client(server.url) as client:
        answer = client.classify(clip, top_k=1, evidence=True)
    assert (answer.predictions[0].label, len(answer.predictions)) == ("red", 1)
    assert answer.evidence is not None


def test_parameter_that_is_none_is_not_sent(server: RunningServer, clip: Path) -> None:
    with Client(server.url) as client:
        assert client.classify(clip, model=None).model.name == "tiny"


def test_key_is_sent(tiny_models: Path, clip: Path) -> None:
    with running_server(tiny_models, API_KEYS="open-sesame") as server:
        with Client(server.url) as stranger, pytest.raises(Unauthorized):
            stranger.classify(clip)
        with Client(server.url, "open-sesame") as friend:
            assert friend.classify(clip).model.name == "tiny"


def test_problem_of_the_service_is_raised_as_its_error(
    server: RunningServer, clip: Path, tmp_path: Path
) -> None:
    (text := tmp_path / "text.mp4").write_text("just words. " * 100)
    with Client(server.url) as client:
        with pytest.raises(NotAVideo):
            client.classify(text)
        with pytest.raises(ModelNotFound, match="nonesuch"):
            client.classify(clip, model="nonesuch")


@pytest.mark.parametrize("error", [OverLimit("pixels", 20, 10), Overloaded("full", 7.0)])
def test_error_comes_back_with_its_fields(clip: Path, error: RequestError) -> None:
    answer = request_error(error, "id-1")
    with (
        answering(answer.status_code, dict(answer.headers), bytes(answer.body)) as url,
        Client(url) as client,
        pytest.raises(type(error)) as caught,
    ):
        client.classify(clip)
    assert vars(caught.value) == vars(error)


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (404, {"Content-Type": "text/html"}, b"<h1>Not here</h1>"),
        (500, {"Content-Type": "application/problem+json"}, INTERNAL),
        (400, {"Content-Type": "application/problem+json"}, b'["no", "object"]'),
        (400, {"Content-Type": "application/problem+json"}, b"{broken"),
        (422, {"Content-Type": "application/problem+json"}, b'{"code": "over_limit"}'),
        (422, {"Content-Type": "application/problem+json"}, OVER_SOME_LIMIT),
        (200, {"Content-Type": "application/json"}, b'{"hello": "world"}'),
        (200, {"Content-Type": "text/html"}, b"<h1>Welcome</h1>"),
    ],
)
def test_server_of_another_kind_is_told_apart(
    clip: Path, status: int, headers: dict[str, str], body: bytes
) -> None:
    with (
        answering(status, headers, body) as url,
        Client(url) as client,
        pytest.raises(ServerFailed, match=url),
    ):
        client.classify(clip)


WINDOW = (
    b'{"window":0,"windows":2,"start_s":0.0,"end_s":4.0,'
    b'"sampled":{"frames":[],"timestamps_s":[]},"predictions":[]}\n'
)


def test_timeline_has_its_windows_and_its_summary(server: RunningServer, clip: Path) -> None:
    with Client(server.url) as client:
        *windows, end = client.timeline(clip, window_s=0.5, stride_s=None)
    assert [window.window for window in windows if isinstance(window, TimelineWindow)] == [0, 1]
    assert isinstance(end, TimelineEnd)
    assert (end.summary.windows, end.summary.segments[0].label) == (2, "red")


def test_timeline_is_refused_as_a_clip_is(server: RunningServer, tmp_path: Path, clip: Path) -> None:
    (text := tmp_path / "text.mp4").write_text("just words. " * 100)
    with Client(server.url) as client:
        for video, error in ((text, NotAVideo), (tmp_path / "missing", BadRequest)):
            with pytest.raises(error):
                list(client.timeline(video))
        with pytest.raises(ModelNotFound):
            list(client.timeline(clip, model="nonesuch"))


@pytest.mark.parametrize(
    ("last", "error"),
    [
        (late_document(OverLimit("decode_s", 9, 8), "id"), OverLimit),
        (late_document(Overloaded("full", 7.0), "id"), Overloaded),
        (late_document(ValueError(), "id"), ServerFailed),
        (None, ServerFailed),
        ({"what": "is this"}, ServerFailed),
    ],
)
def test_timeline_that_ends_early_is_told_after_its_windows(
    clip: Path, last: dict[str, Any] | None, error: type[Exception]
) -> None:
    end = b"" if last is None else json.dumps({"error": last} if "code" in last else last).encode()
    with answering(200, {}, WINDOW + end) as url, Client(url) as client:
        lines = client.timeline(clip)
        assert isinstance(next(lines), TimelineWindow)
        with pytest.raises(error):
            next(lines)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "127.0.0.1:8000", "ftp://x", "http://[", ""])
def test_address_without_a_server_is_told(clip: Path, url: str) -> None:
    with pytest.raises(ServerFailed), Client(url) as client:
        client.classify(clip)


def test_file_that_cannot_be_read_is_an_error_of_the_clip(server: RunningServer, tmp_path: Path) -> None:
    with Client(server.url) as client, pytest.raises(BadRequest, match="No such file"):
        client.classify(tmp_path / "missing.mp4")
