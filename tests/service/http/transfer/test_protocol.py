"""Connections that send no request, or one as slowly as they can, on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import uvicorn
import uvloop
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from service.http.transfer import protocol
from service.http.transfer.protocol import BoundedProtocol, abort_connection
from service.server import listen
from tests.support.server import RunningServer

PATIENCE_S = 0.3
HEAD = b"GET / HTTP/1.1\r\nHost: here\r\n"
Dialogue = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def slow(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that takes longer to answer than a head may take to arrive."""
    body = await Request(scope, receive).body()
    await asyncio.sleep(2 * PATIENCE_S)
    await PlainTextResponse(f"{len(body)} bytes")(scope, receive, send)


def talk(dialogue: Dialogue, monkeypatch: pytest.MonkeyPatch, app: ASGIApp = slow) -> None:
    """Hold a dialogue with a server that runs `app`."""
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT_S", PATIENCE_S)

    async def run() -> None:
        with listen("127.0.0.1", 0) as listener:
            server = uvicorn.Server(
                uvicorn.Config(app, http=BoundedProtocol, lifespan="off", log_config=None)
            )
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            try:
                async with asyncio.timeout(5):
                    await dialogue(reader, writer)
            finally:
                writer.close()
                server.should_exit = True
                await serving

    uvloop.run(run())


def test_head_may_have_64_kilobytes_and_take_30_seconds() -> None:
    assert (protocol.MAX_HEAD_BYTES, protocol.HEAD_TIMEOUT_S) == (65_536, 30.0)


def test_connection_without_a_request_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def dialogue(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read() == b""

    talk(dialogue, monkeypatch)


def test_head_that_comes_a_byte_at_a_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def dialogue(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def drip() -> None:
            for byte in HEAD + b"X-Filler: " + b"x" * 1000:
                writer.write(bytes([byte]))
                await asyncio.sleep(PATIENCE_S / 20)

        dripping = asyncio.create_task(drip())
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
        dripping.cancel()

    talk(dialogue, monkeypatch)


def test_second_head_on_a_connection_has_as_much_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def dialogue(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"\r\n")
        assert (await reader.readuntil(b"0 bytes")).startswith(b"HTTP/1.1 200 ")
        writer.write(HEAD)
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")

    talk(dialogue, monkeypatch)


def test_slow_body_and_slow_answer_do_not_count_as_a_slow_head(monkeypatch: pytest.MonkeyPatch) -> None:
    async def dialogue(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            writer.write(b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 2\r\n\r\nx")
            await asyncio.sleep(2 * PATIENCE_S)
            writer.write(b"x")
            assert (await reader.readuntil(b"2 bytes")).startswith(b"HTTP/1.1 200 ")

    talk(dialogue, monkeypatch)


@pytest.mark.parametrize(
    "flood",
    [
        HEAD + b"X-Filler: " + b"x" * 70_000,
        HEAD + b"X-Filler: x\r\n" * 6000,
        HEAD + b"X-Filler: " + b"x" * 70_000 + b"\r\n\r\n",
        HEAD + b"X-Filler: " + b" " * 70_000 + b"x\r\n\r\n",
    ],
    ids=["one long field", "many fields", "complete head in one piece", "padded field"],
)
def test_head_of_more_than_64_kilobytes_is_refused(monkeypatch: pytest.MonkeyPatch, flood: bytes) -> None:
    async def dialogue(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(flood)
        assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")

    talk(dialogue, monkeypatch)


def test_large_body_in_one_piece_with_its_head_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async def dialogue(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 100000\r\n\r\n" + bytes(100_000))
        assert (await reader.readuntil(b"100000 bytes")).startswith(b"HTTP/1.1 200 ")

    talk(dialogue, monkeypatch)


def test_request_with_two_lengths_is_refused_and_the_connection_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def dialogue(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: here\r\n\r\n"
        )
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.count(b"HTTP/1.1 ") == 1

    talk(dialogue, monkeypatch)


def test_client_that_closes_for_sending_gets_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def dialogue(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 2\r\n\r\nxx")
        writer.write_eof()
        answer = await reader.read()
        assert b"HTTP/1.1 200 " in answer
        assert answer.endswith(b"2 bytes")

    talk(dialogue, monkeypatch)


def test_closed_connection_is_noticed_during_a_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disconnected = asyncio.Event()

    async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
        await Request(scope, receive).body()
        assert (await receive())["type"] == "http.disconnect"
        disconnected.set()

    async def dialogue(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 2\r\n\r\nxx")
        await asyncio.sleep(PATIENCE_S / 3)
        writer.close()
        await disconnected.wait()

    talk(dialogue, monkeypatch, waiting)


def test_aborted_connection_drops_unread_data(monkeypatch: pytest.MonkeyPatch) -> None:
    async def stalled(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(2):
            await asyncio.wait_for(
                send({"type": "http.response.body", "body": bytes(20_000_000), "more_body": True}), 5
            )
            abort_connection(scope)

    async def dialogue(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"\r\n")
        await asyncio.sleep(PATIENCE_S)
        received = 0
        with suppress(ConnectionResetError):
            while data := await reader.read(1_000_000):
                received += len(data)
        assert received < 20_000_000

    talk(dialogue, monkeypatch, stalled)


def test_clip_with_an_upgrade_header_is_classified(server: RunningServer, red_clip: bytes) -> None:
    offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQ"}
    with server.client() as client:
        for _ in range(2):  # the connection is kept
            answer = client.post("/v1/classify", files={"file": red_clip}, headers=offer)
            assert answer.status_code == 200, answer.text
    assert not any(
        "WebSocket" in str(line) or "upgrade" in line.get("event", "")
        for line in server.lines(level="warning")
    )
