from __future__ import annotations

import gzip
import hashlib

import pytest
from fastapi import Request
from fastapi.responses import Response

from service.http.transfer.static_files import StaticFile

TEXT = StaticFile(b"body { margin: 0 }" * 10, "text/css; charset=utf-8")
PICTURE = StaticFile(b"\x89PNG", "image/png")
DIGEST = hashlib.sha256(TEXT.content).hexdigest()[:24]


def answer(file: StaticFile, accepted: str | None = None, known: str | None = None) -> Response:
    headers = [(b"accept-encoding", accepted), (b"if-none-match", known)]
    sent = [(name, value.encode()) for name, value in headers if value is not None]
    return file.response(Request({"type": "http", "method": "GET", "path": "/", "headers": sent}))


@pytest.mark.parametrize(
    ("accepted", "zipped"),
    [
        (None, False),
        ("", False),
        ("br", False),
        ("gzip", True),
        ("GZIP", True),
        ("br, gzip;q=0.5", True),
        ("*", True),
        ("gzip;q=0", False),
        ("gzip; q=0.0", False),
        ("gzip;q=0.00", False),
        ("gzip;q=0.000", False),
        ("gzip;q=0.001", True),
        ("gzip;q=0, *", False),
        ("xgzip", False),
    ],
)
def test_text_is_compressed_for_clients_that_accept_it(accepted: str | None, zipped: bool) -> None:
    response = answer(TEXT, accepted)
    assert (response.headers.get("Content-Encoding") == "gzip") is zipped
    body = bytes(response.body)
    assert (gzip.decompress(body) if zipped else body) == TEXT.content
    assert response.headers["ETag"] == (f'"{DIGEST}-gzip"' if zipped else f'"{DIGEST}"')
    assert response.headers["Vary"] == "Accept-Encoding"
    assert response.headers["Cache-Control"] == "no-cache"
    assert response.headers["Content-Type"] == "text/css; charset=utf-8"


@pytest.mark.parametrize(
    ("media_type", "compressible"),
    [
        ("text/javascript", True),
        ("application/json", True),
        ("image/svg+xml", True),
        ("image/png", False),
        ("video/mp4", False),
        ("application/octet-stream", False),
    ],
)
def test_media_is_not_compressed_again(media_type: str, compressible: bool) -> None:
    response = answer(StaticFile(b"content", media_type), "gzip")
    assert ("Content-Encoding" in response.headers) is compressible


def test_compressed_content_is_the_same_every_time() -> None:
    assert (
        TEXT.compressed
        == StaticFile(TEXT.content, TEXT.media_type).compressed
        == gzip.compress(TEXT.content, mtime=0)
    )
    assert PICTURE.compressed is None


@pytest.mark.parametrize(
    ("known", "is_known"),
    [
        (None, False),
        (f'"{DIGEST}"', True),
        (f'W/"{DIGEST}"', True),
        (f'"other", "{DIGEST}"', True),
        ("*", True),
        (f'"{DIGEST}-gzip"', False),
        (DIGEST, False),
    ],
)
def test_client_that_has_the_file_gets_no_body(known: str | None, is_known: bool) -> None:
    response = answer(TEXT, known=known)
    assert response.status_code == (304 if is_known else 200)
    assert bytes(response.body) == (b"" if is_known else TEXT.content)
    assert response.headers["ETag"] == f'"{DIGEST}"'


def test_headers_of_the_caller_come_last() -> None:
    request = Request({"type": "http", "method": "GET", "path": "/", "headers": []})
    response = TEXT.response(request, {"Cache-Control": "no-store", "X-Frame-Options": "DENY"})
    assert (response.headers["Cache-Control"], response.headers["X-Frame-Options"]) == ("no-store", "DENY")
