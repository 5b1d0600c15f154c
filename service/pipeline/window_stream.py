"""The windows of a long video, decoded in a worker of its own, a few ahead of whoever takes them.

    worker ──window in slot 0, 1, ...──> here ──copies──> taken
       ^                                   │
       └────── slot is free again ─────────┘       no slot free: it waits, and so does its clock

The worker is none of those for clips, however long the video is: they wait for nobody's timeline, and the
kernel prefers them. It begins where decoding begins and goes through the video once; what it decoded ahead is
bounded by the slots. One that is killed from outside is followed by another, once, which begins with the next
window.
"""

from __future__ import annotations

import asyncio
import mmap
import pickle
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from service.clip.spec import ClipSpec
from service.clip.video import DecodeLimits
from service.clip.windows import WindowRule
from service.errors import NotReady
from service.observer import RestartReason
from service.workers.decode_pool import DecodePool
from service.workers.decode_worker import (
    StillDecoding,
    TimelineFound,
    TimelineRequest,
    WindowFound,
    window_places,
)
from service.workers.pool_worker import NeverBegun, PoolWorker, WorkerDied
from service.workers.shared_files import Clip, opened_clip, shared_memory

# Windows that may be decoded and not taken: enough for one to be ready while another is inferred, and for a
# few to share a run where decoding is the faster of the two.
SLOTS = 4


@dataclass(frozen=True)
class DecodedWindow:
    """A window and its frames: `inputs` has one row of each. `decode_ms` is what it took the worker."""

    found: WindowFound
    inputs: Mapping[str, NDArray[np.uint8]]
    decode_ms: float


@dataclass
class _Attempt:
    """A worker at its work, and what it has done of it.

    `ready` are the windows that nobody has taken, each with the milliseconds that it took, and `held` the
    slots that they, and those being copied, are in. `busy_since_s` is None while no slot is free.
    """

    worker: PoolWorker
    memory: mmap.mmap
    answer: asyncio.Future[TimelineFound]
    busy_since_s: float | None
    ready: deque[tuple[WindowFound, float]] = field(default_factory=deque)
    held: set[int] = field(default_factory=set)


class WindowStream:
    """The windows of one video, in their order.

    Attributes:
        found: What the worker found of the video, when all windows are taken.
    """

    def __init__(
        self,
        pool: DecodePool,
        clip: Clip,
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
        self._places = window_places(spec, SLOTS)
        self._next = 0
        self._attempt: _Attempt | None = None
        self._changed = asyncio.Event()
        self._killed_once = False
        self.found: TimelineFound | None = None

    async def take(self) -> list[DecodedWindow]:
        """All windows that are ready, at least one, as soon as there is; none when there are no more.

        Raises:
            RequestError: as `service.clip.timeline.decode_timeline`; `OverLimit` (`decode_s`) if no frame
                came in the time limit; `Undecodable` if the worker died of the video, or a second one was
                killed; `NotReady` when the pool closes.
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
        """Stop decoding at once."""
        if self._attempt is not None:
            self._pool.dismiss(self._attempt.worker)

    async def _begin(self) -> _Attempt:
        """Let a worker begin with the window that comes next."""
        request = TimelineRequest(self._spec, self._rule, self._limits, self._next, SLOTS, self._cpu_s)
        worker = await self._pool.hire()
        try:
            with opened_clip(self._clip) as clip, shared_memory(self._places[-1][-1].stop) as (file, memory):
                answer = worker.submit_timeline(request, (clip, file), self._pool.timeout_s, self._on_part)
        except NeverBegun as exc:
            self._pool.dismiss(worker)
            raise NotReady("The decode workers are being replaced.", retry_after_s=1) from exc
        except BaseException:
            self._pool.dismiss(worker)
            raise
        answer.add_done_callback(lambda _answer: self._changed.set())
        self._attempt = _Attempt(worker, memory, answer, time.monotonic())
        return self._attempt

    def _on_part(self, part: WindowFound | StillDecoding) -> None:
        """A window is in its slot, or one is on its way."""
        attempt = self._attempt
        assert attempt is not None
        if isinstance(part, WindowFound):
            if part.number != self._next or part.slot not in range(SLOTS) or part.slot in attempt.held:
                raise pickle.PicklingError("a window out of turn")
            now = time.monotonic()
            began_s = now if attempt.busy_since_s is None else attempt.busy_since_s
            attempt.ready.append((part, (now - began_s) * 1e3))
            attempt.held.add(part.slot)
            attempt.busy_since_s = now
            self._next += 1
            self._changed.set()
        if len(attempt.held) < SLOTS:
            attempt.worker.expect(self._pool.timeout_s)
        else:
            attempt.busy_since_s = None
            attempt.worker.leave_alone()

    def _taken(self, attempt: _Attempt) -> list[DecodedWindow]:
        """Copy what is ready out of the slots, and give them back."""
        taken = []
        while attempt.ready:
            found, decode_ms = attempt.ready.popleft()
            places = self._places[found.slot]
            inputs = {place.name: place.array(attempt.memory).copy() for place in places}
            taken.append(DecodedWindow(found, inputs, decode_ms))
            attempt.held.discard(found.slot)
            attempt.worker.slot_done(found.slot)
        if attempt.busy_since_s is None:
            attempt.busy_since_s = time.monotonic()
            attempt.worker.expect(self._pool.timeout_s)
        return taken

    def _goes_on(self, attempt: _Attempt) -> bool:
        """Whether the work goes on with another worker, the attempt being over."""
        try:
            self.found = attempt.answer.result()
        except WorkerDied as exc:
            if exc.reason is not RestartReason.KILLED or self._killed_once:
                raise self._pool.verdict(exc.reason) from exc
            self._killed_once = True
            self._attempt = None
            return True
        return False


@asynccontextmanager
async def windows_of(
    pool: DecodePool, clip: Clip, spec: ClipSpec, rule: WindowRule, limits: DecodeLimits, cpu_s: float
) -> AsyncIterator[WindowStream]:
    """The windows of a video; its worker is gone afterwards. See `WindowStream`."""
    stream = WindowStream(pool, clip, spec, rule, limits, cpu_s)
    try:
        yield stream
    finally:
        stream.close()
