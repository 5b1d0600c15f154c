"""The windows of a long video, decoded by a dedicated worker a few windows ahead of the reader.

    worker ──window in slot 0, 1, ...──> here ──copies──> taken
       ^                                   │
       └────── slot is free again ─────────┘       no slot free: the worker and its timeout wait

The worker is not one of the pool, so requests for single videos never wait for a timeline, and the kernel
schedules them first. It decodes the video once; the slots limit how far it decodes ahead. A worker that is
killed from outside is replaced once, by one that starts with the next window.
"""

from __future__ import annotations

import asyncio
import mmap
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from service.clip.spec import ClipSpec
from service.clip.video import DecodedWindows, DecodeLimits, WindowSample
from service.clip.windowing import WindowRule
from service.errors import NotReady
from service.observer import RestartReason
from service.workers.decode_pool import DecodePool, exhausted
from service.workers.messages import (
    ProtocolError,
    StillDecoding,
    TimelineDecoded,
    TimelineRequest,
    WindowDecoded,
)
from service.workers.pool_worker import PoolWorker, WorkerDied, WorkerLost
from service.workers.shared_memory import FrameLayout, VideoFile, opened_video, shared_memory

# Number of windows that are decoded ahead: one is ready while another runs, and a few can share a run if
# decoding is faster than inference.
SLOTS = 4


@dataclass(frozen=True)
class DecodedWindow:
    """A window and its frames, one row per input. `decode_ms` is the time on the worker."""

    sample: WindowSample
    inputs: Mapping[str, NDArray[np.uint8]]
    decode_ms: float


@dataclass
class _Attempt:
    """The state of one worker.

    Attributes:
        ready: Windows that have not been taken yet, with their decoding time in milliseconds.
        held: Slots of these windows and of windows that are being copied.
        busy_since_s: None while no slot is free.
    """

    worker: PoolWorker
    request: TimelineRequest
    memory: mmap.mmap
    answer: asyncio.Future[TimelineDecoded]
    busy_since_s: float | None
    ready: deque[tuple[WindowDecoded, float]] = field(default_factory=deque)
    held: set[int] = field(default_factory=set)


class WindowStream:
    """The windows of a video, in order.

    Attributes:
        result: Properties of the video, available after the last window.
    """

    def __init__(
        self,
        pool: DecodePool,
        clip: VideoFile,
        spec: ClipSpec,
        rule: WindowRule,
        limits: DecodeLimits,
        cpu_s: float,
    ) -> None:
        self._pool = pool
        self._clip = clip
        self._spec = spec
        self._rule = rule
        self._limits = limits
        self._cpu_s = cpu_s
        self._layout = FrameLayout(spec, views=1, slots=SLOTS)
        self._next = 0
        self._attempt: _Attempt | None = None
        self._changed = asyncio.Event()
        self._killed_once = False
        self.result: DecodedWindows | None = None

    async def take(self) -> list[DecodedWindow]:
        """Wait for windows and return all that are ready; an empty list means the end.

        Raises:
            RequestError: as `service.clip.decoding.windows.decode_windows`; `OverLimit` (`decode_s`) if the
                CPU time is used up; `Overloaded` if no frame came within the timeout; `Undecodable` if
                the worker crashed, or two workers were killed; `NotReady` if the pool closes.
        """
        while True:
            attempt = self._attempt or await self._begin()
            if attempt.ready:
                return self._taken(attempt)
            if attempt.answer.done():
                if not self._goes_on(attempt):
                    return []
                continue
            self._changed.clear()
            await self._changed.wait()

    def close(self) -> None:
        """Stop decoding immediately."""
        if self._attempt is not None:
            self._attempt.worker.terminate()

    async def _begin(self) -> _Attempt:
        """Start a worker at the next window."""
        request = TimelineRequest(self._spec, self._rule, self._limits, self._next, SLOTS, self._cpu_s)
        worker = await self._pool.acquire_dedicated()
        with ExitStack() as undo:
            undo.callback(worker.terminate)
            try:
                with opened_video(self._clip) as clip, shared_memory(self._layout.size) as (file, memory):
                    answer = worker.submit(request, (clip, file), self._pool.timeout_s, self._on_part)
            except WorkerLost as exc:
                raise NotReady("The decode workers are being replaced.", retry_after_s=1) from exc
            except (OSError, MemoryError) as exc:
                raise exhausted(exc) from exc
            undo.pop_all()
        answer.add_done_callback(lambda _answer: self._changed.set())
        self._attempt = _Attempt(worker, request, memory, answer, time.monotonic())
        return self._attempt

    def _on_part(self, part: WindowDecoded | StillDecoding) -> None:
        """Handle a message of the worker."""
        attempt = self._attempt
        assert attempt is not None
        if isinstance(part, WindowDecoded):
            if (
                part.sample.window.number != self._next
                or part.slot in attempt.held
                or not attempt.request.has_window(part)
            ):
                raise ProtocolError("a window out of turn")
            now = time.monotonic()
            began_s = now if attempt.busy_since_s is None else attempt.busy_since_s
            attempt.ready.append((part, (now - began_s) * 1e3))
            attempt.held.add(part.slot)
            attempt.busy_since_s = now
            self._next += 1
            self._changed.set()
        if len(attempt.held) < SLOTS:
            attempt.worker.expect_message(self._pool.timeout_s)
        else:
            attempt.busy_since_s = None
            attempt.worker.expect_message(None)

    def _taken(self, attempt: _Attempt) -> list[DecodedWindow]:
        """Copy ready windows out of their slots and free the slots."""
        taken = []
        while attempt.ready:
            found, decode_ms = attempt.ready.popleft()
            arrays = self._layout.arrays(attempt.memory, found.slot)
            inputs = {name: array.copy() for name, array in arrays.items()}
            taken.append(DecodedWindow(found.sample, inputs, decode_ms))
            attempt.held.discard(found.slot)
            attempt.worker.free_slot(found.slot)
        if attempt.busy_since_s is None:
            attempt.busy_since_s = time.monotonic()
            attempt.worker.expect_message(self._pool.timeout_s)
        return taken

    def _goes_on(self, attempt: _Attempt) -> bool:
        """Handle the end of a worker; return whether another worker continues."""
        try:
            self.result = attempt.answer.result().result
        except WorkerDied as exc:
            if exc.reason is not RestartReason.KILLED or self._killed_once:
                raise self._pool.verdict(exc.reason, self._cpu_s) from exc
            self._killed_once = True
            self._attempt = None
            return True
        return False


@asynccontextmanager
async def windows_of(
    pool: DecodePool, clip: VideoFile, spec: ClipSpec, rule: WindowRule, limits: DecodeLimits, cpu_s: float
) -> AsyncIterator[WindowStream]:
    """Stream the windows of a video; the worker ends with the block. See `WindowStream`."""
    stream = WindowStream(pool, clip, spec, rule, limits, cpu_s)
    try:
        yield stream
    finally:
        stream.close()
