"""The pool of decode workers.

    decode ──> wait for a worker ──> send video and shared memory, as descriptors ──> frames in the memory
                     ^                                                                      │
                     └──────────────────── worker is idle again ────────────────────────────┘

After any unexpected event a worker is replaced, not repaired, so a worker is only ever in states that a new
worker can be in. Three modules share the work: `pool_worker` handles one worker, `supervisor` keeps the
workers running, `worker_queue` hands them out. All three run on the event loop.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum

from service.clip.spec import ClipSpec
from service.clip.video import DecodedVideo, DecodeLimits
from service.errors import DecodersKilled, NotReady, OverLimit, Overloaded, RequestError, Undecodable
from service.observer import Observer, RestartReason
from service.workers.messages import DecodeRequest
from service.workers.pool_worker import START_TIMEOUT_S, PoolWorker, WorkerDied, WorkerLost
from service.workers.shared_memory import FrameLayout, VideoFile, opened_video, shared_memory
from service.workers.supervisor import RESTART_PAUSE_S, WorkerSupervisor
from service.workers.worker_queue import WorkerQueue

# More cores than this did not make any video faster, and their threads take address space.
MAX_CORES_PER_VIDEO = 4
# A worker that has not used up its processor time after this multiple of it lacks a processor or hangs.
WALL_TIME_FACTOR = 3.0
# A worker may be dead when it is handed out, or be killed while it decodes; another one then gets the video.
MAX_ATTEMPTS = 3
# The reason why decoders are killed, such as other videos that fill the memory, should be gone by then.
RETRY_KILLED_S = 10.0

logger = logging.getLogger(__name__)


class PoolState(StrEnum):
    """The states of a pool."""

    NEW = "new"
    RUNNING = "running"
    CLOSED = "closed"


@dataclass(frozen=True, kw_only=True)
class Decoded(DecodedVideo):
    """A decoded video, and how long it took.

    `inputs` are read-only views of shared memory, which is freed with the last view.

    Attributes:
        queue_ms: Time for which no worker was free.
        decode_ms: Time on a worker, including time on an earlier worker that was killed.
    """

    queue_ms: float
    decode_ms: float


class DecodePool:
    """A fixed number of decode workers, and the queue in front of them.

    Args:
        workers: number of processes.
        timeout_s: maximum time to decode a video on an idle machine. It is enforced as processor time on all
            cores that a single video may use, so that a busy machine does not change the result of a video.
        memory_mb: address space for decoding, per worker, in MB of 10^6 bytes.
        cores: number of cores of the machine, which the busy workers share.
        observer: is notified of each replaced worker.
        clock: time in seconds, for the measured times; timeouts use the event loop's clock.
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
        self.state = PoolState.NEW
        self.timeout_s = timeout_s
        self._cores = cores
        self._cpu_s = timeout_s * max(1, min(MAX_CORES_PER_VIDEO, cores))
        # The kernel counts processor time in whole seconds, so it ends a worker up to a second late.
        self._wall_s = WALL_TIME_FACTOR * (self._cpu_s + 1)
        self._clock = clock
        self._queue = WorkerQueue(clock)
        self._supervisor = WorkerSupervisor(workers, memory_mb, observer, self._queue)

    @property
    def workers(self) -> int:
        """Number of workers that are alive and ready, without dedicated ones."""
        return len(self._supervisor.pooled)

    @property
    def waiting(self) -> int:
        """Number of videos that wait for a worker."""
        return self._queue.waiting

    @property
    def sandbox(self) -> tuple[str, ...]:
        """The active mechanisms of the workers' sandbox: `seccomp`, `landlock`, or both."""
        return self._supervisor.sandbox or ()

    def problem(self) -> str | None:
        """Return the reason why the pool decodes nothing, or None. Neither load nor its end is a problem."""
        if self.state is PoolState.CLOSED:
            return None
        if self._supervisor.failing and not self.workers:
            return "No decode worker starts."
        if self._queue.stalled_s > self._wall_s + START_TIMEOUT_S:
            return f"No decode worker has become idle for {self._queue.stalled_s:.0f} s."
        return None

    async def start(self) -> None:
        """Start all workers and wait until they are ready.

        Raises:
            BlvnetError: a worker does not start; the log says why.
        """
        self._enter(PoolState.RUNNING)
        await self._supervisor.start()

    async def decode(
        self, video: VideoFile, spec: ClipSpec, limits: DecodeLimits, *, clips: int = 1, crops: int = 1
    ) -> Decoded:
        """Decode a video. On cancellation, the worker stops soon.

        Raises:
            RequestError: as `service.clip.decoding.clips.decode_video`; `OverLimit` (`decode_s`) when the
                processor time is used up; `Overloaded` if the machine is too busy to provide it in time, no
                descriptors or memory are left, or two workers were killed from outside; `Undecodable` if the
                worker crashed; `NotReady` if the pool closes.
        """
        queue_s = lost_s = 0.0
        for attempt in range(MAX_ATTEMPTS):
            if self.state is not PoolState.RUNNING:
                raise _shutting_down()
            asked_s = self._clock()
            async with self._queue.worker(first=attempt > 0) as worker:
                began_s = self._clock()
                queue_s += began_s - asked_s
                try:
                    decoded = await self._decode_on(worker, video, spec, limits, clips, crops)
                except WorkerLost:
                    continue
                except WorkerDied as exc:
                    # A first kill from outside, perhaps for lack of memory, says nothing about the video.
                    if exc.reason is not RestartReason.KILLED or lost_s:
                        raise self.verdict(exc.reason, self._cpu_s) from exc
                    logger.warning("the video of decode worker %d is tried once more", worker.pid)
                    lost_s = self._clock() - began_s
                    continue
                except (OSError, MemoryError) as exc:
                    raise exhausted(exc) from exc
                return Decoded(
                    **vars(decoded),
                    queue_ms=queue_s * 1e3,
                    decode_ms=(lost_s + self._clock() - began_s) * 1e3,
                )
        raise NotReady("The decode workers are being replaced.", RESTART_PAUSE_S)

    async def acquire_dedicated(self) -> PoolWorker:
        """Start an additional worker for a long task. The caller must terminate it.

        Raises:
            NotReady: the pool closes, or no process can be started.
        """
        if self.state is not PoolState.RUNNING:
            raise _shutting_down()
        return await self._supervisor.start_dedicated()

    async def close(self) -> None:
        """Refuse the waiting videos, kill the workers, even busy ones, and wait for their end."""
        self._enter(PoolState.CLOSED)
        self._queue.fail(_shutting_down())
        await self._supervisor.close()

    def verdict(self, reason: RestartReason, cpu_s: float) -> RequestError:
        """Return the error for a video whose worker ended; `cpu_s` is its allowed processor time."""
        if self.state is PoolState.CLOSED:
            return _shutting_down()
        match reason:
            case RestartReason.CPU_LIMIT:
                return OverLimit("decode_s", cpu_s, cpu_s)
            case RestartReason.TIMEOUT:
                return Overloaded("The machine is too busy to decode this video in time.", self.timeout_s)
            case RestartReason.KILLED:
                return DecodersKilled(
                    "Two decoders of this video were killed, perhaps for lack of memory.", RETRY_KILLED_S
                )
            case _:
                return Undecodable("The decoder broke off on this video.")

    async def _decode_on(
        self,
        worker: PoolWorker,
        video: VideoFile,
        spec: ClipSpec,
        limits: DecodeLimits,
        clips: int,
        crops: int,
    ) -> DecodedVideo:
        # Each busy worker may use its share of the cores. This one may just have died, so none may be busy.
        busy = max(1, self._supervisor.busy)
        threads = max(1, min(MAX_CORES_PER_VIDEO, self._cores // busy))
        request = DecodeRequest(spec, clips, crops, limits, threads, self._cpu_s)
        layout = FrameLayout(spec, request.views)
        with opened_video(video) as video_fd, shared_memory(layout.size) as (memory_fd, memory):
            answer = worker.submit(request, (video_fd, memory_fd), self._wall_s)
        with ExitStack() as undo:
            undo.callback(memory.close)  # otherwise a traceback would keep it mapped
            sample = (await answer).sample
            undo.pop_all()
        return DecodedVideo(**vars(sample), inputs=layout.arrays(memory))

    def _enter(self, state: PoolState) -> None:
        logger.info("the decode pool is %s, %d workers", state.value, self.workers)
        self.state = state


def exhausted(error: OSError | MemoryError) -> Overloaded:
    """Return the error for a video for which no descriptors or memory are left."""
    logger.error("a video cannot be passed to a decode worker: %r", error)
    return Overloaded("The service has no descriptors or memory left to decode a video.", 1.0)


def _shutting_down() -> NotReady:
    return NotReady("The service is shutting down.")
