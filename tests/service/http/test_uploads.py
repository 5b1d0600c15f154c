"""Receiving a clip: byte for byte, however it is cut, capped while it is read, and gone afterwards."""

from __future__ import annotations

import asyncio
import errno
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from itertools import chain, pairwise
from typing import Any, BinaryIO

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect, Request

from service.errors import BadRequest, NotAVideo, Overloaded, RequestError, TooLarge
from service.http.uploads import MEMORY_BYTES, Spool, Upload, received_clip

LIMIT = 10_000_000
FORM = {"content-type": "multipart/form-data; boundary=edge"}


def request(chunks: Iterable[bytes], headers: Mapping[str, str], *, gone: bool = False) -> Request:
    """A request whose body arrives in these chunks; `gone` if the caller leaves after the last."""
    last: dict[str, Any] = {"type": "http.disconnect"} if gone else {"type": "http.request", "body": b""}
    messages = chain(({"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks), [last])

    async def receive() -> dict[str, Any]:
        return next(messages)

    pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "headers": pairs}, receive)


def part(data: bytes, name: str = "file", more: str = "") -> bytes:
    return f'--edge\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + data + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--edge--\r\n"


def receive(
    chunks: Iterable[bytes],
    headers: Mapping[str, str] | None = None,
    *,
    limit: int = LIMIT,
    gone: bool = False,
) -> bytes:
    """What the service gets of a body."""

    async def run() -> bytes:
        async with received_clip(request(chunks, headers or {}, gone=gone), limit) as upload:
            content = content_of(upload)
            assert upload.size_bytes == len(content)
            return content

    return asyncio.run(run())


def content_of(upload: Upload) -> bytes:
    if isinstance(upload.clip, bytes):
        return upload.clip
    with open(f"/proc/self/fd/{upload.clip.fileno()}", "rb") as file:  # noqa: PTH123 - as the decoder opens it
        return file.read()


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:stop] for start, stop in pairwise(edges)]


@pytest.mark.parametrize(
    "content_type", ["video/mp4", "VIDEO/WEBM; codecs=vp9", "application/octet-stream", None]
)
def test_body_is_the_clip(content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    assert receive([b"ab", b"", b"c"], headers) == b"abc"


@settings(max_examples=50)
@given(
    data=st.binary(min_size=1, max_size=200)
    | st.sampled_from([b"\r\n--edg", b"-\r\n--edg\r\n--", b"\r\n\r\n-"]),
    places=st.lists(st.integers(0, 400)),
)
def test_form_gives_the_clip_however_it_is_cut(data: bytes, places: list[int]) -> None:
    assume(b"\r\n--edge" not in b"\r\n" + data)  # no client chooses a boundary that is in its data
    body = form(part(data))
    assert receive(cut(body, places), FORM) == data


def test_form_part_may_have_a_name_and_headers_of_its_own() -> None:
    more = '; filename="../../etc/passwd"\r\nContent-Type: video/mp4'
    assert receive([form(part(b"clip", more=more))], FORM) == b"clip"


def test_large_clip_goes_to_a_file_without_a_name() -> None:
    data = bytes(range(256)) * 12_000

    async def run() -> None:
        async with received_clip(request(cut(data, range(0, len(data), 65_536)), {}), LIMIT) as upload:
            assert not isinstance(upload.clip, bytes)
            assert content_of(upload) == data
            file = upload.clip
        assert file.closed

    assert len(data) > MEMORY_BYTES
    asyncio.run(run())


@pytest.mark.parametrize(
    ("chunks", "headers", "error", "message"),
    [
        ([], {}, BadRequest, "empty"),
        ([], {"content-type": "text/plain", "content-length": "0"}, BadRequest, "empty"),
        ([form(part(b""))], FORM, BadRequest, "empty"),
        ([b"x"], {"content-type": "text/plain"}, NotAVideo, "text/plain"),
        ([b"x"], {"content-type": "application/x-www-form-urlencoded"}, NotAVideo, "video/mp4"),
        ([b"x"], {"content-type": "image/png"}, NotAVideo, "image/png"),
        ([b"x"], {"content-type": "video/mp4", "content-encoding": "gzip"}, NotAVideo, "Content-Encoding"),
        ([b"x"], {"content-type": "multipart/form-data"}, BadRequest, "boundary"),
        ([b"x"], {"content-type": f"multipart/form-data; boundary={'b' * 300}"}, BadRequest, "malformed"),
        ([b"no form at all"], FORM, BadRequest, "malformed"),
        ([form()], FORM, BadRequest, "no field 'file'"),
        ([form(part(b"x", "clip"))], FORM, BadRequest, "'clip'"),
        ([form(part(b"x"), part(b"y"))], FORM, BadRequest, "more than once"),
        ([form(part(b"x"), part(b"3", "top_k"))], FORM, BadRequest, "query"),
        ([form(part(b"x"))[:-6]], FORM, BadRequest, "ends before"),
        ([form(part(b"x", more="\r\nA: b" * 20))], FORM, BadRequest, "malformed"),
        ([form(part(b"x", more="\r\nA: " + "b" * 9000))], FORM, BadRequest, "malformed"),
    ],
)
def test_wrong_body_is_refused_and_said_why(
    chunks: list[bytes], headers: Mapping[str, str], error: type[RequestError], message: str
) -> None:
    with pytest.raises(error, match=message):
        receive(chunks, headers)


@pytest.mark.parametrize("announced", ["11", "999999999999999999999"])
def test_announced_size_past_the_limit_is_refused_before_anything_is_read(announced: str) -> None:
    class Unread(Iterator[bytes]):
        def __next__(self) -> bytes:
            raise AssertionError("the body was read")

    with pytest.raises(TooLarge, match="10 bytes"):
        receive(Unread(), {"content-length": announced}, limit=10)


@pytest.mark.parametrize("headers", [{}, {"content-length": "5"}, {"content-length": "lots"}])
def test_size_is_capped_while_reading_whatever_was_announced(headers: Mapping[str, str]) -> None:
    assert receive([b"12345", b"67890"], headers, limit=10) == b"1234567890"
    with pytest.raises(TooLarge):
        receive([b"12345", b"67890", b"1"], headers, limit=10)


def test_size_of_a_form_s_clip_is_capped() -> None:
    assert receive([form(part(b"1234567890"))], FORM, limit=10) == b"1234567890"
    with pytest.raises(TooLarge):
        receive([form(part(b"12345678901"))], FORM, limit=10)


def test_what_follows_a_form_is_capped_too() -> None:
    def endless() -> Iterable[bytes]:
        yield form(part(b"clip"))
        for _ in range(1000):
            yield bytes(65_536)

    with pytest.raises(TooLarge):
        receive(endless(), FORM, limit=1_000_000)


def test_caller_who_leaves_in_mid_upload_is_noticed() -> None:
    with pytest.raises(ClientDisconnect):
        receive([b"x" * 2_000_000], gone=True)


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> list[BinaryIO]:
    """The temporary files that are made."""
    made: list[BinaryIO] = []
    make = tempfile.TemporaryFile

    def recording() -> BinaryIO:
        file = make()
        made.append(file)
        return file

    monkeypatch.setattr(tempfile, "TemporaryFile", recording)
    return made


@pytest.mark.parametrize(("gone", "limit"), [(True, LIMIT), (False, 2_500_000)])
def test_file_is_closed_however_the_upload_ends(files: list[BinaryIO], gone: bool, limit: int) -> None:
    with pytest.raises((ClientDisconnect, TooLarge)):
        receive([b"x" * 2_000_000, b"x" * 1_000_000], gone=gone, limit=limit)
    assert [file.closed for file in files] == [True]


def test_full_disk_is_overload(monkeypatch: pytest.MonkeyPatch) -> None:
    class FullDisk(BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", FullDisk)
    with pytest.raises(Overloaded, match="no room"):
        receive([b"x" * 2_000_000])


def test_closing_twice_is_harmless() -> None:
    async def run() -> None:
        spool = Spool(LIMIT)
        await spool.write(b"x" * 2_000_000)
        spool.close()
        spool.close()

    asyncio.run(run())
