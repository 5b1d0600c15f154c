"""What runs inside a decode worker process.

It gets a clip, and memory to put the frames into, as file descriptors; it has no business with any path.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import signal
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from service.clip.spec import ClipSpec
from service.clip.video import DecodeLimits, VideoInfo
from service.errors import RequestError, Undecodable

MAX_OPEN_FILES = 64
BYTES_PER_MB = 1_000_000

# <linux/prctl.h>
PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38


class Inbox:
    """The worker's end of the socket that file descriptors come by; goes to the one process made for it.

    Once the service has closed its copy no other process can be given it: trying to is an `OSError`, where
    multiprocessing would send a descriptor that is none and bring down its server of forks.
    """

    def __init__(self, end: socket.socket) -> None:
        self.socket = end

    def __reduce__(self) -> tuple[type[Inbox], tuple[socket.socket]]:
        if self.socket.fileno() < 0:
            raise OSError("the worker that had this socket has died")
        return Inbox, (self.socket,)


_inbox: Inbox | None = None


@dataclass(frozen=True)
class DecodeRequest:
    """What to take from a clip; `clips` * `crops` views. `cpu_s` is the processor time that it may take."""

    spec: ClipSpec
    clips: int
    crops: int
    limits: DecodeLimits
    threads: int
    cpu_s: float

    @property
    def views(self) -> int:
        """Views of the clip."""
        return self.clips * self.crops


@dataclass(frozen=True)
class Found:
    """What a worker answers; the frames themselves are in the shared memory. See `DecodedClip`."""

    video: VideoInfo
    indices: tuple[tuple[int, ...], ...]
    timestamps_s: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Place:
    """Where one input's frames, uint8 of `shape`, lie in the shared memory: from byte `offset` on."""

    name: str
    offset: int
    shape: tuple[int, ...]

    @property
    def stop(self) -> int:
        """The byte behind the last."""
        return self.offset + prod(self.shape)

    def array(self, memory: mmap.mmap) -> NDArray[np.uint8]:
        """The frames, without copying; read-only where the memory is."""
        return np.frombuffer(memory, np.uint8, prod(self.shape), self.offset).reshape(self.shape)


def places(spec: ClipSpec, views: int) -> tuple[Place, ...]:
    """The inputs one behind the other; both sides reckon it for themselves."""
    return tuple(_places(spec, views))


def _places(spec: ClipSpec, views: int) -> Iterator[Place]:
    offset = 0
    for item in spec.inputs:
        place = Place(item.name, offset, (views, *item.shape(spec.frames)))
        yield place
        offset = place.stop


def enter_cage(inbox: Inbox, memory_mb: int) -> None:
    """Give up what decoding does not need; the first thing that a worker does.

    Args:
        inbox: Where file descriptors come in.
        memory_mb: Address space that may be taken beyond what is in use now.
    """
    global _inbox
    _inbox = inbox
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # The pool ends a worker by SIGTERM; a Python handler would wait until the decoder returns.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.clear()
    _enter_empty_folder()
    limit = _address_space() + memory_mb * BYTES_PER_MB
    for kind, value in (
        (resource.RLIMIT_AS, limit),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, MAX_OPEN_FILES),
    ):
        resource.setrlimit(kind, (value, value))
    _silence()


def ready() -> int:
    """The worker's process id, once it is in its cage."""
    return os.getpid()


def decode(request: DecodeRequest) -> Found:
    """Decode the clip whose descriptor waits in the inbox, into the memory whose descriptor comes with it.

    Raises:
        RequestError: as `decode_clip`; `Undecodable` when the memory does not suffice.
        RuntimeError: anything else, in words: the service takes no other errors from a worker.
    """
    try:
        return _decode(request)
    except RequestError as exc:
        # pebble keeps the error until the next clip is done, and its traceback would keep the decoder's
        # memory.
        failure = exc.with_traceback(None)
        failure.__cause__ = failure.__context__ = None
    except MemoryError as exc:
        raise Undecodable("decoding this video takes more memory than is allowed") from exc
    except Exception as exc:
        raise RuntimeError(f"{type(exc).__name__}: {exc}") from exc
    raise failure


def _decode(request: DecodeRequest) -> Found:
    from service.clip.decode import (
        decode_clip,
    )  # FFmpeg: loaded in workers, whose preload it is, and only there

    assert _inbox is not None, "a worker decodes in its cage only"
    _, (clip, frames), _, _ = socket.recv_fds(_inbox.socket, 1, 2)
    _limit_cpu(request.cpu_s)
    layout = places(request.spec, request.views)
    with (
        open(clip, "rb") as file,  # noqa: PTH123 - a descriptor, not a path
        os.fdopen(frames, "r+b", buffering=0) as shared,
    ):
        memory = mmap.mmap(shared.fileno(), layout[-1].stop)  # given back with the last array in it
        decoded = decode_clip(
            file,
            request.spec,
            request.limits,
            clips=request.clips,
            crops=request.crops,
            threads=request.threads,
            out={place.name: place.array(memory) for place in layout},
        )
    return Found(decoded.video, decoded.indices, decoded.timestamps_s)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option} failed")


def _limit_cpu(cpu_s: float) -> None:
    """Die of SIGXCPU after `cpu_s` more seconds of processor time; the limit is the whole process's."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(usage.ru_utime + usage.ru_stime + cpu_s) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


def _enter_empty_folder() -> None:
    """Stand in a folder that is deleted already: it is empty, and nothing can be made in it."""
    folder = tempfile.mkdtemp()
    os.chdir(folder)
    os.rmdir(folder)  # noqa: PTH106 - Path.rmdir does the same


def _address_space() -> int:
    """Bytes of address space in use."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - nothing to gain from a Path
        return int(file.read().split()[0]) * resource.getpagesize()


def _silence() -> None:
    """Close the standard streams: what FFmpeg says of a hostile file does not belong in the service's log."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.close(null)
