"""The decode worker: the code that runs in the sandboxed process.

A worker receives a video, and memory for its frames, as file descriptors. It cannot open anything itself.
"""

from __future__ import annotations

import mmap
import os
import socket
import time
from collections import deque
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from service.clip.video import VideoSample, WindowSample
from service.errors import RequestError, Undecodable
from service.workers.messages import (
    MAX_MESSAGE_BYTES,
    DecodeRequest,
    Message,
    Ready,
    SlotFree,
    StillDecoding,
    TimelineDecoded,
    TimelineRequest,
    VideoDecoded,
    WindowDecoded,
    encode,
    fail,
    read_service_message,
    refuse,
)
from service.workers.shared_memory import FrameLayout

# Maximum time without a message from a worker that decodes a timeline and has not completed a window.
HEARTBEAT_S = 0.5


def main(channel: socket.socket, memory_mb: int) -> None:
    """Enter the sandbox, then answer requests until the service closes `channel`."""
    # Imported here because it runs programs to find libraries that the service does not need.
    from service.workers import sandbox

    channel.send(encode(Ready(sandbox.enter(channel.fileno(), memory_mb))))
    while True:
        packet, descriptors, _, _ = socket.recv_fds(channel, MAX_MESSAGE_BYTES, 2)
        if not packet:
            os._exit(0)
        message = read_service_message(packet)
        if isinstance(message, SlotFree):
            continue  # a message for a timeline that has ended
        video, frames = descriptors
        with os.fdopen(video, "rb") as file, os.fdopen(frames, "r+b", buffering=0) as shared:
            answer = _answer(message, file, shared.fileno(), channel)
        channel.send(encode(answer))


def _answer(
    request: DecodeRequest | TimelineRequest, file: BinaryIO, frames: int, channel: socket.socket
) -> Message:
    """Decode a video. Errors become messages here, so that no traceback keeps the decoder's memory."""
    # These modules load FFmpeg, which the service must not load.
    from service.clip.decoding.windows import decode_windows
    from service.workers import sandbox

    try:
        sandbox.limit_cpu(request.cpu_s)
        if isinstance(request, DecodeRequest):
            return _decode_video(request, file, frames)
        slots = WindowSlots(request, frames, channel)
        return TimelineDecoded(
            decode_windows(file, request.spec, request.rule, slots, request.limits, first=request.first)
        )
    except RequestError as exc:
        return refuse(exc)
    except MemoryError:
        return refuse(Undecodable("decoding this video takes more memory than is allowed"))
    except Exception as exc:  # noqa: BLE001 - the service logs it and replaces this worker
        return fail(exc)


def _decode_video(request: DecodeRequest, file: BinaryIO, frames: int) -> VideoDecoded:
    from service.clip.decoding.clips import decode_video

    layout = FrameLayout(request.spec, request.views)
    decoded = decode_video(
        file,
        request.spec,
        request.limits,
        clips=request.clips,
        crops=request.crops,
        threads=request.threads,
        out=layout.arrays(mmap.mmap(frames, layout.size)),
    )
    return VideoDecoded(
        VideoSample(
            video=decoded.video,
            indices=decoded.indices,
            timestamps_s=decoded.timestamps_s,
            effort=decoded.effort,
        )
    )


class WindowSlots:
    """The sink of a timeline's windows: slots of the shared memory, filled in turn."""

    def __init__(self, request: TimelineRequest, frames: int, channel: socket.socket) -> None:
        layout = FrameLayout(request.spec, views=1, slots=request.slots)
        memory = mmap.mmap(frames, layout.size)
        self._arrays = [layout.arrays(memory, slot) for slot in range(request.slots)]
        self._free = deque(range(request.slots))
        self._channel = channel
        self._sent_s = time.monotonic()

    def arrays(self) -> Mapping[str, NDArray[np.uint8]]:
        """Wait for a free slot and return its arrays."""
        while not self._free:
            packet = self._channel.recvmsg(MAX_MESSAGE_BYTES)[0]  # the sandbox forbids recvfrom
            if not packet:
                os._exit(0)
            message = read_service_message(packet)
            assert isinstance(message, SlotFree)
            self._free.append(message.slot)
        return self._arrays[self._free[0]]

    def hand_out(self, sample: WindowSample) -> None:
        """Send the window in the current slot."""
        self._send(WindowDecoded(self._free.popleft(), sample))

    def progress(self) -> None:
        """Send a heartbeat if the last message is too long ago."""
        if time.monotonic() - self._sent_s > HEARTBEAT_S:
            self._send(StillDecoding())

    def _send(self, message: Message) -> None:
        self._channel.send(encode(message))
        self._sent_s = time.monotonic()
