"""The two files that a decode worker receives as descriptors: a video, and memory for its frames."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from service.clip.spec import ClipSpec
from service.errors import BadRequest

VideoFile = Path | bytes | BinaryIO
"""A video: the path of its file, the open file (which needs a descriptor), or the bytes."""

FIXED_SIZE = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
# Errors of `open` that say nothing about the path.
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class FrameLayout:
    """Layout of the input arrays in shared memory: stored consecutively, `slots` times.

    The service and the worker both compute it from the request, so no offset is ever sent.

    Attributes:
        size: Size of the shared memory in bytes.
    """

    def __init__(self, spec: ClipSpec, views: int, slots: int = 1) -> None:
        self._shapes = {item.name: (views, *item.shape(spec.frames)) for item in spec.inputs}
        self._slot_bytes = sum(map(prod, self._shapes.values()))
        self.size = slots * self._slot_bytes

    def arrays(self, memory: mmap.mmap, slot: int = 0) -> dict[str, NDArray[np.uint8]]:
        """Return the arrays of one slot, uint8 `(views, T_branch, size, size, 3)`, without copying.

        They are read-only if `memory` is; it stays mapped while any of the arrays exists.
        """
        arrays = {}
        offset = slot * self._slot_bytes
        for name, shape in self._shapes.items():
            arrays[name] = np.frombuffer(memory, np.uint8, prod(shape), offset).reshape(shape)
            offset += prod(shape)
        return arrays


@contextmanager
def opened_video(video: VideoFile) -> Iterator[int]:
    """Open a video for reading, with a separate file position, and yield the descriptor.

    Raises:
        BadRequest: the path cannot be opened or is not a regular file.
        OSError: the process or the machine has no descriptors or memory left.
    """
    if isinstance(video, bytes):
        descriptor = os.memfd_create("video", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    else:
        path = video if isinstance(video, Path) else Path(f"/proc/self/fd/{video.fileno()}")
        try:
            # Without O_NONBLOCK, opening a named pipe would wait for a writer.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as exc:
            if exc.errno in EXHAUSTED:
                raise
            raise BadRequest(f"The video cannot be opened: {exc.strerror}.") from exc
    try:
        if isinstance(video, bytes):
            with open(descriptor, "wb", closefd=False) as file:
                file.write(video)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, FIXED_SIZE | fcntl.F_SEAL_WRITE)
        elif not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise BadRequest("The video is not a regular file.")
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def shared_memory(size: int) -> Iterator[tuple[int, mmap.mmap]]:
    """Create shared memory and yield its descriptor and a read-only mapping, which outlives the block.

    The size is sealed: if a worker could shrink the file, the service would be killed by SIGBUS when reading.

    Raises:
        OSError: the process or the machine has no descriptors or memory left.
    """
    descriptor = os.memfd_create("frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, FIXED_SIZE)
        yield descriptor, mmap.mmap(descriptor, size, prot=mmap.PROT_READ)
    finally:
        os.close(descriptor)
