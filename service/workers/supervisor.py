"""Starting, replacing and ending of decode workers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, get_args

from service.background import start_background
from service.errors import BlvnetError, NotReady
from service.observer import Observer, RestartReason
from service.workers.messages import Mechanism
from service.workers.pool_worker import BUSY, READY, PoolWorker, WorkerDied, WorkerState
from service.workers.worker_queue import WorkerQueue

# A fork takes about 10 ms, so workers can be short-lived. Anything that a video left in a worker, such as
# memory that FFmpeg did not free, is gone when the worker ends.
REQUESTS_PER_WORKER = 200
RESTART_PAUSE_S = 0.5
# Nice value of dedicated workers. Callers wait for the pool's workers, so these have priority; but if no core
# is free, a dedicated worker still gets a third of the share of a pool worker.
DEDICATED_NICENESS = 5

T = TypeVar("T")
logger = logging.getLogger(__name__)


class WorkerSupervisor:
    """Keeps `size` workers running, which it offers to a queue, and starts dedicated ones on request.

    Attributes:
        closed: Whether `close` was called.
        failing: Whether the last start of a worker failed.
        sandbox: The active mechanisms of the workers' sandbox.
    """

    def __init__(self, size: int, memory_mb: int, observer: Observer, queue: WorkerQueue) -> None:
        self.closed = False
        self.failing = False
        self.sandbox: tuple[Mechanism, ...] | None = None
        self._size = size
        self._memory_mb = memory_mb
        self._observer = observer
        self._queue = queue
        self._pooled: set[PoolWorker] = set()
        self._dedicated: set[PoolWorker] = set()
        self._starting: set[asyncio.Task[Any]] = set()

    @property
    def pooled(self) -> tuple[PoolWorker, ...]:
        """The workers of the pool that are alive and ready."""
        return tuple(worker for worker in self._pooled if worker.state in READY)

    @property
    def busy(self) -> int:
        """Number of workers of the pool that decode, or are about to."""
        return sum(worker.state in BUSY for worker in self._pooled)

    @property
    def dedicated(self) -> tuple[PoolWorker, ...]:
        """The dedicated workers that have not ended."""
        return tuple(self._dedicated)

    async def start(self) -> None:
        """Start all workers and wait until they are ready.

        Raises:
            BlvnetError: a worker does not start; the log says why.
        """
        starts = [self._background(self._start(self._pooled, self._on_change)) for _ in range(self._size)]
        await asyncio.wait(starts)
        for failure in filter(None, (start.exception() for start in starts)):
            await self.close()
            raise BlvnetError(f"decode workers do not start: {failure}") from failure

    async def start_dedicated(self) -> PoolWorker:
        """Start an additional worker and reserve it. The caller must terminate it.

        Raises:
            NotReady: the pool is closed, or no process can be started.
        """
        start = self._background(self._start(self._dedicated, self._on_dedicated_change, DEDICATED_NICENESS))
        try:
            worker = await asyncio.shield(start)
        except asyncio.CancelledError:
            start.add_done_callback(_terminate_started)
            raise
        except (OSError, RuntimeError, WorkerDied) as exc:
            logger.error("a dedicated decode worker does not start: %s", exc)
            raise NotReady("No decode worker starts.", RESTART_PAUSE_S) from exc
        if worker.state is not WorkerState.IDLE:
            raise NotReady("The decode worker ended at its start.", RESTART_PAUSE_S)
        worker.reserve()
        return worker

    async def close(self) -> None:
        """Kill all workers, even busy ones, and wait for their end."""
        self.closed = True
        while self._pooled or self._dedicated or self._starting:
            workers = [*self._pooled, *self._dedicated]
            for worker in workers:
                worker.kill(RestartReason.CANCELLED)
            await asyncio.gather(*(worker.ended() for worker in workers))
            if self._starting:
                await asyncio.wait(self._starting)

    async def _start(
        self, workers: set[PoolWorker], on_change: Callable[[PoolWorker], None], niceness: int = 0
    ) -> PoolWorker:
        worker = await PoolWorker.start(self._memory_mb, on_change, niceness)
        workers.add(worker)
        if self.closed:
            worker.kill(RestartReason.CANCELLED)
        await worker.ready()
        if worker.sandbox != self.sandbox:
            self.sandbox = worker.sandbox or ()
            if missing := sorted(set(get_args(Mechanism)) - set(self.sandbox)):
                logger.warning("the kernel lacks %s for decode workers", " and ".join(missing))
            if self.sandbox:
                logger.info("decode workers are confined by %s", " and ".join(self.sandbox))
        return worker

    async def _replace(self) -> None:
        # The first retry is immediate: the event that killed the last worker may also have killed this one.
        pause_s = 0.0
        while True:
            try:
                await self._start(self._pooled, self._on_change)
            except Exception as exc:  # noqa: BLE001 - keep trying: otherwise the worker is never replaced
                if self.closed:
                    return
                self.failing = True
                logger.error("a decode worker does not start, trying again: %r", exc)
                await asyncio.sleep(pause_s)
                pause_s = RESTART_PAUSE_S
            else:
                self.failing = False
                return

    def _on_change(self, worker: PoolWorker) -> None:
        match worker.state:
            case WorkerState.IDLE if self.closed:
                worker.kill(RestartReason.CANCELLED)
            case WorkerState.IDLE if worker.served >= REQUESTS_PER_WORKER:
                worker.kill(RestartReason.RECYCLED)
            case WorkerState.IDLE:
                self._queue.offer(worker)
            case WorkerState.LOST:
                self._queue.discard(worker)
            case WorkerState.ENDING:
                self._queue.discard(worker)
                # If a worker was never ready, the code that started it handles its end.
                if worker.sandbox is not None and not self.closed:
                    self._report_end(worker, "decode worker %d is replaced: %s")
                    self._background(self._replace())
            case WorkerState.DEAD:
                self._pooled.discard(worker)

    def _on_dedicated_change(self, worker: PoolWorker) -> None:
        match worker.state:
            case WorkerState.ENDING if worker.sandbox is not None and not self.closed:
                if worker.reason is not RestartReason.RECYCLED:
                    self._report_end(worker, "dedicated decode worker %d ended: %s")
            case WorkerState.DEAD:
                self._dedicated.discard(worker)

    def _report_end(self, worker: PoolWorker, text: str) -> None:
        assert worker.reason is not None
        level = logging.DEBUG if worker.reason is RestartReason.RECYCLED else logging.WARNING
        logger.log(level, text, worker.pid, worker.reason.value)
        self._observer.worker_restart(worker.reason)

    def _background(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a start as a task; `close` waits for it even if its caller is cancelled."""
        task = start_background(coroutine)
        self._starting.add(task)

        def done(task: asyncio.Task[T]) -> None:
            self._starting.discard(task)
            if not task.cancelled():
                task.exception()  # avoids a warning if the caller no longer waits

        task.add_done_callback(done)
        return task


def _terminate_started(start: asyncio.Task[PoolWorker]) -> None:
    """Terminate a worker whose caller no longer waits for it."""
    if not start.cancelled() and start.exception() is None:
        start.result().terminate()
