"""What goes to a decode worker as file descriptors: a clip, and memory for its frames."""

from __future__ import annotations

import fcntl
import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from service.errors import BadRequest

Clip = Path | bytes | BinaryIO
"""A clip's file, by path or open (it needs a descriptor), or its bytes."""

FIXED_SIZE = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


@contextmanager
def opened_clip(clip: Clip) -> Iterator[int]:
    """A descriptor of the clip with a position of its own, for reading only.

    Raises:
        BadRequest: a path that cannot be opened, or something that is no file.
    """
    descriptor = _memory_file(clip) if isinstance(clip, bytes) else _reopened(clip)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise BadRequest("The clip is not a file.")
        yield descriptor
    finally:
        os.close(descriptor)


def _memory_file(content: bytes) -> int:
    descriptor = os.memfd_create("clip", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, FIXED_SIZE | fcntl.F_SEAL_WRITE)
    return descriptor


def _reopened(clip: Path | BinaryIO) -> int:
    path = clip if isinstance(clip, Path) else Path(f"/proc/self/fd/{clip.fileno()}")
    try:
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # or a named pipe would hold us up
    except OSError as exc:
        raise BadRequest(f"The clip cannot be opened: {exc.strerror}.") from exc


@contextmanager
def shared_memory(size: int) -> Iterator[tuple[int, mmap.mmap]]:
    """Memory of `size` bytes: a descriptor to send, and our read-only view of it, which outlives it.

    Its size is sealed: a worker that shrank it could make us touch memory that is gone, and die of it.
    """
    descriptor = os.memfd_create("frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, FIXED_SIZE)
        yield descriptor, mmap.mmap(descriptor, size, prot=mmap.PROT_READ)
    finally:
        os.close(descriptor)
