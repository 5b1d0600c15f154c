"""Assembles and edits container bytes, to produce files that no muxer writes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator


def box(kind: bytes, *content: bytes, size: int | None = None) -> bytes:
    """An mp4 box; `size` overrides the declared size."""
    body = b"".join(content)
    return struct.pack(">I", len(body) + 8 if size is None else size) + kind + body


def boxes(data: bytes, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, int, bytes]]:
    """Start, end and kind of every box, with nested boxes after their parents."""
    parents = {
        b"moov",
        b"trak",
        b"mdia",
        b"minf",
        b"stbl",
        b"edts",
        b"dinf",
        b"udta",
        b"moof",
        b"traf",
        b"mvex",
    }
    stop = len(data) if stop is None else stop
    while start + 8 <= stop:
        size = int.from_bytes(data[start : start + 4])
        kind = data[start + 4 : start + 8]
        end = start + size
        if size < 8 or end > stop:
            return
        yield start, end, kind
        if kind in parents:
            yield from boxes(data, start + 8, end)
        start = end


def find(data: bytes, kind: bytes) -> int:
    """The offset of the first box of a kind."""
    return next(start for start, _, found in boxes(data) if found == kind)


def patched(data: bytes, offset: int, new: bytes) -> bytes:
    """Overwrite bytes at `offset`."""
    return data[:offset] + new + data[offset + len(new) :]


def within(data: bytes, kind: bytes, offset: int, new: bytes) -> bytes:
    """Overwrite bytes at `offset` within the first box of a kind."""
    return patched(data, find(data, kind) + offset, new)


def replaced(data: bytes, kind: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Change the first box of a kind in an mp4 and adjust the sizes of its parents.

    Chunk offsets are not adjusted, so the file's index must be at the end.
    """
    at = find(data, kind)
    outer = [(start, end) for start, end, _ in boxes(data) if start < at < end]
    end = at + int.from_bytes(data[at : at + 4])
    new = change(data[at:end])
    grown = len(new) - (end - at)
    result = bytearray(data[:at] + new + data[end:])
    for start, stop in outer:
        result[start : start + 4] = struct.pack(">I", stop - start + grown)
    return bytes(result)


def ebml(identity: str, content: bytes = b"", size: int | None = None, unknown: bool = False) -> bytes:
    """A Matroska element; `size` overrides the declared size, `unknown` leaves it undefined."""
    head = bytes.fromhex(identity)
    if unknown:
        return head + b"\x01\xff\xff\xff\xff\xff\xff\xff" + content
    return head + struct.pack(">Q", (1 << 56) | (len(content) if size is None else size)) + content


def number(value: int) -> bytes:
    """An unsigned Matroska integer."""
    return value.to_bytes(8)


def chunk(kind: bytes, content: bytes, size: int | None = None) -> bytes:
    """A RIFF chunk."""
    return (
        kind
        + struct.pack("<I", len(content) if size is None else size)
        + content
        + b"\0" * (len(content) % 2)
    )
