"""Receiving request bodies: bounded in size and in time, and deleted when the request ends.

Small bodies stay in memory. Larger ones go to an unnamed file, which disappears with the process even if the
process is killed; the client's file name is never used. Threads write the file, about a megabyte at a time,
so a slow disk does not block the event loop.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import tempfile
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import BinaryIO

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from service.errors import BadRequest, DeadlineExceeded, NotAVideo, Overloaded, StorageFull, TooLarge
from service.pipeline.limits.admission import IDLE_UPLOAD_S, SHORTEST_RETRY_S, Ticket

FIELD = "file"
MEMORY_BYTES = 1_000_000  # larger bodies go to a file
FORM_OVERHEAD_BYTES = 16_384  # for preamble, boundaries and part headers of a form
MAX_BOUNDARY_LENGTH = 256  # RFC 2046 (5.1.1) allows 70
RETRY_FULL_DISK_S = 10.0
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
# A client that sends a request head and then nothing would occupy an upload slot until the request times out.
PAUSE_TIMEOUT_S = 10.0
MIN_BYTES_PER_S = 10_000
MIN_RATE_AFTER_S = 10.0
DECOMPRESSED_PIECE_BYTES = 1_000_000

# Of a body that only has the parameters of a command, such as loading a model.
MAX_PARAMETERS_BYTES = 65_536

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class UploadLimits:
    """Bounds of one upload: its size in bytes, and the time from the start of receiving to its end."""

    max_bytes: int
    timeout_s: float


@dataclass(frozen=True)
class ReceivedBody:
    """A received body: its bytes, or an open unnamed file. Valid until the request ends."""

    content: bytes | BinaryIO
    size_bytes: int

    async def read(self) -> bytes:
        """Return the whole body, in memory."""
        if isinstance(self.content, bytes):
            return self.content
        return await run_in_threadpool(_read_all, self.content)


@asynccontextmanager
async def received_video(
    request: Request, limits: UploadLimits, ticket: Ticket | None = None
) -> AsyncIterator[ReceivedBody]:
    """Receive the video of a request: the form field `file`, or the body itself.

    With a ticket, an upload that pauses gives its slot to another request if no slot is free.

    Raises:
        BadRequest: the body is empty, or a malformed form, or a form without exactly the field `file`.
        TooLarge: the video exceeds the limit; raised as soon as that is known.
        NotAVideo: the content type is neither that of a form nor that of a video.
        DeadlineExceeded: the upload is slower than allowed.
        StorageFull: the disk is full.
        Overloaded: no file can be created for another reason, such as too many open files, or another upload
            took the slot.
        starlette.requests.ClientDisconnect: the client disconnected.
    """
    boundary = _boundary(request)
    overhead_bytes = 0 if boundary is None else FORM_OVERHEAD_BYTES
    _check_content_length(request, limits.max_bytes + overhead_bytes, limits.max_bytes)
    chunks = _chunks(request, limits.timeout_s, ticket)
    spool = Spool(limits.max_bytes)
    try:
        async for piece in chunks if boundary is None else _file_of_form(chunks, boundary, limits.max_bytes):
            await spool.write(piece)
        if spool.size_bytes == 0:
            raise BadRequest("The upload is empty.")
        yield ReceivedBody(await spool.finish(), spool.size_bytes)
    finally:
        spool.close()


@asynccontextmanager
async def received_body(
    request: Request, limits: UploadLimits, ticket: Ticket | None = None
) -> AsyncIterator[ReceivedBody]:
    """Receive a body of any type; decompress it if it is compressed with gzip or deflate.

    `ticket` has the same effect as for `received_video`.

    Raises:
        BadRequest: the body has another encoding, or is not validly compressed.
        TooLarge: the body exceeds the limit, compressed or decompressed.
        DeadlineExceeded, StorageFull, Overloaded, starlette.requests.ClientDisconnect: see `received_video`.
    """
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding not in ("identity", "gzip", "deflate"):
        raise BadRequest(f"Unsupported Content-Encoding {encoding[:100]}; use gzip, deflate or none.")
    _check_content_length(request, limits.max_bytes, limits.max_bytes)
    chunks = _chunks(request, limits.timeout_s, ticket)
    spool = Spool(limits.max_bytes)
    try:
        async for chunk in chunks if encoding == "identity" else _decompressed(chunks):
            await spool.write(chunk)
        yield ReceivedBody(await spool.finish(), spool.size_bytes)
    finally:
        spool.close()


def _boundary(request: Request) -> bytes | None:
    """Return the boundary of a form, or None if the body itself is the video."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise NotAVideo("Content-Encoding is not supported for videos; send the file uncompressed.")
    media_type, options = parse_options_header(
        request.headers.get("content-type", "application/octet-stream")
    )
    if media_type == "multipart/form-data":
        boundary: bytes = options.get("boundary", "").encode("latin-1")
        if not boundary:
            raise BadRequest("The Content-Type of the form has no boundary.")
        if len(boundary) > MAX_BOUNDARY_LENGTH:
            raise BadRequest(
                f"The form is malformed: its boundary has more than {MAX_BOUNDARY_LENGTH} characters."
            )
        return boundary
    if media_type == "application/octet-stream" or media_type.startswith("video/"):
        return None
    if request.headers.get("content-length") == "0":
        raise BadRequest("The upload is empty.")
    raise NotAVideo(
        f"Unsupported Content-Type {media_type[:100]}; send a form with the field "
        f"'{FIELD}', or the file as the body with Content-Type video/mp4, another video type, or "
        "application/octet-stream."
    )


def _check_content_length(request: Request, body_limit_bytes: int, limit_bytes: int) -> None:
    """Refuse an upload whose announced length is too large, before reading any of it."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > body_limit_bytes:
        raise _too_large(limit_bytes)


def _too_large(limit_bytes: int) -> TooLarge:
    return TooLarge(f"The upload exceeds the limit of {limit_bytes} bytes.")


async def _chunks(request: Request, timeout_s: float, ticket: Ticket | None) -> AsyncIterator[bytes]:
    """Yield the body in pieces as they arrive; raise `DeadlineExceeded` if the client sends too slowly."""
    clock = asyncio.get_running_loop().time
    stream = request.stream()
    start = clock()
    received_bytes = 0
    while True:
        deadlines = {
            f"The upload took longer than {timeout_s:g} s.": start + timeout_s,
            f"The upload paused for more than {PAUSE_TIMEOUT_S:g} s.": clock() + PAUSE_TIMEOUT_S,
            f"The upload is slower than {MIN_BYTES_PER_S} bytes per second.": start
            + MIN_RATE_AFTER_S
            + received_bytes / MIN_BYTES_PER_S,
        }
        message = min(deadlines, key=deadlines.__getitem__)
        try:
            async with asyncio.timeout_at(deadlines[message]) as timeout:
                place = _Place(timeout)
                with nullcontext() if ticket is None else ticket.waiting_for_data(place.lose):
                    chunk = await anext(stream, None)
        except TimeoutError:
            if place.lost:
                raise Overloaded(
                    f"The upload paused for more than {IDLE_UPLOAD_S:g} s while others waited for its place.",
                    SHORTEST_RETRY_S,
                ) from None
            raise DeadlineExceeded(message) from None
        if chunk is None:
            return
        received_bytes += len(chunk)
        yield chunk


class _Place:
    """The slot of an upload that waits for data; `lose` ends the wait."""

    def __init__(self, timeout: asyncio.Timeout) -> None:
        self._timeout = timeout
        self.lost = False

    def lose(self) -> None:
        if not self._timeout.expired():  # an expired timeout ends the wait anyway and cannot be rescheduled
            self.lost = True
            self._timeout.reschedule(asyncio.get_running_loop().time())


async def _decompressed(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Decompress gzip or zlib data in bounded pieces, in threads."""
    decompressor = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # detects the header of either format
    try:
        async for chunk in chunks:
            if chunk and decompressor.eof:
                raise BadRequest("The compressed body is followed by other data.")
            piece, data = b"", chunk
            # After a full piece, the decompressor may hold more output even if all input is consumed.
            while (data or len(piece) == DECOMPRESSED_PIECE_BYTES) and not decompressor.eof:
                piece = await run_in_threadpool(decompressor.decompress, data, DECOMPRESSED_PIECE_BYTES)
                yield piece
                data = decompressor.unconsumed_tail
    except zlib.error as exc:
        raise BadRequest("The compressed body is invalid.") from exc
    if not decompressor.eof or decompressor.unused_data:
        raise BadRequest("The compressed body is incomplete or followed by other data.")


async def _file_of_form(
    chunks: AsyncIterator[bytes], boundary: bytes, limit_bytes: int
) -> AsyncIterator[bytes]:
    """Extract the field `file` of a form in pieces."""
    parser = PushMultipartParser(boundary, header_charset="latin-1")  # decodes file names in any encoding
    received_bytes = 0
    contains_file = False
    try:
        async for chunk in chunks:
            received_bytes += len(chunk)
            if received_bytes > limit_bytes + FORM_OVERHEAD_BYTES:
                raise _too_large(limit_bytes)
            for event in parser.parse(chunk) if chunk else ():  # an empty chunk would end the form
                if isinstance(event, MultipartSegment):
                    if event.name != FIELD:
                        name = (event.name or "").encode("latin-1").decode("utf-8", "replace")
                        raise BadRequest(
                            f"Unexpected form field {name[:100]!r}; send only '{FIELD}'. "
                            "Parameters go into the query string."
                        )
                    if contains_file:
                        raise BadRequest(
                            f"The form has the field '{FIELD}' more than once; send one video per request."
                        )
                    contains_file = True
                elif event is not None:
                    yield event
    except MultipartError as exc:
        raise BadRequest("The multipart body is malformed.") from exc
    try:
        parser.close()
    except MultipartError as exc:
        if contains_file:
            raise BadRequest("The multipart body ends before its last boundary.") from exc
        raise BadRequest("The multipart body contains no boundary that is followed by a part.") from exc
    if not contains_file:
        raise BadRequest(f"The form has no field '{FIELD}'.")


class Spool:
    """Buffer that moves to an unnamed file when it grows large."""

    def __init__(self, limit_bytes: int) -> None:
        self.size_bytes = 0
        self._limit_bytes = limit_bytes
        self._memory = bytearray()
        self._file: BinaryIO | None = None

    async def write(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            TooLarge: the limit is exceeded.
            StorageFull: the disk is full.
            Overloaded: no file can be created for another reason, such as too many open files.
        """
        self.size_bytes += len(data)
        if self.size_bytes > self._limit_bytes:
            raise _too_large(self._limit_bytes)
        self._memory += data
        if len(self._memory) > MEMORY_BYTES:
            await self._flush()

    async def finish(self) -> bytes | BinaryIO:
        """Return the bytes, or the file that contains all of them."""
        if self._file is None:
            return bytes(self._memory)
        await self._flush()
        return self._file

    def close(self) -> None:
        """Discard everything; may be called at any time and more than once."""
        self._memory.clear()
        if self._file is not None:
            with suppress(OSError):  # closing flushes, which fails if the disk is full
                self._file.close()

    async def _flush(self) -> None:
        # The file is created here rather than in the thread, so that `close` finds it if the request is
        # cancelled in the meantime. The lock of a buffered file makes `close` wait for a write in progress.
        data, self._memory = self._memory, bytearray()
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
            await run_in_threadpool(_write_through, self._file, data)
        except OSError as exc:
            logger.error("an upload cannot be written to %s: %s", tempfile.gettempdir(), exc.strerror)
            if exc.errno in FULL_DISK:
                raise StorageFull("The disk for uploads is full.", RETRY_FULL_DISK_S) from exc
            raise Overloaded("The upload cannot be stored.", RETRY_FULL_DISK_S) from exc


def _read_all(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


def _write_through(file: BinaryIO, data: bytes | bytearray) -> None:
    file.write(data)
    file.flush()
