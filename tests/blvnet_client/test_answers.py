"""How the client reads answers: problem documents become typed errors; other failures are distinguished."""

from __future__ import annotations

import asyncio
import io
import json
import pickle
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blvnet_client import (
    AsyncClient,
    BusyError,
    Client,
    ConnectionFailed,
    LocalError,
    ProblemError,
    RetryPolicy,
    TimedOut,
    UnexpectedAnswer,
    VideoError,
    WindowResult,
)
from blvnet_client.errors import KINDS
from service.errors import OverLimit, Overloaded, RequestError
from service.http.problems import PROBLEM_TYPES, problem_document_of, problem_response
from tests.support.http_servers import Received, Reply, answering

INTERNAL = json.dumps(problem_document_of(ValueError(), "id-2")).encode()
ONCE = RetryPolicy(budget_s=0)
# Raised as ProblemError itself.
UNKNOWN_TO_THE_CLIENT = {"internal_error"}


@pytest.fixture
def clip(tmp_path: Path, red_clip: bytes) -> Path:
    file = tmp_path / "red.mp4"
    file.write_bytes(red_clip)
    return file


def always(status: int, headers: dict[str, str], body: bytes) -> Callable[[Received], Reply]:
    """The same answer to every request."""
    return lambda _request: Reply(status, headers, body)


@pytest.mark.parametrize(
    ("error", "kind"), [(OverLimit("pixels", 20, 10), VideoError), (Overloaded("full", 7.0), BusyError)]
)
def test_problem_document_is_raised_with_its_fields(
    clip: Path, error: RequestError, kind: type[ProblemError]
) -> None:
    answer = problem_response(error, "id-1", "/v1/classify")
    with (
        answering(always(answer.status_code, dict(answer.headers), bytes(answer.body))) as url,
        Client(url, retries=ONCE) as client,
        pytest.raises(kind) as caught,
    ):
        client.classify(clip)
    found = caught.value
    assert (found.code, found.status, found.request_id) == (error.code, answer.status_code, "id-1")
    assert found.message == error.message
    assert found.retry_after_s == (7.0 if isinstance(error, Overloaded) else None)
    assert found.problem.maximum == (10 if isinstance(error, OverLimit) else None)
    copy = pickle.loads(pickle.dumps(found))
    assert (type(copy), str(copy)) == (kind, str(found))


def test_every_problem_code_has_a_kind_of_error() -> None:
    assert {code for code in PROBLEM_TYPES if code not in KINDS} <= UNKNOWN_TO_THE_CLIENT


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (404, {"Content-Type": "text/html"}, b"<h1>Not here</h1>"),
        (400, {"Content-Type": "application/problem+json"}, b'["no", "object"]'),
        (400, {"Content-Type": "application/problem+json"}, b"{broken"),
        (422, {"Content-Type": "application/problem+json"}, b'{"code": "over_limit"}'),
        (200, {"Content-Type": "application/json"}, b'{"hello": "world"}'),
        (200, {"Content-Type": "text/html"}, b"<h1>Welcome</h1>"),
    ],
)
def test_server_of_another_kind_is_told_apart(
    clip: Path, status: int, headers: dict[str, str], body: bytes
) -> None:
    with (
        answering(always(status, headers, body)) as url,
        Client(url) as client,
        pytest.raises(UnexpectedAnswer, match=url) as caught,
    ):
        client.classify(clip)
    assert caught.value.status == status


def test_code_that_the_client_does_not_know_is_a_problem_error(clip: Path) -> None:
    with (
        answering(always(500, {}, INTERNAL)) as url,
        Client(url) as client,
        pytest.raises(ProblemError) as caught,
    ):
        client.classify(clip)
    assert (type(caught.value), caught.value.code) == (ProblemError, "internal_error")


WINDOW = (
    b'{"window":0,"windows":2,"start_s":0.0,"end_s":4.0,'
    b'"sampled":{"frames":[],"timestamps_s":[]},"predictions":[]}\n'
)


@pytest.mark.parametrize(
    ("last", "error"),
    [
        (problem_document_of(OverLimit("decode_s", 9, 8), "id"), VideoError),
        (problem_document_of(Overloaded("full", 7.0), "id"), BusyError),
        (problem_document_of(ValueError(), "id"), ProblemError),
        (None, ConnectionFailed),
        ({"what": "is this"}, UnexpectedAnswer),
    ],
)
def test_timeline_that_ends_early_is_told_after_its_windows(
    clip: Path, last: dict[str, Any] | None, error: type[Exception]
) -> None:
    end = b"" if last is None else json.dumps({"error": last} if "code" in last else last).encode()
    with answering(always(200, {}, WINDOW + end)) as url, Client(url) as client:
        lines = client.timeline(clip)
        assert isinstance(next(lines), WindowResult)
        with pytest.raises(error):
            next(lines)


LABELLED = WINDOW.replace(
    b'"predictions":[]', '"predictions":[{"label":"wave\u2028\x85hand","index":0,"score":1.0}]'.encode()
)


def test_label_with_another_kind_of_line_break_is_one_line(clip: Path) -> None:
    async def first_of(url: str) -> object:
        async with AsyncClient(url) as client:
            lines = client.timeline(clip)
            found = await anext(lines)
            with pytest.raises(ConnectionFailed):
                await anext(lines)
            return found

    with answering(always(200, {}, LABELLED)) as url:
        with Client(url) as client:
            lines = client.timeline(clip)
            found = next(lines)
            with pytest.raises(ConnectionFailed):
                next(lines)
        assert isinstance(found, WindowResult)
        assert found.predictions[0].label == "wave\u2028\x85hand"
        assert asyncio.run(first_of(url)) == found


@pytest.mark.parametrize(
    "url", ["ftp://x", "http://[", "", "http://", "http://host:port", "http:/host:80", "host:0", "host:65536"]
)
def test_malformed_address_is_a_local_error(url: str) -> None:
    with pytest.raises(LocalError, match="address"):
        Client(url)


def test_address_without_a_server_is_a_failed_connection(clip: Path) -> None:
    with (
        Client("127.0.0.1:9", retries=ONCE) as client,
        pytest.raises(ConnectionFailed, match=r"127\.0\.0\.1:9"),
    ):
        client.classify(clip)


def test_server_that_does_not_answer_is_a_timeout(clip: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        Client(f"127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.2) as client,
        pytest.raises(TimedOut, match=r"no answer within 0\.2 s") as caught,
    ):
        client.classify(clip)
    assert caught.value.phase == "read"


def test_local_mistakes_send_nothing(clip: Path, tmp_path: Path) -> None:
    with Client("127.0.0.1:9", retries=ONCE) as client:
        sources: list[tuple[Any, str]] = [
            (tmp_path / "missing.mp4", "No such file"),
            (tmp_path, "Is a directory"),
            (42, "int"),
            (io.StringIO("text"), "binary mode"),
        ]
        for source, message in sources:
            with pytest.raises(LocalError, match=message):
                client.classify(source)
        for unsendable in ("é", "a\nX-Other: 1"):
            with pytest.raises(LocalError, match="X-Request-ID"):
                client.classify(clip, request_id=unsendable)
            with pytest.raises(LocalError, match="Idempotency-Key"):
                client.jobs.submit_classify(clip, idempotency_key=unsendable)
        with pytest.raises(LocalError, match="name"):
            client.model("..")
        client.close()
        with pytest.raises(LocalError, match="closed"):
            client.classify(clip)
    with pytest.raises(LocalError, match="key"):
        Client("127.0.0.1:9", "key\nX-Other: 1")
