"""A video to send: from a path, bytes, an open file or an iterator, in pieces and with progress."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

from anyio.to_thread import run_sync

from blvnet_client.errors import LocalError

PIECE_BYTES = 65_536


@runtime_checkable
class Readable(Protocol):
    """An open binary file."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes; none at the end."""


Source = str | os.PathLike[str] | bytes | bytearray | memoryview | Readable | Iterable[bytes]
AsyncSource = Source | AsyncIterable[bytes]
Content = bytes | bytearray | memoryview | Readable | Iterable[bytes] | AsyncIterable[bytes]
# Called with the number of bytes sent so far and the size of the video, None if that is unknown.
Progress = Callable[[int, int | None], None]


class Upload:
    """A video to send, possibly several times.

    Args:
        content: bytes, an open binary file, or an iterable of bytes.
        on_progress: called after each piece; a second attempt starts at 0 again.

    Attributes:
        size_bytes: Number of bytes to send; None if it is known only at the end.
    """

    def __init__(self, content: Content, on_progress: Progress | None = None) -> None:
        self._content = content
        self._on_progress = on_progress
        self._sent_bytes = 0
        self._begun = False
        self._start: int | None = None
        self.size_bytes: int | None = None
        if isinstance(content, bytes | bytearray | memoryview):
            self.size_bytes = memoryview(content).nbytes
        elif isinstance(content, Readable):
            _checked(content.read(0))  # files in text mode are refused before anything is sent
            self._start, self.size_bytes = _position_and_rest(content)

    @property
    def repeatable(self) -> bool:
        """Whether the video can be sent from its start again."""
        one_shot = isinstance(self._content, Iterator | AsyncIterator | Readable)
        return not self._begun or self._start is not None or not one_shot

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the body; without a length it is sent in chunks."""
        length = {} if self.size_bytes is None else {"Content-Length": str(self.size_bytes)}
        return {"Content-Type": "application/octet-stream"} | length

    def pieces(self) -> Iterator[bytes]:
        """Yield the video from its start."""
        for piece in self._from_start():
            yield piece
            self._report(piece)

    async def pieces_async(self) -> AsyncIterator[bytes]:
        """Yield the video from its start; files and plain iterators are read in a thread."""
        if isinstance(self._content, AsyncIterable):
            self._begin()
            async for piece in self._content:
                yield _checked(piece)
                self._report(piece)
            return
        pieces = self._from_start()
        while (following := await run_sync(next, pieces, None)) is not None:
            yield following
            self._report(following)

    def _from_start(self) -> Iterator[bytes]:
        self._begin()
        content = self._content
        if isinstance(content, AsyncIterable):
            raise LocalError("An asynchronous iterator can be sent by AsyncClient only.")
        if isinstance(content, bytes | bytearray | memoryview):
            view = memoryview(content).cast("B")
            return (bytes(view[at : at + PIECE_BYTES]) for at in range(0, len(view), PIECE_BYTES))
        if isinstance(content, Readable):
            if self._start is not None:
                content.seek(self._start)  # type: ignore[attr-defined]  # a file with a position has it
            return iter(partial(_read, content), b"")
        return map(_checked, content)

    def _begin(self) -> None:
        self._begun = True
        self._sent_bytes = 0

    def _report(self, piece: bytes) -> None:
        self._sent_bytes += len(piece)
        if self._on_progress is not None:
            self._on_progress(self._sent_bytes, self.size_bytes)


@contextmanager
def opened(source: AsyncSource, on_progress: Progress | None = None) -> Iterator[Upload]:
    """Open a source and close it at the end of the block, if it is a path.

    Raises:
        LocalError: the file cannot be read, or the source has an unsupported type.
    """
    if isinstance(source, (str, os.PathLike)):
        with _open(Path(source)) as file:
            yield Upload(file, on_progress)
    elif isinstance(source, Iterable | AsyncIterable | Readable):
        yield Upload(source, on_progress)  # type: ignore[arg-type]  # mypy keeps `str` here
    else:
        raise LocalError(
            f"A {type(source).__name__} cannot be sent; give a path, bytes, a binary file or an iterator."
        )


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except (OSError, ValueError) as exc:
        raise LocalError(f"{path}: {getattr(exc, 'strerror', None) or exc}") from exc


def _position_and_rest(file: Readable) -> tuple[int | None, int | None]:
    """Return the position of a seekable file and the number of bytes after it; None for unknown values."""
    try:
        position: int = file.tell()  # type: ignore[attr-defined]
        end: int = file.seek(0, os.SEEK_END)  # type: ignore[attr-defined]
        file.seek(position)  # type: ignore[attr-defined]
    except (AttributeError, OSError):
        return None, None
    return position, end - position


def _read(file: Readable) -> bytes:
    try:
        return _checked(file.read(PIECE_BYTES))
    except OSError as exc:
        raise LocalError(f"The file cannot be read: {exc.strerror}") from exc


def _checked(piece: object) -> bytes:
    if not isinstance(piece, bytes | bytearray | memoryview):
        raise LocalError(f"The source contains {type(piece).__name__}; open files in binary mode.")
    return bytes(piece)
