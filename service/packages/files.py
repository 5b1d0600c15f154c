"""Atomic file writes, and the errors of damaged files."""

from __future__ import annotations

import os
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

# What `np.load` raises for an .npz file that is damaged or made to harm, and for an array that is missing.
DAMAGED_ARRAYS: tuple[type[Exception], ...] = (
    KeyError,
    ValueError,
    TypeError,
    EOFError,
    OverflowError,  # a length that no number of the platform holds
    MemoryError,  # a length that no memory holds
    RuntimeError,  # encrypted; its subclass NotImplementedError: features of zip that Python cannot read
    zipfile.BadZipFile,
    zlib.error,
)


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Replace a file with the content that the block writes, once the block has ended without an error.

    The content goes to a hidden file next to `path`, which is synced to disk and renamed: a reader sees the
    old file or the new one, even after a crash. On an error, including a full disk, the old file stays.

    Raises:
        OSError: the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)  # it is still there after an error
