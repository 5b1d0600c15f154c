"""Receivers of webhooks that answer slowly or without end, or may not be called any more."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from itertools import chain, repeat

import pytest

from service.errors import InvalidParameter
from service.jobs import webhooks
from service.jobs.webhooks import Webhooks

HOST = "127.0.0.1"
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNK = b"1\r\nx\r\n"
PAUSE_S = 0.05
SECRET = f"whsec_{base64.b64encode(bytes(32)).decode()}"


@asynccontextmanager
async def receiving(answer: Iterable[bytes]) -> AsyncIterator[str]:
    """The URL of a receiver that sends the pieces of an answer with pauses."""

    done = asyncio.Event()

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):  # the caller has closed the connection
            await reader.readuntil(b"\r\n\r\n")
            for piece in answer:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(PAUSE_S)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        done.set()

    async with await asyncio.start_server(receive, HOST, 0) as server:
        yield f"http://{HOST}:{server.sockets[0].getsockname()[1]}/"
        await done.wait()


async def delivered(url: str, *hosts: str) -> bool:
    caller = Webhooks(hosts, SECRET)
    try:
        async with asyncio.timeout(10):
            return await caller.deliver(url, "job", "{}")
    finally:
        await caller.close()


@pytest.mark.anyio
async def test_status_is_enough_if_the_body_does_not_end() -> None:
    async with receiving(chain([HEAD], repeat(CHUNK))) as url:
        assert await delivered(url, HOST)


@pytest.mark.anyio
async def test_slow_head_counts_as_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "TIMEOUT_S", 10 * PAUSE_S)
    async with receiving(chain([b"HTTP/1.1 200 OK\r\n"], repeat(b"X-More: 1\r\n"))) as url:
        assert not await delivered(url, HOST)


@pytest.mark.anyio
@pytest.mark.parametrize("hosts", [(), ("example.com",)])
async def test_host_that_was_taken_off_the_list_is_not_called(hosts: tuple[str, ...]) -> None:
    called = asyncio.Event()

    async def receive(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        called.set()
        writer.close()

    async with await asyncio.start_server(receive, HOST, 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert not await delivered(f"http://{HOST}:{port}/", *hosts)
    assert not called.is_set()


@pytest.mark.parametrize(
    ("listed", "url"),
    [
        ("bücher.example", "https://xn--bcher-kva.example/x"),
        ("xn--bcher-kva.example", "https://xn--bcher-kva.example/x"),
        ("XN--BCHER-KVA.example", "https://bücher.example/x"),
        ("faß.example", "https://xn--fa-hia.example/x"),
        ("xn--n3h.example", "https://xn--n3h.example/x"),  # a snowman, which newer rules do not allow
        ("::1", "https://[::1]/x"),
    ],
)
def test_host_is_listed_in_either_form_of_its_name(listed: str, url: str) -> None:
    Webhooks([listed], SECRET).check(url)
    with pytest.raises(InvalidParameter, match="hosts that may be called"):
        Webhooks(["other.example"], SECRET).check(url)


@pytest.mark.anyio
async def test_address_is_that_of_the_name_in_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes | str] = []

    async def getaddrinfo(host: bytes | str, *_: object, **__: object) -> list[object]:
        asked.append(host)
        raise OSError

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    # The codec of the standard library would ask for fass.example, another name.
    assert not await delivered("https://xn--fa-hia.example/", "faß.example")
    assert asked == [b"xn--fa-hia.example"]
