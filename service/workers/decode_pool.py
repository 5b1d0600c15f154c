"""Worker processes that decode clips, and the queue in front of them.

    decode ──> idle worker ──> clip and shared memory, as descriptors ──> frames in the memory
                   ^                                                          │
                   └──── released when all went well, else replaced <─────────┘

After anything out of the ordinary a worker is not repaired but replaced, so that no worker is ever in a
state that a fresh one could not be in. A clip whose worker was killed from outside gets another one, once:
that says nothing of the clip, unless it happens again. For what takes long, as a timeline does, a worker
beside these is hired, so that no clip waits for it. `service.workers.pool_worker` has the life of one worker;
here is what happens between them, all of it on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.clip.spec import ClipSpec
from service.clip.threads import THREADS_PER_CORE
from service.clip.video import DecodeLimits, VideoInfo
from service.errors import BlvnetError, NotReady, OverLimit, RequestError, Undecodable
from service.observer import Observer, RestartReason
from service.workers.decode_worker import DecodeRequest, Found, Ready, places
from service.workers.pool_worker import ALIVE, NeverBegun, PoolWorker, WorkerDied, WorkerState
from service.workers.shared_files import Clip, opened_clip, shared_memory

# A fork of the server costs some 10 ms, so workers can be short-lived: whatever a clip left behind in one
# (memory that FFmpeg did not give back, or worse) does not stay.
CLIPS_PER_WORKER = 200
RESPAWN_PAUSE_S = 0.5
# Nice value of a worker that is not one of the pool's: those of clips, whose callers wait, go first. To the
# kernel it is a third of one of them, so that it gets on even where cores are never free.
HIRED_NICENESS = 5
# More cores than this gained nothing on any clip, and their threads take address space.
MOST_THREADS = 4
# A worker may be found dead when a clip is handed to it; the clip is then for the next one.
HANDOVERS = 3
Started = TypeVar("Started")
logger = logging.getLogger(__name__)


class PoolState(StrEnum):
    """The life of a pool."""

    NEW = "new"
    RUNNING = "running"
    CLOSED = "closed"


@dataclass(frozen=True)
class Decoded:
    """A clip's frames and what was found. See `service.clip.decode.DecodedClip` for the fields.

    `inputs` are views of memory that is given back when the last of them goes. `queue_ms` is the time for
    which no worker was free, `decode_ms` the time that one took, hand-over included, and one that was killed.
    """

    inputs: Mapping[str, NDArray[np.uint8]]
    video: VideoInfo
    indices: tuple[tuple[int, ...], ...]
    timestamps_s: tuple[tuple[float, ...], ...]
    queue_ms: float
    decode_ms: float


class DecodePool:
    """A fixed number of decode workers, and the queue in front of them.

    Args:
        workers: processes.
        timeout_s: longest time for one clip.
        memory_mb: address space that decoding may take in a worker, in MB of 10^6 bytes.
        cores: what the machine has, to give a lone clip more than one thread.
        observer: told of every worker that is replaced.
        clock: seconds, for the times that are told; time limits are the event loop's timers.
    """

    def __init__(
        self,
        *,
        workers: int,
        timeout_s: float,
        memory_mb: int,
        cores: int,
        observer: Observer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._size = workers
        self._timeout_s = timeout_s
        self._memory_mb = memory_mb
        self._cores = cores
        self._observer = observer
        self._clock = clock
        self._all: set[PoolWorker] = set()
        self._hired: set[PoolWorker] = set()
        self._idle: list[PoolWorker] = []
        self._waiters: deque[asyncio.Future[PoolWorker]] = deque()
        self._hiring: set[asyncio.Task[Any]] = set()
        self._fences: tuple[str, ...] | None = None
        self.state = PoolState.NEW
        self.failing = False  # the last worker that should have started did not

    @property
    def workers(self) -> int:
        """Processes that are alive and ready."""
        return len(self.pids)

    @property
    def pids(self) -> frozenset[int]:
        """Process ids of the workers that are alive and ready."""
        return frozenset(worker.pid for worker in self._all if worker.state in ALIVE)

    @property
    def busy_pids(self) -> frozenset[int]:
        """Process ids of those that are decoding."""
        return self.pids - {worker.pid for worker in self._idle}

    @property
    def hired_pids(self) -> frozenset[int]:
        """Process ids of the workers that were hired beside the pool's own."""
        return frozenset(worker.pid for worker in self._hired)

    @property
    def timeout_s(self) -> float:
        """Longest time for one clip, and for a sign of life of a hired worker."""
        return self._timeout_s

    @property
    def waiting(self) -> int:
        """Clips for which no worker is free."""
        return len(self._waiters)

    @property
    def fences(self) -> tuple[str, ...]:
        """The kernel's fences around the workers: of `seccomp` and `landlock` those that it has."""
        return self._fences or ()

    async def start(self) -> None:
        """Start all workers and wait until they are ready.

        Raises:
            BlvnetError: one does not start; the log says why.
        """
        self._enter(PoolState.RUNNING)
        hiring = [self._hire(self._adopt()) for _ in range(self._size)]
        await asyncio.wait(hiring)
        for failure in filter(None, (task.exception() for task in hiring)):
            await self.close()
            raise BlvnetError(f"decode workers do not start: {failure}") from failure

    async def decode(
        self, clip: Clip, spec: ClipSpec, limits: DecodeLimits, *, clips: int = 1, crops: int = 1
    ) -> Decoded:
        """Decode one clip. Cancelling frees the worker at once, in mid-clip if need be.

        Raises:
            RequestError: as `service.clip.decode.decode_clip`; `OverLimit` (`decode_s`) past the time limit;
                `Undecodable` if the worker died of the clip, or a second one was killed in the midst of it;
                `NotReady` when the pool closes.
        """
        waited_s = lost_s = 0.0
        for handover in range(HANDOVERS):
            asked_s = self._clock()
            worker = await self._acquire(again=handover > 0)
            began_s = self._clock()
            waited_s += began_s - asked_s
            request = self._request(spec, limits, clips, crops)
            try:
                found, inputs = await self._decode_on(worker, clip, request)
            except NeverBegun:
                continue
            except WorkerDied as exc:
                took_s = self._clock() - began_s
                if exc.reason is not RestartReason.KILLED or lost_s:
                    raise self.verdict(exc.reason, took_s) from exc
                logger.warning("the clip of decode worker %d is tried once more", worker.pid)
                lost_s = took_s
                continue
            return Decoded(
                inputs=inputs,
                video=found.video,
                indices=found.indices,
                timestamps_s=found.timestamps_s,
                queue_ms=waited_s * 1e3,
                decode_ms=(lost_s + self._clock() - began_s) * 1e3,
            )
        raise NotReady("The decode workers are being replaced.", RESPAWN_PAUSE_S)

    async def hire(self) -> PoolWorker:
        """A worker beside the pool's own, reserved for work that takes long; it has to be dismissed.

        Raises:
            NotReady: the pool closes, or there is no process to be had.
        """
        if self.state is not PoolState.RUNNING:
            raise _shutting_down()
        starting = self._hire(self._start_hired())
        try:
            worker = await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(_dismiss_started)
            raise
        except (OSError, WorkerDied) as exc:
            logger.error("a decode worker does not start: %s", exc)
            raise NotReady("No decode worker starts.", RESPAWN_PAUSE_S) from exc
        if worker.state is not WorkerState.IDLE:
            raise _shutting_down()
        worker.reserve()
        return worker

    def dismiss(self, worker: PoolWorker) -> None:
        """End a hired worker, whatever it does."""
        worker.kill(RestartReason.RECYCLED)

    async def close(self) -> None:
        """Fail what waits, kill the workers, whatever they do, and wait for their end."""
        self._enter(PoolState.CLOSED)
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(_shutting_down())
        while self._all or self._hired or self._hiring:
            ending = [*self._all, *self._hired]
            for worker in ending:
                worker.kill(RestartReason.CANCELLED)
            await asyncio.gather(*(worker.gone() for worker in ending))
            if self._hiring:
                await asyncio.wait(self._hiring)

    def _request(self, spec: ClipSpec, limits: DecodeLimits, clips: int, crops: int) -> DecodeRequest:
        """Each clip may keep its share of the cores busy; how, see `service.clip.threads`."""
        threads = max(1, min(MOST_THREADS, self._cores // len(self.busy_pids)))
        # Our own clock is to be the first limit that is hit.
        cpu_s = self._timeout_s * (THREADS_PER_CORE * threads + 1)
        return DecodeRequest(spec, clips, crops, limits, threads, cpu_s)

    async def _decode_on(
        self, worker: PoolWorker, clip: Clip, request: DecodeRequest
    ) -> tuple[Found, Mapping[str, NDArray[np.uint8]]]:
        """Decode on a reserved worker; whatever happens, it is free again or replaced afterwards."""
        layout = places(request.spec, request.views)
        try:
            with opened_clip(clip) as clip_fd, shared_memory(layout[-1].stop) as (memory_fd, memory):
                answer = worker.submit(request, (clip_fd, memory_fd), self._timeout_s)
        except RequestError:
            worker.release()
            raise
        except NeverBegun:
            worker.lose()
            raise
        try:
            found = await answer
        except BaseException as exc:
            memory.close()  # the traceback would keep it for a while
            if isinstance(exc, asyncio.CancelledError):
                worker.abandon()
            raise
        return found, {place.name: place.array(memory) for place in layout}

    def verdict(self, reason: RestartReason, took_s: float | None = None) -> RequestError:
        """What the end of a worker means for its clip; `took_s` is the time limit, if not given."""
        if self.state is PoolState.CLOSED:
            return _shutting_down()
        if reason is RestartReason.TIMEOUT:
            return OverLimit("decode_s", self._timeout_s if took_s is None else took_s, self._timeout_s)
        return Undecodable("The decoder broke off on this video.")

    async def _acquire(self, *, again: bool) -> PoolWorker:
        """A reserved worker; first come, first served, and who had one that was gone comes first."""
        if self.state is not PoolState.RUNNING:
            raise _shutting_down()
        if self._idle:
            worker = self._idle.pop()
            worker.reserve()
            return worker
        waiter: asyncio.Future[PoolWorker] = asyncio.get_running_loop().create_future()
        if again:
            self._waiters.appendleft(waiter)
        else:
            self._waiters.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                waiter.result().release()  # it came in the very moment of cancelling
            elif waiter in self._waiters:
                self._waiters.remove(waiter)
            raise

    def _on_change(self, worker: PoolWorker) -> None:
        """A worker has moved on: give it a clip, or find another in its place."""
        match worker.state:
            case WorkerState.IDLE if self.state is PoolState.CLOSED:
                worker.kill(RestartReason.CANCELLED)
            case WorkerState.IDLE if worker.served >= CLIPS_PER_WORKER:
                worker.kill(RestartReason.RECYCLED)
            case WorkerState.IDLE:
                self._take_in(worker)
            case WorkerState.ENDING:
                self._let_go(worker)
            case WorkerState.DEAD:
                self._all.discard(worker)

    def _take_in(self, worker: PoolWorker) -> None:
        """Hand an idle worker to the clip that has waited longest."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                worker.reserve()
                waiter.set_result(worker)
                return
        self._idle.append(worker)

    def _let_go(self, worker: PoolWorker) -> None:
        """Start another worker for one that is ending."""
        if worker in self._idle:
            self._idle.remove(worker)
        if worker.fences is None or self.state is not PoolState.RUNNING:
            return  # it never started, which whoever hired it deals with; or none is wanted
        assert worker.reason is not None
        level = logging.DEBUG if worker.reason is RestartReason.RECYCLED else logging.WARNING
        logger.log(level, "decode worker %d is replaced: %s", worker.pid, worker.reason.value)
        self._observer.worker_restart(worker.reason)
        self._hire(self._respawn())

    async def _respawn(self) -> None:
        pause_s = 0.0  # at first: it may have been killed, as the one before it, and the next one be well
        while self.state is PoolState.RUNNING:
            try:
                await self._adopt()
            except (OSError, WorkerDied) as exc:
                self.failing = True
                logger.error("a decode worker does not start, trying again: %s", exc)
                await asyncio.sleep(pause_s)
                pause_s = RESPAWN_PAUSE_S
            else:
                return

    async def _adopt(self) -> None:
        """Start a worker and wait until it takes clips.

        Raises:
            OSError: there is no process, socket or memory for it.
            WorkerDied: it ended before it was ready.
        """
        worker = await PoolWorker.start(self._memory_mb, self._on_change)
        self._all.add(worker)
        if self.state is PoolState.CLOSED:
            worker.kill(RestartReason.CANCELLED)
        await worker.ready()
        self.failing = False
        assert worker.fences is not None
        self._tell_fences(worker.fences)

    async def _start_hired(self) -> PoolWorker:
        worker = await PoolWorker.start(self._memory_mb, self._on_hired_change, HIRED_NICENESS)
        self._hired.add(worker)
        if self.state is PoolState.CLOSED:
            worker.kill(RestartReason.CANCELLED)
        await worker.ready()
        return worker

    def _on_hired_change(self, worker: PoolWorker) -> None:
        """A hired worker is on its way out: tell of it, if that is nobody's wish."""
        if worker.state is WorkerState.DEAD:
            self._hired.discard(worker)
        if worker.state is not WorkerState.ENDING or self.state is not PoolState.RUNNING:
            return
        assert worker.reason is not None
        if worker.reason is not RestartReason.RECYCLED and worker.fences is not None:
            logger.warning("decode worker %d of a timeline ended: %s", worker.pid, worker.reason.value)
            self._observer.worker_restart(worker.reason)

    def _tell_fences(self, found: Ready) -> None:
        """Log, once, what stands around the workers."""
        fences = {"seccomp": found.seccomp, "landlock": found.landlock}
        standing = tuple(name for name, stands in fences.items() if stands)
        if standing == self._fences:
            return
        self._fences = standing
        if missing := sorted(fences.keys() - set(standing)):
            logger.warning("decode workers lack %s: this kernel has none", " and ".join(missing))
        if standing:
            logger.info("decode workers are confined by %s", " and ".join(standing))

    def _hire(self, hiring: Coroutine[Any, Any, Started]) -> asyncio.Task[Started]:
        """Start a worker beside the requests; `close` waits for it."""
        task = asyncio.get_running_loop().create_task(hiring)
        self._hiring.add(task)
        task.add_done_callback(self._has_started)
        return task

    def _has_started(self, task: asyncio.Task[Any]) -> None:
        self._hiring.discard(task)
        if not task.cancelled():
            task.exception()  # `start` reports it, if it is still there to do so

    def _enter(self, state: PoolState) -> None:
        logger.info("the decode pool is %s, %d workers", state.value, self.workers)
        self.state = state


def _dismiss_started(starting: asyncio.Task[PoolWorker]) -> None:
    """End a worker that nobody waits for any more."""
    if not starting.cancelled() and starting.exception() is None:
        starting.result().kill(RestartReason.RECYCLED)


def _shutting_down() -> NotReady:
    return NotReady("The service is shutting down.")
