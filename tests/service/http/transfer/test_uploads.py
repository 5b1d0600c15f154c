"""Receiving a clip: exact for any chunks, limited while it is read, and gone afterwards."""

from __future__ import annotations

import asyncio
import errno
import gzip
import os
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from io import BytesIO
from itertools import chain, pairwise
from typing import Any, BinaryIO

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect, Request

from service.errors import (
    BadRequest,
    DeadlineExceeded,
    NotAVideo,
    Overloaded,
    RequestError,
    StorageFull,
    TooLarge,
)
from service.http.transfer import uploads
from service.http.transfer.uploads import (
    FORM_OVERHEAD_BYTES,
    MAX_BOUNDARY_LENGTH,
    MEMORY_BYTES,
    ReceivedBody,
    Spool,
    UploadLimits,
    received_body,
    received_video,
)
from service.pipeline.limits.admission import IDLE_UPLOAD_S, UPLOADS_PER_PLACE, Admission
from tests.support.clock import Clock

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
    """The content that the service receives."""

    async def run() -> bytes:
        async with received_video(
            request(chunks, headers or {}, gone=gone), UploadLimits(limit, 30)
        ) as upload:
            content = content_of(upload)
            assert upload.size_bytes == len(content)
            return content

    return asyncio.run(run())


def content_of(upload: ReceivedBody) -> bytes:
    if isinstance(upload.content, bytes):
        return upload.content
    with open(f"/proc/self/fd/{upload.content.fileno()}", "rb") as file:  # noqa: PTH123 - as the decoder opens it
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
def test_form_is_parsed_in_pieces_of_any_size(data: bytes, places: list[int]) -> None:
    assume(b"\r\n--edge" not in b"\r\n" + data)  # no client chooses a boundary that is in its data
    body = form(part(data))
    assert receive(cut(body, places), FORM) == data


def test_form_part_may_have_a_name_and_headers() -> None:
    more = '; filename="../../etc/passwd"\r\nContent-Type: video/mp4'
    assert receive([form(part(b"clip", more=more))], FORM) == b"clip"


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "shift-jis"])
def test_file_name_may_have_any_encoding(encoding: str) -> None:
    name = "映画" if encoding == "shift-jis" else "été"
    body = form(part(b"clip", more='; filename="NAME.mp4"')).replace(b"NAME", name.encode(encoding))
    assert receive([body], FORM) == b"clip"


def test_name_of_an_unexpected_field_is_reported() -> None:
    with pytest.raises(BadRequest, match="'vidéo'"):
        receive([form(part(b"x", "vidéo"))], FORM)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_text_before_the_first_boundary_is_skipped(size: int) -> None:
    body = b"This is a multi-part message.\r\n--edg no boundary\r\n" + form(part(b"clip"))
    assert receive([body[start : start + size] for start in range(0, len(body), size)], FORM) == b"clip"


def test_long_text_without_a_boundary_is_parsed_quickly() -> None:
    start_s = time.process_time()
    with pytest.raises(BadRequest, match="no boundary"):
        receive([bytes(1000)] * 5000, FORM)
    assert time.process_time() - start_s < 1.0


def test_large_clip_goes_to_a_file_without_a_name() -> None:
    data = bytes(range(256)) * 12_000

    async def run() -> None:
        async with received_video(
            request(cut(data, range(0, len(data), 65_536)), {}), UploadLimits(LIMIT, 30)
        ) as upload:
            assert not isinstance(upload.content, bytes)
            assert content_of(upload) == data
            file = upload.content
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
        ([b"no form at all"], FORM, BadRequest, "contains no boundary"),
        ([form()], FORM, BadRequest, "no field 'file'"),
        ([form(part(b"x", "clip"))], FORM, BadRequest, "'clip'"),
        ([form(part(b"x"), part(b"y"))], FORM, BadRequest, "more than once"),
        ([form(part(b"x"), part(b"3", "top_k"))], FORM, BadRequest, "query"),
        ([form(part(b"x"))[:-6]], FORM, BadRequest, "ends before its last boundary"),
        ([form(part(b"x", more="\r\nA: b" * 20))], FORM, BadRequest, "malformed"),
        ([form(part(b"x", more="\r\nA: " + "b" * 9000))], FORM, BadRequest, "malformed"),
    ],
)
def test_invalid_body_is_refused_with_a_reason(
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
def test_size_is_limited_while_reading_whatever_was_announced(headers: Mapping[str, str]) -> None:
    assert receive([b"12345", b"67890"], headers, limit=10) == b"1234567890"
    with pytest.raises(TooLarge):
        receive([b"12345", b"67890", b"1"], headers, limit=10)


def test_announced_size_may_be_the_limit_and_in_a_form_a_little_more() -> None:
    assert receive([b"1234567890"], {"content-length": "10"}, limit=10) == b"1234567890"
    whole = FORM | {"content-length": str(10 + FORM_OVERHEAD_BYTES)}
    assert receive([form(part(b"1234567890"))], whole, limit=10) == b"1234567890"
    with pytest.raises(TooLarge):
        receive([], FORM | {"content-length": str(11 + FORM_OVERHEAD_BYTES)}, limit=10)


def test_what_surrounds_the_clip_in_a_form_is_limited() -> None:
    content = form(part(b"1234567890"))
    padding = b"x" * (10 + FORM_OVERHEAD_BYTES - len(content))
    assert receive([content, padding], FORM, limit=10) == b"1234567890"
    with pytest.raises(TooLarge):
        receive([content, padding + b"x"], FORM, limit=10)


def test_boundaries_have_256_characters_at_most() -> None:
    for length in (MAX_BOUNDARY_LENGTH, MAX_BOUNDARY_LENGTH + 1):
        boundary = "b" * length
        content = form(part(b"clip")).replace(b"edge", boundary.encode())
        headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
        if length > 256:
            with pytest.raises(BadRequest, match="its boundary has more than 256 characters"):
                receive([content], headers)
        else:
            assert receive([content], headers) == b"clip"


def test_text_of_a_client_is_cut_off_in_messages() -> None:
    long = "x" * 150
    with pytest.raises(NotAVideo, match=f"^Unsupported Content-Type text/{'x' * 95}; send a form"):
        receive([b"x"], {"content-type": f"text/{long}"})
    with pytest.raises(BadRequest, match=f"^Unexpected form field '{'x' * 100}'; send only 'file'"):
        receive([form(part(b"x", long))], FORM)
    with pytest.raises(BadRequest, match=f"^Unsupported Content-Encoding {'x' * 100}; use gzip"):
        body([b"x"], long)


def test_clients_may_pause_for_ten_seconds_and_must_reach_ten_kilobytes_a_second_then() -> None:
    assert (uploads.PAUSE_TIMEOUT_S, uploads.MIN_RATE_AFTER_S, uploads.MIN_BYTES_PER_S) == (10, 10, 10_000)
    assert (MEMORY_BYTES, FORM_OVERHEAD_BYTES) == (1_000_000, 16_384)


def test_size_of_a_clip_in_a_form_is_limited() -> None:
    assert receive([form(part(b"1234567890"))], FORM, limit=10) == b"1234567890"
    with pytest.raises(TooLarge):
        receive([form(part(b"12345678901"))], FORM, limit=10)


def test_size_of_the_text_after_a_form_is_limited() -> None:
    def endless() -> Iterable[bytes]:
        yield form(part(b"clip"))
        for _ in range(1000):
            yield bytes(65_536)

    with pytest.raises(TooLarge):
        receive(endless(), FORM, limit=1_000_000)


def test_disconnection_during_an_upload_is_noticed() -> None:
    with pytest.raises(ClientDisconnect):
        receive([b"x" * 2_000_000], gone=True)


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> list[BinaryIO]:
    """The temporary files that are created."""
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


@pytest.mark.parametrize(
    ("number", "error"),
    [(errno.ENOSPC, StorageFull), (errno.EDQUOT, StorageFull), (errno.EMFILE, Overloaded)],
)
def test_full_disk_is_reported_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int, error: type[Exception]
) -> None:
    class FailingFile(BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "TemporaryFile", FailingFile)
    with pytest.raises(error):
        receive([b"x" * 2_000_000])
    [record] = caplog.records
    assert os.strerror(number) in record.message
    assert record.exc_info is None


def test_closing_twice_is_harmless() -> None:
    async def run() -> None:
        spool = Spool(LIMIT)
        await spool.write(b"x" * 2_000_000)
        spool.close()
        spool.close()

    asyncio.run(run())


def slow_request(pauses_s: Iterable[float], chunk: bytes = b"x") -> Request:
    """A request that sends a chunk after each pause, and then nothing more."""
    pauses = iter(pauses_s)

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(next(pauses, 1000))
        return {"type": "http.request", "body": chunk, "more_body": True}

    return Request({"type": "http", "method": "POST", "headers": []}, receive)


@pytest.mark.parametrize(
    ("pauses_s", "constants", "message"),
    [
        ([0.01], {"PAUSE_TIMEOUT_S": 0.05}, "paused for more than 0.05 s"),
        ([0.02] * 100, {"MIN_RATE_AFTER_S": 0.1}, "slower than 10000 bytes per second"),
        ([0.02] * 100, {}, "took longer than 0.3 s"),
    ],
)
def test_slow_upload_is_refused(
    monkeypatch: pytest.MonkeyPatch, pauses_s: list[float], constants: dict[str, float], message: str
) -> None:
    for name, value in constants.items():
        monkeypatch.setattr(uploads, name, value)

    async def run() -> None:
        for received in (received_video, received_body):
            with pytest.raises(DeadlineExceeded, match=message):
                async with received(slow_request(pauses_s), UploadLimits(LIMIT, 0.3)):
                    raise AssertionError("the upload was accepted")

    asyncio.run(run())


def body(chunks: Iterable[bytes], encoding: str, limit: int = LIMIT) -> bytes:
    async def run() -> bytes:
        incoming = request(chunks, {"content-encoding": encoding})
        async with received_body(incoming, UploadLimits(limit, 30)) as upload:
            return await upload.read()

    return asyncio.run(run())


def test_upload_whose_time_has_ended_can_lose_its_place_at_that_moment() -> None:
    admission = Admission(limit=1, clock=(clock := Clock()))
    ticket, *_ = [admission.admit("a") for _ in range(UPLOADS_PER_PLACE)]

    async def receive() -> dict[str, Any]:
        try:
            await asyncio.sleep(60)
        finally:
            clock.now_s += IDLE_UPLOAD_S
            admission.admit("a").release()
        raise AssertionError("the time limit did not end the upload")

    async def run() -> None:
        scope = {"type": "http", "method": "POST", "headers": []}
        async with received_video(Request(scope, receive), UploadLimits(LIMIT, 0.01), ticket):
            pass

    with pytest.raises(DeadlineExceeded, match=r"longer than 0\.01 s"):
        asyncio.run(run())


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed_body_is_decompressed_and_bounded(
    encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    data = bytes(3_000_000) + b"end"
    compressed = compress(data)
    assert body(cut(compressed, range(0, len(compressed), 100)), encoding) == data
    with pytest.raises(TooLarge):
        body([compressed], encoding, limit=2_000_000)
    for broken in (compressed[:-1], compressed + b"x", b"x" + compressed):
        with pytest.raises(BadRequest, match="compressed body"):
            body([broken], encoding)


def test_unknown_encoding_is_refused() -> None:
    with pytest.raises(BadRequest, match="Unsupported Content-Encoding br"):
        body([b"x"], "br")
