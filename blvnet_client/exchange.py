"""Code that both clients share: addresses, requests, and interpretation of answers and network errors."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx
import msgspec

from blvnet_client.errors import (
    BlvnetClientError,
    ConnectionFailed,
    LocalError,
    TimedOut,
    UnexpectedAnswer,
    parse_problem,
    problem_error,
)
from blvnet_client.operations import Operation
from blvnet_client.results import TimelineFailure, TimelineResult, WindowResult, parse_timeline_line
from blvnet_client.uploads import Upload

Result = TypeVar("Result")

CONNECT_TIMEOUT_S = 10.0
TIMEOUT_S = 120.0
PHASES = {
    httpx.ConnectTimeout: "connect",
    httpx.WriteTimeout: "write",
    httpx.ReadTimeout: "read",
    httpx.PoolTimeout: "pool",
}
WHAT_TIMED_OUT = {
    "connect": "no connection",
    "write": "the upload made no progress",
    "read": "no answer",
    "pool": "no free connection",
}
# httpx and proxies resolve them, so that the request would be for something else: with the example `..`, a
# model would be deleted instead of an example.
NO_SEGMENTS = frozenset({"", ".", ".."})


def normalised(address: str) -> str:
    """Return the base URL for an address; `127.0.0.1:8000` means `http://127.0.0.1:8000`.

    Raises:
        LocalError: the address is not that of an HTTP server.
    """
    text = address.strip()
    url = text if "://" in text else f"http://{text}"
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError) as exc:
        raise LocalError(f"{address!r} is not a valid address: {exc}") from exc
    half_a_scheme = "://" not in text and parsed.host in ("http", "https")  # as in http:/host
    no_host = not parsed.host or "%" in parsed.host or half_a_scheme
    no_port = parsed.port is not None and not 0 < parsed.port < 65536
    if parsed.scheme not in ("http", "https") or no_host or no_port:
        raise LocalError(f"{address!r} is not a valid address; use http://HOST:PORT or https://HOST:PORT")
    return url.rstrip("/")


def client_options(url: str, api_key: str | None, timeout_s: float) -> dict[str, Any]:
    """Return the arguments of the httpx client for a base URL.

    Raises:
        LocalError: the key cannot be sent in a header.
    """
    headers = {"Accept-Encoding": "identity"}
    if api_key is not None:
        _check_header("The API key", api_key)
        headers["Authorization"] = f"Bearer {api_key}"
    return {
        "base_url": url,
        "headers": headers,
        "timeout": httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S)),
        # Loading the certificates takes longer than a request, and plain HTTP does not need them.
        "verify": url.startswith("https:"),
    }


def build_request(
    http: httpx.Client | httpx.AsyncClient, operation: Operation[Any], upload: Upload | None
) -> httpx.Request:
    """Build the request of an operation with the body of an upload, in the form that `http` sends.

    Raises:
        LocalError: `http` is closed, or a name, an id or a header cannot be sent.
    """
    if http.is_closed:
        raise LocalError("The client is closed.")
    if not NO_SEGMENTS.isdisjoint(operation.path.removeprefix("/").split("/")):
        raise LocalError(f"A name or an id in {operation.path} is empty or consists of dots.")
    headers = dict(operation.headers)
    for name, value in headers.items():
        _check_header(name, value)
    body: dict[str, Any] = {}
    if upload is not None:
        headers |= upload.headers
        body["content"] = upload.pieces_async() if isinstance(http, httpx.AsyncClient) else upload.pieces()
    return http.build_request(
        operation.method, operation.path, params=operation.parameters, headers=headers, **body
    )


def _check_header(what: str, value: str) -> None:
    if not value.isascii() or not value.isprintable():
        raise LocalError(f"{what} contains characters that a header cannot hold.")


@contextmanager
def translated_errors(url: str, timeout: httpx.Timeout) -> Iterator[None]:
    """Translate errors of httpx in the block to errors of the client."""
    try:
        yield
    except httpx.TimeoutException as exc:
        phase = PHASES[type(exc)]
        limit_s = getattr(timeout, phase)
        raise TimedOut(f"{url}: {WHAT_TIMED_OUT[phase]} within {limit_s:g} s", phase) from exc
    except httpx.LocalProtocolError as exc:
        raise LocalError(f"The request cannot be sent, its source may have changed: {exc}") from exc
    except (httpx.TransportError, httpx.StreamError) as exc:
        detail = re.sub(r"^\[Errno -?\d+\] ", "", str(exc)) or type(exc).__name__
        raise ConnectionFailed(f"{url} does not answer: {detail}; is the service running there?") from exc


def error_of(response: httpx.Response, url: str) -> BlvnetClientError:
    """Return the error for an unsuccessful answer, whose body must have been read."""
    problem = parse_problem(response.content)
    if problem is None:
        return unexpected(response, url)
    retry_after = response.headers.get("Retry-After", "")
    return problem_error(problem, float(retry_after) if retry_after.isdecimal() else None)


def unexpected(response: httpx.Response, url: str) -> UnexpectedAnswer:
    """Return the error for an answer that does not come from this service."""
    status = response.status_code
    return UnexpectedAnswer(
        f"{url} sent an unexpected answer with status {status}; is it a blvnet service?", status
    )


def decoded(response: httpx.Response, kind: type[Result], url: str) -> Result:
    """Return the document of a successful answer; `NoneType` stands for an answer without one."""
    try:
        if kind is type(None):
            return kind()
        return msgspec.json.decode(response.content, type=kind)
    except msgspec.DecodeError as exc:
        raise unexpected(response, url) from exc


def lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The lines of a body. Only a newline ends one: labels may contain what `str.splitlines` splits at."""
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole
    if rest:
        yield rest


async def lines_async(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """As `lines`."""
    rest = b""
    async for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield line
    if rest:
        yield rest


def timeline_line(text: bytes, response: httpx.Response, url: str) -> WindowResult | TimelineResult:
    """One line of a timeline; the problem document of a failed timeline is raised."""
    try:
        line = parse_timeline_line(text)
    except msgspec.DecodeError as exc:
        raise unexpected(response, url) from exc
    if isinstance(line, TimelineFailure):
        raise problem_error(line.error)
    return line


def cut_short(url: str) -> ConnectionFailed:
    """Return the error for a timeline that ends without its last line."""
    return ConnectionFailed(f"{url} closed the connection before the last window")
