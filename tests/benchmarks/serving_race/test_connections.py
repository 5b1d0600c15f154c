"""The client of the load generator, against servers with one behaviour each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from benchmarks.serving_race.connections import Connection, Reply, Target

CLIP = bytes(200_000)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nright"
CHUNKS = b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n"
LAST = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nright"


def post(answers: list[bytes], posts: int = 1) -> tuple[list[Reply], list[bytes]]:
    """Post to a server that gives these answers on one connection; return replies and request heads."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            await reader.readexactly(len(CLIP))
            writer.write(answer)
        writer.close()

    async def talk(target: Target) -> list[Reply]:
        connection = await Connection.open(target)
        try:
            return [await connection.post(CLIP) for _ in range(posts)]
        finally:
            connection.close()

    return uvloop.run(_with_server(serve, talk)), heads


async def _with_server(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    talk: Callable[[Target], Awaitable[list[Reply]]],
) -> list[Reply]:
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server, asyncio.timeout(10):
        host, port = server.sockets[0].getsockname()
        return await talk(Target.of(f"http://{host}:{port}/v1/classify"))


def test_connection_is_used_for_one_post_after_the_other() -> None:
    replies, heads = post([ANSWER, CHUNKS, LAST], posts=3)
    assert [(reply.status, reply.body, reply.keeps) for reply in replies] == [
        (200, b"right", True),
        (503, b"no", True),
        (200, b"right", False),
    ]
    assert len(heads) == 3
    assert heads[0].startswith(b"POST /v1/classify HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nContent-Length: 200000\r\n" in heads[0]


@pytest.mark.parametrize("answer", [b"", ANSWER[:-1], b"220 mail.example ESMTP\r\n"])
def test_early_end_and_invalid_responses_are_cuts(answer: bytes) -> None:
    with pytest.raises(
        OSError, match=r"the response is not valid HTTP|the connection ended before the response"
    ):
        post([answer])


def test_post_on_a_closed_connection_is_a_cut() -> None:
    with pytest.raises(OSError, match="the connection"):
        post([LAST], posts=2)


def test_target_is_parsed_from_its_url() -> None:
    assert Target.of("http://127.0.0.1:8000/v1/classify") == Target("127.0.0.1", 8000, "/v1/classify")
    with pytest.raises(ValueError, match="not of the form"):
        Target.of("https://127.0.0.1/v1/classify")
