"""Worker processes simulated by a test, on an event loop whose time the test sets."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from service.clip.video import Effort, VideoInfo, VideoSample
from service.workers.fork_server import NUMBER, WorkerProcess
from service.workers.messages import (
    MAX_MESSAGE_BYTES,
    DecodeRequest,
    Message,
    Ready,
    VideoDecoded,
    encode,
    read_service_message,
)
from service.workers.pool_worker import PoolWorker


class SteppedLoop(asyncio.SelectorEventLoop):
    """An event loop that runs one iteration at a time, with its own clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def time(self) -> float:
        return self.now_s

    def step(self) -> None:
        """Run what is ready, once."""
        self.call_soon(self.stop)
        self.run_forever()

    def settle(self) -> None:
        """Run until nothing more happens without time or input."""
        for _ in range(30):
            self.step()


class FakeWorker:
    """The far side of a worker's channel and status pipe."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        ours, self._channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._channel.setblocking(False)
        status, self._status = os.pipe()
        self.process = FakeProcess(pid, status, self)
        self.service_channel = ours
        self.alive = True
        self.ready = False

    def take_request(self) -> DecodeRequest | None:
        """The next request, or None."""
        if not self.alive:
            return None
        try:
            packet, descriptors, _, _ = socket.recv_fds(self._channel, MAX_MESSAGE_BYTES, 2)
        except BlockingIOError:
            return None
        for descriptor in descriptors:
            os.close(descriptor)
        if not packet:
            return None
        request = read_service_message(packet)
        assert isinstance(request, DecodeRequest)
        return request

    def send(self, packet: bytes) -> None:
        if self.alive:
            try:
                self._channel.send(packet)
            except BrokenPipeError:  # the service has closed its end
                return

    def become_ready(self) -> None:
        self.ready = True
        self.send(encode(Ready(("seccomp", "landlock"))))

    def hang_up(self) -> None:
        """Close the channel, but stay alive."""
        self._channel.close()
        self._channel, unused = socket.socketpair()
        unused.close()

    def die(self, status: int) -> None:
        """End with an exit status, negative for a signal."""
        if self.alive:
            self.alive = False
            self._channel.close()
            os.write(self._status, NUMBER.pack(status))
            os.close(self._status)


@dataclass(frozen=True)
class FakeProcess(WorkerProcess):
    worker: FakeWorker

    def kill(self) -> None:
        self.worker.die(-signal.SIGKILL)


class FakeWorkers:
    """Replaces `PoolWorker.start`: each start waits until the test lets it succeed or fail."""

    def __init__(self) -> None:
        self.pending: list[asyncio.Future[None]] = []
        self.started: list[FakeWorker] = []
        self._pids = count(1000)

    async def start(
        self, memory_mb: int, on_change: Callable[[PoolWorker], None], niceness: int = 0
    ) -> PoolWorker:
        allowed = asyncio.get_running_loop().create_future()
        self.pending.append(allowed)
        await allowed
        worker = FakeWorker(next(self._pids))
        self.started.append(worker)
        return PoolWorker(worker.process, worker.service_channel, on_change)

    @property
    def alive(self) -> list[FakeWorker]:
        return [worker for worker in self.started if worker.alive]

    def allow_start(self) -> None:
        if self.pending:
            self.pending.pop(0).set_result(None)

    def fail_start(self, error: Exception) -> None:
        if self.pending:
            self.pending.pop(0).set_exception(error)


def answer_to(request: DecodeRequest) -> Message:
    """An answer that names the request: its `frames` are the request's limit of frames."""
    frames = request.limits.max_frames
    return VideoDecoded(
        VideoSample(
            video=VideoInfo("mp4", "h264", 96, 64, 0, frames, 25.0, 1.0),
            indices=((0,) * request.spec.frames,) * request.clips,
            timestamps_s=((0.0,) * request.spec.frames,) * request.clips,
            effort=Effort(1, 1),
        )
    )
