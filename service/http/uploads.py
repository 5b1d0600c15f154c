"""A clip on its way in: read from the request as it arrives, capped, and gone when the request is over.

Small clips stay in memory. Larger ones go to a file that has no name: it cannot be reached from outside and
is gone with the process, however that ends. The caller's own file name is never looked at. Writing happens in
a thread, in pieces of a megabyte, so that a slow disk stops nobody else.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from service.errors import BadRequest, NotAVideo, Overloaded, TooLarge

FIELD = "file"
MEMORY_BYTES = 1_000_000  # clips up to this size never touch the disk
FORM_OVERHEAD_BYTES = 16_384  # boundaries and part headers around a clip in a form
RETRY_FULL_DISK_S = 10.0

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Upload:
    """A received clip: its bytes, or an open file without a name, until the request ends."""

    clip: bytes | BinaryIO
    size_bytes: int

    async def read(self) -> bytes:
        """All bytes, in memory."""
        return self.clip if isinstance(self.clip, bytes) else await run_in_threadpool(_read_all, self.clip)


@asynccontextmanager
async def received_clip(request: Request, limit_bytes: int) -> AsyncIterator[Upload]:
    """The clip of a request, from a form field `file` or from the body itself.

    Raises:
        BadRequest: an empty body, a broken form, or one without exactly the field `file`.
        TooLarge: the clip is larger than `limit_bytes`; said as soon as it is known.
        NotAVideo: the content type is none that carries a clip.
        Overloaded: there is no room on the disk.
        starlette.requests.ClientDisconnect: the caller went away.
    """
    boundary = _boundary(request)
    _check_announced_size(request, limit_bytes + (0 if boundary is None else FORM_OVERHEAD_BYTES))
    spool = Spool(limit_bytes)
    try:
        if boundary is None:
            await _read_raw(request, spool)
        else:
            await _read_form(request, spool, boundary, limit_bytes + FORM_OVERHEAD_BYTES)
        if spool.size_bytes == 0:
            raise BadRequest("The clip is empty: no bytes were sent.")
        yield Upload(await spool.finish(), spool.size_bytes)
    finally:
        spool.close()


@asynccontextmanager
async def received_body(request: Request, limit_bytes: int) -> AsyncIterator[Upload]:
    """The body of a request, whatever its type, kept as a clip is.

    Raises:
        BadRequest: it is encoded.
        TooLarge, Overloaded, starlette.requests.ClientDisconnect: as `received_clip`.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise BadRequest("Content-Encoding is not supported: send the body as it is.")
    _check_announced_size(request, limit_bytes)
    spool = Spool(limit_bytes)
    try:
        await _read_raw(request, spool)
        yield Upload(await spool.finish(), spool.size_bytes)
    finally:
        spool.close()


def _boundary(request: Request) -> bytes | None:
    """The form's boundary, or None when the body itself is the clip."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise NotAVideo("Content-Encoding is not supported: send the clip as it is.")
    media_type, options = parse_options_header(
        request.headers.get("content-type", "application/octet-stream")
    )
    if media_type == b"multipart/form-data":
        if not options.get(b"boundary"):
            raise BadRequest("The multipart body has no boundary in its Content-Type.")
        return options[b"boundary"]
    if media_type == b"application/octet-stream" or media_type.startswith(b"video/"):
        return None
    if request.headers.get("content-length") == "0":
        raise BadRequest("The body is empty: no clip was sent.")
    shown = media_type.decode("ascii", "replace")[:100]
    raise NotAVideo(
        f"Content-Type {shown} carries no clip: send a form with the field '{FIELD}', "
        "or the clip as the body with Content-Type video/mp4, another video/*, or application/octet-stream."
    )


def _check_announced_size(request: Request, limit_bytes: int) -> None:
    """Refuse what says itself that it is too large, before any of it is read."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit_bytes:
        raise _too_large(limit_bytes)


def _too_large(limit_bytes: int) -> TooLarge:
    return TooLarge(f"The upload has more than {limit_bytes} bytes, which is the limit.")


async def _read_raw(request: Request, spool: Spool) -> None:
    async for chunk in request.stream():
        await spool.write(chunk)


async def _read_form(request: Request, spool: Spool, boundary: bytes, body_limit_bytes: int) -> None:
    form = _Form()
    received_bytes = 0
    try:
        parser = MultipartParser(boundary, form.callbacks())
        async for chunk in request.stream():
            received_bytes += len(chunk)
            if received_bytes > body_limit_bytes:
                raise _too_large(spool.limit_bytes)
            parser.write(chunk)
            await spool.write(form.taken())
    except FormParserError as exc:
        raise BadRequest("The multipart body is malformed.") from exc
    if not form.ended:
        raise BadRequest("The multipart body ends before its last boundary.")
    if not form.found:
        raise BadRequest(f"The form has no field '{FIELD}'.")


class _Form:
    """Follows the parser through a form with exactly one part, the clip, and collects the clip's bytes."""

    def __init__(self) -> None:
        self.found = False
        self.ended = False
        self._header = bytearray()
        self._value = bytearray()
        self._name: str | None = None
        self._clip = bytearray()

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._on_part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_end": self._on_end,
        }

    def taken(self) -> bytes:
        """The clip's bytes since the last call."""
        taken = bytes(self._clip)
        self._clip.clear()
        return taken

    def _on_part_begin(self) -> None:
        self._name = None

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._value))
            self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._header.clear()
        self._value.clear()

    def _on_headers_finished(self) -> None:
        if self._name != FIELD:
            raise BadRequest(
                f"The form has a field {(self._name or '')[:100]!r}: it takes the field '{FIELD}' alone, "
                "parameters go into the query."
            )
        if self.found:
            raise BadRequest(f"The form has the field '{FIELD}' more than once: send one clip a request.")
        self.found = True

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._clip += data[start:end]

    def _on_end(self) -> None:
        self.ended = True


class Spool:
    """Bytes in memory until there are many, then in a file without a name; `close` leaves nothing behind."""

    def __init__(self, limit_bytes: int) -> None:
        self.size_bytes = 0
        self.limit_bytes = limit_bytes
        self._memory = bytearray()
        self._file: BinaryIO | None = None

    async def write(self, data: bytes) -> None:
        """Add bytes.

        Raises:
            TooLarge: there are now more than the limit.
            Overloaded: there is no room on the disk.
        """
        self.size_bytes += len(data)
        if self.size_bytes > self.limit_bytes:
            raise _too_large(self.limit_bytes)
        self._memory += data
        if len(self._memory) > MEMORY_BYTES:
            await self._spill()

    async def finish(self) -> bytes | BinaryIO:
        """The bytes, or the file that holds all of them."""
        if self._file is None:
            return bytes(self._memory)
        await self._spill()
        return self._file

    async def _spill(self) -> None:
        """Move what is in memory to the file.

        The file is made here and not in the thread: a request that is cancelled meanwhile still knows it. The
        lock of a buffered file makes `close` wait for a write that is under way.
        """
        data, self._memory = self._memory, bytearray()
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 - `close` does it
            await run_in_threadpool(_write_through, self._file, data)
        except OSError as exc:
            logger.exception("an upload cannot be written")
            raise Overloaded("There is no room for the upload at the moment.", RETRY_FULL_DISK_S) from exc

    def close(self) -> None:
        """Drop everything; safe at any time and more than once."""
        self._memory.clear()
        if self._file is not None:
            with suppress(OSError):  # bytes for which the disk had no room, of a clip that is dropped anyway
                self._file.close()


def _read_all(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


def _write_through(file: BinaryIO, data: bytes | bytearray) -> None:
    file.write(data)
    file.flush()
