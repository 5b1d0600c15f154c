"""What runs inside a decode worker process.

It gets a clip, and memory to put the frames into, as file descriptors; it has no business with any path.
"""

from __future__ import annotations

import mmap
import os
import pickle
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from service.clip.spec import ClipSpec
from service.clip.video import DecodeLimits, VideoInfo
from service.errors import RequestError, Undecodable

# Both ways; what a worker finds of the longest clip that the service takes is a tenth of it.
LARGEST_MESSAGE = 160_000
LONGEST_TEXT = 1000


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
class Ready:
    """A worker's first message: it is in its cage, and these of the kernel's fences stand around it."""

    seccomp: bool
    landlock: bool


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


def main(channel: socket.socket, memory_mb: int) -> None:
    """Decode what comes in on `channel` until the service closes it: the whole life of a worker.

    A request comes with two descriptors, of the clip and of the memory for its frames, and is answered with
    what was found or with the error. The first message is a `Ready`.
    """
    from service import sandbox

    inside = sandbox.enter(channel.fileno(), memory_mb)
    channel.send(pickle.dumps(Ready(inside.seccomp, inside.landlock)))
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, LARGEST_MESSAGE, 2)
        if not message:
            os._exit(0)
        clip, frames = descriptors
        channel.send(pickle.dumps(_answer(message, clip, frames)))


def _answer(message: bytes, clip: int, frames: int) -> Found | RequestError | RuntimeError:
    """Decode a clip, or say why not; errors that are not the clip's become a RuntimeError, in words."""
    from service import sandbox

    with (
        open(clip, "rb") as file,
        os.fdopen(frames, "r+b", buffering=0) as shared,
    ):
        try:
            request: DecodeRequest = pickle.loads(message)  # noqa: S301 - from the service, which is trusted
            sandbox.limit_cpu(request.cpu_s)
            return _decode(request, file, shared.fileno())
        except RequestError as exc:
            exc.__cause__ = exc.__context__ = None  # it, and a traceback, would keep the decoder's memory
            return exc.with_traceback(None)
        except MemoryError:
            return Undecodable("decoding this video takes more memory than is allowed")
        except Exception as exc:  # noqa: BLE001 - it goes into the service's log
            return RuntimeError(f"{type(exc).__name__}: {exc}"[:LONGEST_TEXT])


def _decode(request: DecodeRequest, file: BinaryIO, frames: int) -> Found:
    # FFmpeg: loaded in workers, whose preload it is, and only there.
    from service.clip.decode import decode_clip

    layout = places(request.spec, request.views)
    memory = mmap.mmap(frames, layout[-1].stop)  # given back with the last array in it
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
