"""Clients that send the whole body before they read still receive the answer."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.error import HTTPError

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from service.http.middleware import lingering_close as lingering
from service.http.middleware.lingering_close import LingeringCloseMiddleware
from tests.support.server import RunningServer

BODY = {"content-length": "1000"}


def test_caller_who_reads_after_sending_gets_the_refusal(server: RunningServer) -> None:
    # urllib requests a close and does not read before it has sent everything.
    request = urllib.request.Request(
        f"{server.url}/v1/classify", bytes(30_000_000), {"Content-Type": "video/mp4"}
    )
    with pytest.raises(HTTPError) as caught:
        urllib.request.urlopen(request)
    with caught.value as answer:
        assert (answer.code, json.load(answer)["code"]) == (413, "too_large")


async def hasty(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that answers without reading."""
    await PlainTextResponse("no")(scope, receive, send)


async def patient(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that reads to the end."""
    while (await receive()).get("more_body"):
        pass
    await PlainTextResponse("yes")(scope, receive, send)


def exchange(
    app: Any, messages: list[dict[str, Any]], headers: Mapping[str, str] = BODY
) -> tuple[list[dict[str, Any]], int]:
    """The sent messages, and the number of unread `messages`; nothing arrives after the last one."""

    async def run() -> None:
        async def receive() -> dict[str, Any]:
            return messages.pop(0) if messages else await asyncio.get_running_loop().create_future()

        async def send(message: Any) -> None:
            sent.append(dict(message))

        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await LingeringCloseMiddleware(app)(
            {"type": "http", "method": "POST", "headers": pairs}, receive, send
        )

    sent: list[dict[str, Any]] = []
    asyncio.run(run())
    return sent, len(messages)


def chunk(*, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": b"x", "more_body": more}


def test_answer_is_sent_completely_before_the_rest_is_dropped() -> None:
    sent, left = exchange(hasty, [chunk(more=True), chunk(more=True), chunk(more=False)])
    assert [message.get("body") for message in sent] == [None, b"no", b""]
    assert [message.get("more_body", False) for message in sent[1:]] == [True, False]
    assert left == 0


def test_disconnected_caller_is_not_waited_for() -> None:
    _, left = exchange(hasty, [chunk(more=True), {"type": "http.disconnect"}, chunk(more=True)])
    assert left == 1


@pytest.mark.parametrize("limit", ["TIMEOUT_S", "PAUSE_TIMEOUT_S"])
def test_discarding_a_body_is_limited(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(lingering, limit, 0.01)
    sent, _ = exchange(hasty, [chunk(more=True)])
    assert sent[-1] == {"type": "http.response.body", "body": b""}


def test_upload_that_was_read_is_answered_normally() -> None:
    sent, _ = exchange(patient, [chunk(more=True), chunk(more=False)])
    assert [message.get("body") for message in sent] == [None, b"yes"]


@pytest.mark.parametrize("headers", [{}, {"content-length": "0"}, BODY | {"expect": "100-continue"}])
def test_draining_does_not_wait_without_a_body(headers: dict[str, str]) -> None:
    sent, _ = exchange(hasty, [], headers)
    assert [message.get("body") for message in sent] == [None, b"no"]
