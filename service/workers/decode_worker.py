"""What runs inside a decode worker process.

It gets a clip, and memory to put the frames into, as file descriptors; it has no business with any path.
"""

from __future__ import annotations

import mmap
import os
import pickle
import socket
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from service.clip.spec import ClipSpec
from service.clip.video import DecodeLimits, VideoInfo
from service.clip.windows import WindowRule
from service.errors import RequestError, Undecodable

if TYPE_CHECKING:
    from service.clip.timeline import TakenWindow

# Both ways; what a worker finds of the longest clip that the service takes is a tenth of it.
LARGEST_MESSAGE = 160_000
LONGEST_TEXT = 1000
# Between two messages of a worker that decodes a timeline, where no window is complete.
SIGN_OF_LIFE_S = 0.5


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
class TimelineRequest:
    """Windows of a long video, from number `first` on.

    The memory that comes with it has `slots` places for a window, one behind the other, which are taken in
    turn. Each is told with a `WindowFound` when it is filled, and is filled anew when the service has said
    that it is done with it, by its number in a byte. `cpu_s` is the processor time of all of it.
    """

    spec: ClipSpec
    rule: WindowRule
    limits: DecodeLimits
    first: int
    slots: int
    cpu_s: float


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
class WindowFound:
    """A window is in slot `slot` of the shared memory; it is one of `windows`. See `TakenWindow`."""

    slot: int
    number: int
    windows: int
    start_us: int
    end_us: int
    indices: tuple[int, ...]
    timestamps_s: tuple[float, ...]


@dataclass(frozen=True)
class StillDecoding:
    """No window is complete yet, and frames are coming."""


@dataclass(frozen=True)
class TimelineFound:
    """All windows have been told, so many."""

    video: VideoInfo
    windows: int


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


def places(spec: ClipSpec, views: int, offset: int = 0) -> tuple[Place, ...]:
    """The inputs one behind the other, from `offset` on; both sides reckon it for themselves."""
    return tuple(_places(spec, views, offset))


def window_places(spec: ClipSpec, slots: int) -> tuple[tuple[Place, ...], ...]:
    """The places of one window for each slot."""
    size = places(spec, 1)[-1].stop
    return tuple(places(spec, 1, slot * size) for slot in range(slots))


def _places(spec: ClipSpec, views: int, offset: int) -> Iterator[Place]:
    for item in spec.inputs:
        place = Place(item.name, offset, (views, *item.shape(spec.frames)))
        yield place
        offset = place.stop


def main(channel: socket.socket, memory_mb: int) -> None:
    """Decode what comes in on `channel` until the service closes it: the whole life of a worker.

    A request comes with two descriptors, of the clip and of the memory for its frames, and is answered with
    what was found or with the error; a timeline's with a message for each window before. The first message of
    all is a `Ready`.
    """
    from service.workers import sandbox

    inside = sandbox.enter(channel.fileno(), memory_mb)
    channel.send(pickle.dumps(Ready(inside.seccomp, inside.landlock)))
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, LARGEST_MESSAGE, 2)
        if not message:
            os._exit(0)
        if not descriptors:
            continue  # the slot of a window of a timeline that is over
        clip, frames = descriptors
        channel.send(pickle.dumps(_answer(message, clip, frames, channel)))


def _answer(
    message: bytes, clip: int, frames: int, channel: socket.socket
) -> Found | TimelineFound | RequestError | RuntimeError:
    """Decode a clip, or say why not; errors that are not the clip's become a RuntimeError, in words."""
    from service.workers import sandbox

    with (
        open(clip, "rb") as file,
        os.fdopen(frames, "r+b", buffering=0) as shared,
    ):
        try:
            request: DecodeRequest | TimelineRequest = pickle.loads(message)  # noqa: S301 - from the service
            sandbox.limit_cpu(request.cpu_s)
            if isinstance(request, TimelineRequest):
                return _decode_windows(request, file, shared.fileno(), channel)
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


def _decode_windows(
    request: TimelineRequest, file: BinaryIO, frames: int, channel: socket.socket
) -> TimelineFound:
    from service.clip.timeline import decode_timeline

    sink = _Slots(request, frames, channel)
    found = decode_timeline(file, request.spec, request.rule, sink, request.limits, first=request.first)
    return TimelineFound(found.video, found.windows)


class _Slots:
    """Where windows go: into slots of the shared memory, as they are free."""

    def __init__(self, request: TimelineRequest, frames: int, channel: socket.socket) -> None:
        layout = window_places(request.spec, request.slots)
        memory = mmap.mmap(frames, layout[-1][-1].stop)
        self._arrays = [{place.name: place.array(memory) for place in window} for window in layout]
        self._free = deque(range(request.slots))
        self._channel = channel
        self._told_s = time.monotonic()

    def arrays(self) -> Mapping[str, NDArray[np.uint8]]:
        """Those of the next slot, as soon as it is free."""
        while not self._free:
            done = self._channel.recvmsg(1)[0]
            if not done:
                os._exit(0)
            self._free.append(done[0])
        return self._arrays[self._free[0]]

    def hand_out(self, taken: TakenWindow) -> None:
        """Tell of the window in that slot."""
        window = taken.window
        self._tell(
            WindowFound(
                slot=self._free.popleft(),
                number=window.number,
                windows=taken.windows,
                start_us=window.start_us,
                end_us=window.end_us,
                indices=taken.indices,
                timestamps_s=taken.timestamps_s,
            )
        )

    def alive(self) -> None:
        """Tell it now and then."""
        if time.monotonic() - self._told_s > SIGN_OF_LIFE_S:
            self._tell(StillDecoding())

    def _tell(self, message: WindowFound | StillDecoding) -> None:
        self._channel.send(pickle.dumps(message))
        self._told_s = time.monotonic()
