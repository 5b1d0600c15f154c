"""Dynamic batching: one batcher per model, between the requests and the model's sessions.

A single clip runs with all threads. Several clips run concurrently with one thread each, as many as there are
slots; see `service.engines.concurrency`. Rows (views) of several requests may share a run, and a request may
be spread over several runs. A batch waits only while more rows are known to be on their way, for at most
`wait_s`. Requests take turns, one run each, so that a request with many views does not delay the others. Rows
whose request was cancelled are dropped before they run.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from service.background import start_background
from service.engines.concurrency import ConcurrentSession
from service.engines.session import InferenceFailed, Inputs, Outputs, Session, batch_length
from service.errors import NotReady
from service.pipeline.batching.health import InferenceHealth
from service.pipeline.batching.slots import Slots

logger = logging.getLogger(__name__)


class BatcherState(StrEnum):
    """What the batcher's loop is waiting for."""

    IDLE = "idle"  # for a request; runs may be in progress
    GATHERING = "gathering"  # for rows that are on their way and can share the run
    QUEUED = "queued"  # for slots
    CLOSED = "closed"


@dataclass(frozen=True)
class Inference:
    """The outputs for one request, its rows in order, and how long the rows waited and ran."""

    outputs: Outputs
    queue_ms: float
    inference_ms: float


@dataclass(eq=False)
class _Job:
    """One request: `taken` rows are in a run or finished; `parts` holds outputs by their first row."""

    inputs: Inputs
    rows: int
    submitted_s: float
    done: asyncio.Future[Inference]
    counted: bool
    taken: int = 0
    finished: int = 0
    started_s: float = 0.0
    parts: dict[int, Outputs] = field(default_factory=dict)

    def add_part(self, start: int, outputs: Outputs) -> None:
        """Add the outputs of some rows; the last part completes the job."""
        self.parts[start] = outputs
        self.finished += len(outputs.logits)
        if self.finished < self.rows or self.done.done():
            return
        if len(self.parts) > 1:  # runs end in any order, so sort the parts by their first row
            outputs = Outputs.concatenate([self.parts[first] for first in sorted(self.parts)])
        queue_s, inference_s = self.started_s - self.submitted_s, time.monotonic() - self.started_s
        self.done.set_result(Inference(outputs, queue_s * 1e3, inference_s * 1e3))


@dataclass(frozen=True)
class _Part:
    """The rows `start` to `stop` of a job, as a part of a batch."""

    job: _Job
    start: int
    stop: int


@dataclass(eq=False)
class _Run:
    """One run of the graph; `slots` is 0 once they are released."""

    session: Session
    slots: int
    batch: list[_Part]
    rows: int
    started_s: float


class Batcher:
    """Batches the rows of a model's requests and runs them in the threads of `executor`.

    Args:
        session: the graph for runs with all threads.
        concurrent: the graph for concurrent one-thread runs; None with a single thread, or on a device.
        slots: the slots that all batchers share.
        executor: runs the graph, so that the event loop never waits for it; one thread for each slot.
        sizes: permitted numbers of rows in a run, ascending from 1; the largest one that can be filled is
            used.
        wait_s: maximum time that a batch waits to be filled.
        on_batch: called with the number of rows of every batch.
        health: observes requests and runs.

    Attributes:
        state: what the loop is waiting for.
    """

    def __init__(
        self,
        session: Session,
        concurrent: ConcurrentSession | None,
        slots: Slots,
        executor: Executor,
        *,
        sizes: Sequence[int],
        wait_s: float,
        on_batch: Callable[[int], object],
        health: InferenceHealth,
        on_failure: Callable[[], object] = lambda: None,
    ) -> None:
        self._session = session
        self._concurrent = concurrent
        self._slots = slots
        self._executor = executor
        self._sizes = sizes
        self._wait_s = wait_s
        self._on_batch = on_batch
        self._on_failure = on_failure
        self._jobs: deque[_Job] = deque()
        self._runs: dict[asyncio.Task[None], _Run] = {}
        self._expected = 0
        self._rows_left = 0
        self._rows_running = 0
        self._changed = asyncio.Event()
        self._loop_task: asyncio.Task[None] | None = None
        self.health = health
        self.state = BatcherState.IDLE

    @property
    def waiting(self) -> int:
        """Number of requests without a row that has run or is running."""
        return sum(1 for job in self._jobs if job.taken == 0 and not job.done.done())

    @property
    def clips(self) -> int:
        """Number of rows expected, waiting and running."""
        return self._expected + self._rows_left + self._rows_running

    def start(self) -> None:
        """Start the loop; needs a running event loop."""
        self._slots.register(self)
        self._loop_task = start_background(self._serve())
        self._loop_task.add_done_callback(self._log_failure)

    def wake(self) -> None:
        """Make the loop look for work again."""
        self._changed.set()

    @contextmanager
    def expect(self, rows: int = 1) -> Iterator[None]:
        """Announce rows that will be submitted when the block ends, if at all; a batch may wait for them."""
        self._expected += rows
        try:
            yield
        finally:
            self._expected -= rows
            self._changed.set()

    async def infer(self, inputs: Inputs, *, counted: bool = True) -> Inference:
        """Run the rows of one request; cancelling drops rows that have not started.

        Args:
            inputs: the rows, uint8 `(N, T_branch, size, size, 3)` for each input of the graph.
            counted: whether `on_batch` counts them.

        Raises:
            NotReady: the batcher is closed, or the run failed.
        """
        if self.state is BatcherState.CLOSED:
            raise _closed()
        done: asyncio.Future[Inference] = asyncio.get_running_loop().create_future()
        job = _Job(inputs, batch_length(inputs), time.monotonic(), done, counted)
        self._jobs.append(job)
        self._rows_left += job.rows
        self._changed.set()
        try:
            with self.health.request():
                return await done
        except asyncio.CancelledError:
            self._drop(job)
            raise

    async def close(self) -> None:
        """Fail the jobs that have not started, wait for the current runs, and stop."""
        self._stop()
        try:
            if self._loop_task is not None:
                await asyncio.wait([self._loop_task, *self._runs])
        finally:
            self._executor.shutdown(wait=False)  # a run that does not end would block the event loop

    def release_stuck(self) -> None:
        """Release the slots of overdue runs, so that a run that never ends does not stop other models."""
        for run in self._runs.values():
            if time.monotonic() - run.started_s > self.health.run_limit_s:
                self._release(run)

    def _drop(self, job: _Job) -> None:
        """Drop the rows that have not started; wake the loop, which may be waiting for them."""
        if job.taken < job.rows:
            self._jobs.remove(job)
            self._rows_left -= job.rows - job.taken
            job.taken = job.rows
        self._changed.set()

    def _stop(self) -> None:
        self.state = BatcherState.CLOSED
        for job in self._jobs:
            if not job.done.done():
                job.done.set_exception(_closed())
        self._changed.set()

    async def _serve(self) -> None:
        try:
            while self.state is not BatcherState.CLOSED:
                self._changed.clear()
                if not self._jobs:
                    self._slots.withdraw(self)
                    self.state = BatcherState.IDLE
                    await self._changed.wait()
                    continue
                wait_s = self._jobs[0].submitted_s + self._wait_s - time.monotonic()
                if self._expected and self._rows_left < self._sizes[-1] and wait_s > 0:
                    self.state = BatcherState.GATHERING
                    with suppress(TimeoutError):
                        async with asyncio.timeout(wait_s):
                            await self._changed.wait()
                elif not self._start_run():
                    self.state = BatcherState.QUEUED
                    await self._changed.wait()
        finally:  # leave no request waiting, for whatever reason the loop ended
            self._slots.unregister(self)
            self._stop()

    def _start_run(self) -> bool:
        """Start the next run if its slots are free.

        The run is a local variable of this function. As a local variable of the loop it would keep the frames
        of the last clip in memory while the service is idle.
        """
        session, slots, rows = self._session, self._slots.total, self._rows_left
        if self._concurrent is not None and self._concurrent.profile.concurrent_is_faster(self._slots.clips):
            # Spread the rows over the free slots instead of running them all on one.
            session, slots, rows = self._concurrent.session, 1, math.ceil(rows / max(1, self._slots.free))
        if not self._slots.try_acquire(self, slots):
            return False
        size = self._sizes[bisect_right(self._sizes, rows) - 1]
        batch: list[_Part] = []
        room, counted = size, 0
        while room and self._jobs:
            job = self._jobs.popleft()
            part = _Part(job, job.taken, min(job.taken + room, job.rows))
            taken = part.stop - part.start
            job.taken = part.stop
            room -= taken
            counted += taken if job.counted else 0
            batch.append(part)
            if job.taken < job.rows:
                self._jobs.append(job)
        run = _Run(session, slots, batch, size - room, time.monotonic())
        self._rows_left -= run.rows
        self._rows_running += run.rows
        if counted:
            self._on_batch(counted)
        task = asyncio.get_running_loop().create_task(self._run(run))
        self._runs[task] = run
        task.add_done_callback(self._run_ended)
        return True

    async def _run(self, run: _Run) -> None:
        for part in run.batch:
            if part.start == 0:
                part.job.started_s = run.started_s
        try:
            with self.health.run():
                outputs = await asyncio.get_running_loop().run_in_executor(self._executor, _infer, run)
        except InferenceFailed as exc:
            logger.error("a batch of %d requests failed: %s", len(run.batch), exc.message)
            self._on_failure()
            self._fail(run)
        except BaseException:  # the requests of the batch must not wait forever after any error
            self._fail(run)
            raise
        else:
            first = 0
            for part in run.batch:
                last = first + part.stop - part.start
                part.job.add_part(part.start, outputs[first:last])
                first = last

    def _fail(self, run: _Run) -> None:
        for part in run.batch:
            self._drop(part.job)
            if not part.job.done.done():
                part.job.done.set_exception(NotReady("The inference failed; try again later."))

    def _run_ended(self, task: asyncio.Task[None]) -> None:
        run = self._runs.pop(task)
        self._rows_running -= run.rows
        self._release(run)
        if not task.cancelled() and task.exception() is not None:
            self._log_failure(task)
            self._stop()  # after an unexpected error no run of this model can be trusted

    def _release(self, run: _Run) -> None:
        slots, run.slots = run.slots, 0
        if slots:
            self._slots.release(slots)

    @staticmethod
    def _log_failure(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (failure := task.exception()) is not None:
            logger.critical("a batcher has stopped; its model no longer answers", exc_info=failure)


def _closed() -> NotReady:
    return NotReady("The service is shutting down.")


def _infer(run: _Run) -> Outputs:
    """Run a batch in a thread; a request that fills the batch alone is not copied."""
    inputs = {}
    for name in run.batch[0].job.inputs:
        parts = [part.job.inputs[name][part.start : part.stop] for part in run.batch]
        inputs[name] = parts[0] if len(parts) == 1 else np.concatenate(parts)
    outputs = run.session.run(inputs)
    # NaN would pass through the softmax as a score of every label.
    if not outputs.finite:
        raise InferenceFailed("the outputs are not finite")
    return outputs
