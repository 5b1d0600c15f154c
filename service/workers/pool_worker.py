"""One decode worker from the service's side: a process, its channel, and a state.

    STARTING ──ready──> IDLE ──reserve──> BUSY ──release──> IDLE
        │                │                 │ └──release, no answer yet──> ABANDONED ──answer──> IDLE
        └────────────────┴────────┬────────┴────────────────────────────────┘
                                  │
                  channel closed  │  killed, or the process ended
             LOST <───────────────┴───────> ENDING ──process ended──> DEAD
              └──exit status, or a timeout────^

The caller that reserved a worker always releases it, even after an error. All of this runs on the event loop
and never blocks; messages, timers and the end of the process change the state. Only the start runs in a
thread.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from typing import Any, overload

from service.observer import RestartReason
from service.workers.fork_server import FORK_SERVER, WorkerProcess
from service.workers.messages import (
    MAX_MESSAGE_BYTES,
    DecodeFailure,
    DecodeRequest,
    LimitExceeded,
    Mechanism,
    ProtocolError,
    Ready,
    Refusal,
    SlotFree,
    StillDecoding,
    TimelineDecoded,
    TimelineRequest,
    VideoDecoded,
    WindowDecoded,
    WorkerMessage,
    encode,
    read_worker_message,
)

OnPart = Callable[[WindowDecoded | StillDecoding], None]
"""Handles the messages before a timeline's answer; raises `ProtocolError` for one that is not allowed."""

START_TIMEOUT_S = 30.0
# How long an abandoned worker may still decode before it is killed. Most videos take less, so if many callers
# disconnect, most of their workers survive.
ABANDONED_TIMEOUT_S = 0.2
# The exit status comes through the fork server, a moment after the channel closes.
EXIT_STATUS_TIMEOUT_S = 0.5

logger = logging.getLogger(__name__)


class WorkerState(StrEnum):
    """The states of a worker."""

    STARTING = "starting"  # not yet in its sandbox
    IDLE = "idle"
    BUSY = "busy"  # reserved by a caller
    ABANDONED = "abandoned"  # decodes for a caller that has released it
    LOST = "lost"  # takes no requests; the reason is not known yet
    ENDING = "ending"  # killed, or found dead
    DEAD = "dead"


BUSY = frozenset({WorkerState.BUSY, WorkerState.ABANDONED})
READY = BUSY | {WorkerState.IDLE}


class WorkerDied(Exception):
    """The worker ended while it started or decoded."""

    def __init__(self, reason: RestartReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class WorkerLost(Exception):
    """The worker was dead when the request was sent, so another worker can take the request."""


class PoolWorker:
    """A worker process.

    Attributes:
        pid: Its process id.
        state: Its state. `on_change` is called after each change.
        sandbox: The active mechanisms of its sandbox; None before it is ready.
        reason: Why it ended; None before it is ENDING.
        served: Number of requests that it received.
    """

    def __init__(
        self, process: WorkerProcess, channel: socket.socket, on_change: Callable[[PoolWorker], None]
    ) -> None:
        self.pid = process.pid
        self.state = WorkerState.STARTING
        self.sandbox: tuple[Mechanism, ...] | None = None
        self.reason: RestartReason | None = None
        self.served = 0
        self._process = process
        self._channel = channel
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._ended = asyncio.Event()
        self._request: DecodeRequest | TimelineRequest | None = None
        self._answer: asyncio.Future[Any] | None = None
        self._on_part: OnPart | None = None
        self._loop.add_reader(channel, self._read_message)
        self._loop.add_reader(process.status, self._on_process_end)
        self._timer = self._loop.call_later(START_TIMEOUT_S, self.kill, RestartReason.TIMEOUT)

    @classmethod
    async def start(
        cls, memory_mb: int, on_change: Callable[[PoolWorker], None], niceness: int = 0
    ) -> PoolWorker:
        """Start a process.

        Raises:
            OSError: there are no processes, descriptors or memory left.
        """
        process, channel = await asyncio.to_thread(FORK_SERVER.start_worker, memory_mb, niceness)
        return cls(process, channel, on_change)

    async def ready(self) -> None:
        """Wait until the worker has entered its sandbox.

        Raises:
            WorkerDied: it ended before that.
        """
        await asyncio.shield(self._ready)

    async def ended(self) -> None:
        """Wait until the process has ended."""
        await self._ended.wait()

    def reserve(self) -> None:
        """Reserve an idle worker."""
        assert self.state is WorkerState.IDLE
        self._enter(WorkerState.BUSY)

    def release(self) -> None:
        """End the reservation. A worker that still decodes is killed unless it finishes soon."""
        if self.state is not WorkerState.BUSY:
            return  # it is ending
        if self._answer is None:
            self._enter(WorkerState.IDLE)
        else:
            self._set_timer(ABANDONED_TIMEOUT_S, RestartReason.CANCELLED)
            self._enter(WorkerState.ABANDONED)

    @overload
    def submit(
        self, request: DecodeRequest, descriptors: tuple[int, int], timeout_s: float
    ) -> asyncio.Future[VideoDecoded]: ...
    @overload
    def submit(
        self, request: TimelineRequest, descriptors: tuple[int, int], timeout_s: float, on_part: OnPart
    ) -> asyncio.Future[TimelineDecoded]: ...
    def submit(
        self,
        request: DecodeRequest | TimelineRequest,
        descriptors: tuple[int, int],
        timeout_s: float,
        on_part: OnPart | None = None,
    ) -> asyncio.Future[Any]:
        """Send a request to a reserved worker, with the descriptors of the video and of the shared memory.

        The future fails with the `RequestError` of decoding, or with `WorkerDied`. A worker that does not
        answer within `timeout_s` is killed. For a timeline, `on_part` has to set each further timeout with
        `expect_message`.

        Raises:
            WorkerLost: the worker is dead.
        """
        if self.state is not WorkerState.BUSY:
            raise WorkerLost
        try:
            socket.send_fds(self._channel, [encode(request)], descriptors)
        except OSError as exc:
            self._lose()
            raise WorkerLost from exc
        self.served += 1
        self._request, self._on_part = request, on_part
        self._answer = self._loop.create_future()
        self._set_timer(timeout_s, RestartReason.TIMEOUT)
        return self._answer

    def expect_message(self, timeout_s: float | None) -> None:
        """Kill the worker if it sends no message within `timeout_s`; None while it waits for a free slot."""
        if self._request is not None and self.state is WorkerState.BUSY:
            if timeout_s is None:
                self._timer.cancel()
            else:
                self._set_timer(timeout_s, RestartReason.TIMEOUT)

    def free_slot(self, slot: int) -> None:
        """Let the worker reuse a slot of its timeline."""
        if self._request is not None and self.state is WorkerState.BUSY:
            with suppress(OSError):  # the worker is dead; the event loop is about to report this
                self._channel.send(encode(SlotFree(slot)))

    def terminate(self) -> None:
        """Kill a worker that is no longer needed."""
        self.kill(RestartReason.RECYCLED)

    def kill(self, reason: RestartReason) -> None:
        """Kill the process in any state."""
        if self.state not in (WorkerState.ENDING, WorkerState.DEAD):
            self._process.kill()
            self._end(reason)

    def _read_message(self) -> bool:
        """Handle the next message; return False if there is none."""
        try:
            packet = self._channel.recv(MAX_MESSAGE_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            packet = b""
        if not packet:
            self._loop.remove_reader(self._channel)
            self._lose()
            return False
        try:
            self._handle(read_worker_message(packet))
        except ProtocolError as exc:
            logger.error("decode worker %d violates the protocol: %s", self.pid, exc)
            self.kill(RestartReason.ERROR)
        return True

    def _handle(self, message: WorkerMessage) -> None:
        if self.state in (WorkerState.ENDING, WorkerState.DEAD):
            return
        match message:
            case Ready() if self.state is WorkerState.STARTING:
                self._timer.cancel()
                self.sandbox = message.sandbox
                self._ready.set_result(None)
                self._enter(WorkerState.IDLE)
            case WindowDecoded() | StillDecoding() if self.state is WorkerState.BUSY and self._on_part:
                self._on_part(message)
            case Refusal() | LimitExceeded() if self._request:
                self._settle(message.error())
            case DecodeFailure() if self._request:
                logger.error("decode worker %d failed: %s", self.pid, message.error)
                self.kill(RestartReason.ERROR)
            case _ if self._request and self._request.answered_by(message):
                self._settle(message)
            case _:
                raise ProtocolError(f"{type(message).__name__} while {self.state.value}")

    def _settle(self, result: WorkerMessage | Exception) -> None:
        """Pass the result of a request to its caller."""
        answer, self._answer, self._request, self._on_part = self._answer, None, None, None
        self._timer.cancel()
        if answer is not None and not answer.done():
            if isinstance(result, Exception):
                answer.set_exception(result)
                answer.exception()  # avoids a warning if the caller no longer waits
            else:
                answer.set_result(result)
        if self.state is WorkerState.ABANDONED:
            self._enter(WorkerState.IDLE)

    def _lose(self) -> None:
        """Handle a closed channel: wait a moment for the exit status, which says why the worker ended."""
        if self.state is WorkerState.STARTING or self.state in READY:
            self._set_timer(EXIT_STATUS_TIMEOUT_S, RestartReason.CRASHED)
            self._enter(WorkerState.LOST)

    def _on_process_end(self) -> None:
        while self._read_message():
            pass  # messages that it sent before its end still count
        self._loop.remove_reader(self._channel)
        self._loop.remove_reader(self._process.status)
        self._channel.close()
        status = self._process.exit_status()
        if self.state is not WorkerState.ENDING:
            match -status:
                case signal.SIGKILL:
                    self._end(RestartReason.KILLED)
                case signal.SIGXCPU:
                    self._end(RestartReason.CPU_LIMIT)
                case _:
                    self._end(RestartReason.CRASHED)
        self._enter(WorkerState.DEAD)
        self._ended.set()

    def _end(self, reason: RestartReason) -> None:
        self.reason = reason
        self._enter(WorkerState.ENDING)
        self._settle(WorkerDied(reason))
        if not self._ready.done():
            self._ready.set_exception(WorkerDied(reason))
            self._ready.exception()  # avoids a warning if no caller waits

    def _set_timer(self, delay_s: float, reason: RestartReason) -> None:
        self._timer.cancel()
        self._timer = self._loop.call_later(delay_s, self.kill, reason)

    def _enter(self, state: WorkerState) -> None:
        logger.debug("decode worker %d is %s", self.pid, state.value)
        self.state = state
        self._on_change(self)
