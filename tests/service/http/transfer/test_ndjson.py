"""NDJSON responses: early and late errors, and clients that stop reading."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request

from service.errors import Undecodable
from service.http.context import open_record, record_of
from service.http.schemas.common import Health
from service.http.transfer.ndjson import NDJSONResponse, NDJSONWriter

pytestmark = pytest.mark.anyio


class Caller:
    """Takes this many messages, then no more."""

    def __init__(self, takes: int = 1000) -> None:
        self.messages: list[dict[str, Any]] = []
        self._takes = takes

    async def send(self, message: Any) -> None:
        if len(self.messages) == self._takes:
            await asyncio.Event().wait()
        self.messages.append(message)

    @property
    def lines(self) -> list[Any]:
        body = b"".join(message.get("body", b"") for message in self.messages)
        return [json.loads(line) for line in body.splitlines()]

    @property
    def ended(self) -> bool:
        last = self.messages[-1]
        return last["type"] == "http.response.body" and not last.get("more_body", False)


async def answer(
    caller: Caller, produce: Callable[[NDJSONWriter], Awaitable[None]], write_timeout_s: float = 60
) -> Request:
    request = Request({"type": "http", "headers": []})
    open_record(request)
    await NDJSONResponse(request, produce, write_timeout_s)(request.scope, _nothing, caller.send)
    return request


async def _nothing() -> Any:
    raise AssertionError("nothing is to be received")


def producer(*steps: Exception | str) -> Callable[[NDJSONWriter], Awaitable[None]]:
    async def produce(writer: NDJSONWriter) -> None:
        for step in steps:
            if isinstance(step, Exception):
                raise step
            if not writer.started:
                await writer.start({"Server-Timing": "receive;dur=1"})
            await writer.write(Health(status=step))

    return produce


async def test_lines_are_sent_one_by_one() -> None:
    caller = Caller()
    await answer(caller, producer("one", "two"))
    start, *bodies = caller.messages
    headers = dict(start["headers"])
    assert (start["status"], headers[b"content-type"]) == (200, b"application/x-ndjson")
    assert headers[b"server-timing"] == b"receive;dur=1"
    assert [message["body"] for message in bodies] == [b'{"status":"one"}\n', b'{"status":"two"}\n', b""]
    assert caller.ended


async def test_error_before_the_first_line_is_raised() -> None:
    caller = Caller()
    with pytest.raises(Undecodable):
        await answer(caller, producer(Undecodable("no frame")))
    assert not caller.messages


async def test_error_after_lines_is_the_last_one() -> None:
    caller = Caller()
    request = await answer(caller, producer("one", Undecodable("no frame")))
    assert caller.lines[0] == {"status": "one"}
    assert caller.lines[1]["error"].keys() == {"type", "title", "status", "detail", "code", "request_id"}
    assert (caller.lines[1]["error"]["code"], caller.ended) == ("undecodable", True)
    assert record_of(request).problem == "undecodable"
    assert not record_of(request).client_gone


async def test_unexpected_error_is_reported_without_its_text_and_raised() -> None:
    caller = Caller()
    with pytest.raises(ZeroDivisionError):
        await answer(caller, producer("one", ZeroDivisionError("secret")))
    assert caller.lines[1]["error"]["code"] == "internal_error"
    assert "secret" not in str(caller.lines)
    assert caller.ended


@pytest.mark.parametrize("steps", [("one", "two", "three"), ("one", Undecodable("no frame"))])
async def test_caller_that_reads_nothing_is_disconnected(steps: tuple[Exception | str, ...]) -> None:
    caller = Caller(takes=2)
    request = await answer(caller, producer(*steps), write_timeout_s=0.05)
    assert caller.lines == [{"status": "one"}]
    assert not caller.ended
    assert record_of(request).client_gone


async def test_nothing_is_sent_to_a_disconnected_caller() -> None:
    caller = Caller()
    request = await answer(caller, producer("one", ClientDisconnect()))
    assert not caller.ended
    assert record_of(request).client_gone
    with pytest.raises(ClientDisconnect):
        await answer(Caller(), producer(ClientDisconnect()))
