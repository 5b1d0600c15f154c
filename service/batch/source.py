"""The videos of a batch: from a folder, a listing, or any address that fsspec can open."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import fsspec

from service.clip.decoding.formats import VIDEO_SUFFIXES
from service.errors import BlvnetError

LISTING_SUFFIXES = frozenset({".txt", ".lst"})
PIECE_BYTES = 1_000_000


class SourceError(BlvnetError):
    """The source of a batch cannot be read, or contains no video."""


def list_videos(source: str) -> list[str]:
    """Return the addresses of the videos of a source, each once, in order.

    Args:
        source: a folder, from which all files with a video suffix are taken, at any depth; a pattern; a
            listing with an address on each line (.txt), relative to its folder; or one video. Each may be a
            path or an address of fsspec, such as `s3://bucket/folder`.

    Raises:
        SourceError: the source cannot be read, or contains no video.
    """
    try:
        videos = _expanded(source)
    except Exception as exc:  # libraries behind fsspec raise their own errors
        raise SourceError(f"{source}: {' '.join(str(exc).split()) or type(exc).__name__}") from exc
    if not videos:
        raise SourceError(f"{source}: there is no video")
    return list(dict.fromkeys(videos))


def _expanded(source: str) -> list[str]:
    system, root = fsspec.core.url_to_fs(source)
    if PurePosixPath(root).suffix.lower() in LISTING_SUFFIXES and system.isfile(root):
        base = _shown(system, root).rpartition("/")[0]
        lines = system.read_text(root).splitlines()
        return [
            line if "://" in line or line.startswith("/") else f"{base}/{line}"
            for line in map(str.strip, lines)
            if line
        ]
    if system.isdir(root):
        names = sorted(system.find(root))
        return [
            _shown(system, name) for name in names if PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES
        ]
    if any(character in root for character in "*?["):
        return [_shown(system, name) for name in sorted(system.glob(root)) if system.isfile(name)]
    return [_shown(system, root)] if system.exists(root) else []


def _shown(system: Any, name: str) -> str:
    """Return the address of a file; a plain path for local files."""
    address: str = name if _is_local(system) else system.unstrip_protocol(name)
    return address


def _is_local(system: Any) -> bool:
    protocols = (system.protocol,) if isinstance(system.protocol, str) else system.protocol
    return "file" in protocols


@contextmanager
def fetched(address: str) -> Iterator[Path | BinaryIO]:
    """Yield a video as a local file: the file itself, or an unnamed copy, which disappears with the process.

    Raises:
        OSError: the video cannot be read.
    """
    system, name = fsspec.core.url_to_fs(address)
    if _is_local(system):
        yield Path(name)
        return
    with tempfile.TemporaryFile() as copy:
        with system.open(name, "rb", cache_type="readahead") as remote:
            shutil.copyfileobj(remote, copy, PIECE_BYTES)
        copy.flush()
        yield copy
