"""One decode worker as the service sees it: a process, a socket to it, and a state.

    STARTING ──ready──> IDLE ──clip──> BUSY ──answer──> IDLE
        │                │               │ └─caller gone─> ABANDONED ──answer──> IDLE
        └──── killed ────┴─── killed ────┴──── killed ────────┘
                                 v
                              ENDING ──its end is seen──> DEAD      (as when it dies by itself)

Everything here happens on the event loop and waits for nothing: a message, the process's end or a timer moves
the worker on, and the pool is told. Only asking for a new process happens in a thread.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from typing import Any

from service.errors import RequestError
from service.observer import RestartReason
from service.workers.decode_worker import (
    LARGEST_MESSAGE,
    DecodeRequest,
    Found,
    Ready,
    StillDecoding,
    TimelineFound,
    TimelineRequest,
    WindowFound,
)
from service.workers.fork_server import FORK_SERVER, WorkerProcess
from service.workers.worker_messages import unpickled

OnPart = Callable[[WindowFound | StillDecoding], None]
"""What becomes of a message before the last; raises `pickle.PicklingError` for one that should not be."""

START_TIMEOUT_S = 30.0
# A worker that nobody waits for any more is killed, but not when it is as good as done: most clips are, and a
# flood of callers who hang up should not cost a process each.
PATIENCE_S = 0.2
# From the end of its messages to the news of how it ended, which comes by way of the fork server.
LAST_NEWS_S = 0.5

logger = logging.getLogger(__name__)


class WorkerState(StrEnum):
    """The life of a worker."""

    STARTING = "starting"  # not yet in its cage
    IDLE = "idle"
    BUSY = "busy"  # given to a clip
    ABANDONED = "abandoned"  # decodes a clip whose caller has gone
    ENDING = "ending"  # killed, or found dead
    DEAD = "dead"


ALIVE = frozenset({WorkerState.IDLE, WorkerState.BUSY, WorkerState.ABANDONED})


class WorkerDied(Exception):
    """The worker ended, or was ended, in mid-clip."""

    def __init__(self, reason: RestartReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class NeverBegun(Exception):
    """The worker was gone before it began, so its clip is as good as new."""


class PoolWorker:
    """A worker process. `on_change` is called after each change of `state`.

    Attributes:
        state: Where in its life it is.
        fences: Which fences of the kernel stand around it, once it has started.
        reason: Why it ended, once it is ENDING or DEAD.
        served: Clips that it was given.
    """

    def __init__(
        self, process: WorkerProcess, channel: socket.socket, on_change: Callable[[PoolWorker], None]
    ) -> None:
        self._process = process
        self._channel = channel
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[Any] | None = None
        self._on_part: OnPart | None = None
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._gone = asyncio.Event()
        self._lost = False
        self.pid = process.pid
        self.state = WorkerState.STARTING
        self.fences: Ready | None = None
        self.reason: RestartReason | None = None
        self.served = 0
        self._loop.add_reader(channel, self._on_message)
        self._loop.add_reader(process.status, self._on_end)
        self._timer = self._loop.call_later(START_TIMEOUT_S, self.kill, RestartReason.TIMEOUT)

    @classmethod
    async def start(
        cls, memory_mb: int, on_change: Callable[[PoolWorker], None], niceness: int = 0
    ) -> PoolWorker:
        """Start a process; the nicer, the more it stands back behind others.

        Raises:
            OSError: no process, socket or memory is to be had.
        """
        process, channel = await asyncio.to_thread(FORK_SERVER.start_worker, memory_mb, niceness)
        return cls(process, channel, on_change)

    async def ready(self) -> None:
        """Wait until it takes clips.

        Raises:
            WorkerDied: it never does.
        """
        await asyncio.shield(self._ready)

    def reserve(self) -> None:
        """Take an IDLE worker for a clip."""
        assert self.state is WorkerState.IDLE
        self._enter(WorkerState.BUSY)

    def release(self) -> None:
        """Give a reserved worker back, its clip not begun or not sent."""
        if self.state is WorkerState.BUSY:
            self._enter(WorkerState.IDLE)

    def submit(
        self, request: DecodeRequest, descriptors: tuple[int, int], timeout_s: float
    ) -> asyncio.Future[Found]:
        """Send a clip, and a place for its frames, to a reserved worker.

        The answer is what was found, or a `RequestError`, or `WorkerDied`, after which the worker is ENDING.

        Raises:
            NeverBegun: the worker is gone.
        """
        return self._submit(request, descriptors, timeout_s)

    def submit_timeline(
        self, request: TimelineRequest, descriptors: tuple[int, int], timeout_s: float, on_part: OnPart
    ) -> asyncio.Future[TimelineFound]:
        """Send a long video; see `submit`. `on_part` is called with each message before the answer.

        The clock is the caller's: it goes on with `expect` and rests with `leave_alone`.
        """
        self._on_part = on_part
        return self._submit(request, descriptors, timeout_s)

    def expect(self, timeout_s: float) -> None:
        """Give a worker that is BUSY so long for its next message."""
        if self.state is WorkerState.BUSY and not self._lost:
            self._set_timer(timeout_s, RestartReason.TIMEOUT)

    def leave_alone(self) -> None:
        """A worker that is BUSY has nothing to do until it is told so."""
        if self.state is WorkerState.BUSY and not self._lost:
            self._timer.cancel()

    def slot_done(self, slot: int) -> None:
        """Tell a worker that is BUSY with a timeline that it may fill a slot anew."""
        if self.state is WorkerState.BUSY:
            with suppress(OSError):  # it is dead, which is about to be seen
                self._channel.send(bytes([slot]))

    def _submit(
        self, request: DecodeRequest | TimelineRequest, descriptors: tuple[int, int], timeout_s: float
    ) -> asyncio.Future[Any]:
        try:
            if self.state is not WorkerState.BUSY:
                raise NeverBegun
            socket.send_fds(self._channel, [pickle.dumps(request)], descriptors)
        except OSError as exc:
            raise NeverBegun from exc
        self.served += 1
        self._answer = self._loop.create_future()
        self._set_timer(timeout_s, RestartReason.TIMEOUT)
        return self._answer

    def abandon(self) -> None:
        """Nobody waits for the clip any more."""
        if self.state is WorkerState.BUSY and self._answer is not None:
            self._set_timer(PATIENCE_S, RestartReason.CANCELLED)
            self._enter(WorkerState.ABANDONED)

    def lose(self) -> None:
        """It takes no clip: it is dead, and its status is about to say how; or it is broken, and will be."""
        self._lost = True
        if self.state in ALIVE or self.state is WorkerState.STARTING:
            self._set_timer(LAST_NEWS_S, RestartReason.CRASHED)

    def kill(self, reason: RestartReason) -> None:
        """End the process now, whatever it does."""
        if self.state in (WorkerState.ENDING, WorkerState.DEAD):
            return
        self._process.kill()
        self._end(reason)

    async def gone(self) -> None:
        """Wait until it is DEAD."""
        await self._gone.wait()

    def _on_message(self) -> None:
        try:
            message = self._channel.recv(LARGEST_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if not message:
            self._loop.remove_reader(self._channel)
            self.lose()
            return
        try:
            self._take(unpickled(message))
        except pickle.PicklingError as exc:
            logger.error("decode worker %d does not keep to what was agreed: %s", self.pid, exc)
            self.kill(RestartReason.ERROR)

    def _take(self, answer: object) -> None:
        match self.state, answer:
            case WorkerState.STARTING, Ready():
                self._timer.cancel()
                self.fences = answer
                self._ready.set_result(None)
                self._enter(WorkerState.IDLE)
            case WorkerState.BUSY, (WindowFound() | StillDecoding()) if self._on_part:
                self._on_part(answer)
            case (
                (WorkerState.BUSY | WorkerState.ABANDONED),
                (Found() | TimelineFound() | RequestError()),
            ) if self._answer and isinstance(answer, self._awaited):
                self._timer.cancel()
                self._settle(answer)
                self._enter(WorkerState.IDLE)
            case ((WorkerState.BUSY | WorkerState.ABANDONED), RuntimeError()) if self._answer:
                logger.error("a decode worker raised what it should not: %s", answer)
                self.kill(RestartReason.ERROR)
            case ((WorkerState.ENDING | WorkerState.DEAD), _):
                pass  # too late
            case _:
                raise pickle.PicklingError(f"{type(answer).__name__} while {self.state.value}")

    @property
    def _awaited(self) -> tuple[type, ...]:
        """What may come as an answer to what was submitted."""
        return (Found if self._on_part is None else TimelineFound), RequestError

    def _settle(self, answer: Found | TimelineFound | Exception) -> None:
        future, self._answer, self._on_part = self._answer, None, None
        if future is None or future.done():
            return
        if isinstance(answer, Exception):
            future.set_exception(answer)
            future.exception()  # whoever asked may have gone
        else:
            future.set_result(answer)

    def _on_end(self) -> None:
        """The process has ended; what it said before still counts."""
        self._on_message()
        self._loop.remove_reader(self._channel)
        self._loop.remove_reader(self._process.status)
        self._channel.close()
        status = self._process.exit_status()
        if self.state is not WorkerState.ENDING:
            self._end(reason_of(status))
        self._enter(WorkerState.DEAD)
        self._gone.set()

    def _end(self, reason: RestartReason) -> None:
        self._timer.cancel()
        self.reason = reason
        self._settle(WorkerDied(reason))
        if not self._ready.done():
            self._ready.set_exception(WorkerDied(reason))
            self._ready.exception()  # the pool may be closing
        self._enter(WorkerState.ENDING)

    def _set_timer(self, delay_s: float, reason: RestartReason) -> None:
        self._timer.cancel()
        self._timer = self._loop.call_later(delay_s, self.kill, reason)

    def _enter(self, state: WorkerState) -> None:
        logger.debug("decode worker %d is %s", self.pid, state.value)
        self.state = state
        self._on_change(self)


def reason_of(status: int) -> RestartReason:
    """Why a worker died that nobody here had killed."""
    match -status:
        case signal.SIGKILL:
            return RestartReason.KILLED
        case signal.SIGXCPU:
            return RestartReason.TIMEOUT
        case _:
            return RestartReason.CRASHED
