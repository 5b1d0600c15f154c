"""From single requests to runs of the graph: one batcher for each model, in front of its sessions.

A clip that is alone runs with all threads. Where several are under way, each runs with one thread, as many
side by side as there are slots; see `service.runtime.streams`. Rows (views) of several requests may share a
run, which has one of a few sizes. A batch is not held back for a request that nobody has made: it waits only
while some are known to be on their way, and never longer than `wait_s`. Requests take turns, a run each, so
that one of many views does not hold up the others. Work whose caller has gone is dropped before it is run.
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

from service.errors import NotReady
from service.pipeline.run_times import RunTimes
from service.pipeline.slots import Slots
from service.runtime.session import InferenceFailed, Inputs, Outputs, Session, rows_of
from service.runtime.streams import Streams

logger = logging.getLogger(__name__)


class BatcherState(StrEnum):
    """What a batcher is doing."""

    IDLE = "idle"  # nothing waits; runs may be under way
    GATHERING = "gathering"  # more rows are on their way, for the same run
    QUEUED = "queued"  # for slots
    CLOSED = "closed"


@dataclass(frozen=True)
class Inference:
    """What came out for one request: its rows in order, how long they waited, and how long they ran."""

    outputs: Outputs
    queue_ms: float
    inference_ms: float


@dataclass(eq=False)
class _Job:
    """One request: of its rows `taken` are in a run or through it; `parts` came out, by their first row."""

    inputs: Inputs
    rows: int
    submitted_s: float
    done: asyncio.Future[Inference]
    counted: bool
    taken: int = 0
    started_s: float = 0.0
    parts: dict[int, Outputs] = field(default_factory=dict)

    @property
    def left(self) -> int:
        """Rows that no run has taken; none, when nobody wants them any more."""
        return 0 if self.done.done() else self.rows - self.taken

    @property
    def complete(self) -> bool:
        return sum(len(part.logits) for part in self.parts.values()) == self.rows


@dataclass(frozen=True)
class _Slice:
    """The rows `start` to `stop` of a job, as part of a batch."""

    job: _Job
    start: int
    stop: int

    @property
    def rows(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class _Run:
    """One run of the graph: on which session, for which rows, and the slots that it takes."""

    session: Session
    slots: int
    batch: list[_Slice]

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.batch)


class Batcher:
    """Runs a model's sessions, in threads of `executor`.

    Args:
        session: the model's graph, its runs with all threads.
        streams: the graph for one-thread runs side by side; None where there is one thread, or a device.
        slots: the cores' share of inference, in common with other batchers.
        executor: where inference runs, so that the event loop never waits for it; a thread for each slot.
        sizes: how many rows a run may have, ascending from 1; the largest that can be filled is taken.
        wait_s: longest time that a batch waits to be filled.
        on_batch: called with the number of rows of every batch.

    Attributes:
        state: what it is doing.
        run_times: how long its runs take, and whether one does not end.
    """

    def __init__(
        self,
        session: Session,
        streams: Streams | None,
        slots: Slots,
        executor: Executor,
        *,
        sizes: Sequence[int],
        wait_s: float,
        on_batch: Callable[[int], object],
    ) -> None:
        self._session = session
        self._streams = streams
        self._slots = slots
        self._executor = executor
        self._sizes = sizes
        self._wait_s = wait_s
        self._on_batch = on_batch
        self._jobs: deque[_Job] = deque()
        self._runs: dict[asyncio.Task[None], _Run] = {}
        self._coming = 0
        self._changed = asyncio.Event()
        self._loop_task: asyncio.Task[None] | None = None
        self.state = BatcherState.IDLE
        self.run_times = RunTimes()

    @property
    def waiting(self) -> int:
        """Requests of which no row has been run."""
        return sum(1 for job in self._jobs if job.taken == 0 and job.left)

    @property
    def clips(self) -> int:
        """Rows on their way, waiting and running."""
        return self._coming + self._rows_left() + sum(run.rows for run in self._runs.values())

    def start(self) -> None:
        """Begin to serve; needs a running event loop."""
        self._slots.join(self)
        self._loop_task = asyncio.get_running_loop().create_task(self._serve())
        self._loop_task.add_done_callback(_log_failure)

    def wake(self) -> None:
        """Look again at what can be done."""
        self._changed.set()

    @contextmanager
    def on_the_way(self, rows: int = 1) -> Iterator[None]:
        """Tell that a request is about to bring rows, or to fail; a batch may wait for it."""
        self._coming += rows
        try:
            yield
        finally:
            self._coming -= rows
            self.wake()

    async def infer(self, inputs: Inputs, *, counted: bool = True) -> Inference:
        """Run the rows of one request; cancelling drops those that have not begun.

        Args:
            inputs: the rows, uint8 `(N, T_branch, size, size, 3)` for each input of the graph.
            counted: whether `on_batch` is told of them.

        Raises:
            NotReady: the batcher is closed, or the engine failed.
        """
        if self.state is BatcherState.CLOSED:
            raise _closed()
        done: asyncio.Future[Inference] = asyncio.get_running_loop().create_future()
        job = _Job(inputs, rows_of(inputs), time.monotonic(), done, counted)
        self._jobs.append(job)
        self.wake()
        try:
            return await job.done
        except asyncio.CancelledError:
            self.wake()  # it may have been the one that others wait behind
            raise

    async def close(self) -> None:
        """Fail what has not begun, let the runs that have come to their end, and stop."""
        self._stop()
        if self._loop_task is not None:
            await asyncio.wait([self._loop_task, *self._runs])

    def _stop(self) -> None:
        self.state = BatcherState.CLOSED
        for job in self._jobs:
            if not job.done.done():
                job.done.set_exception(_closed())
        self.wake()

    async def _serve(self) -> None:
        try:
            while self.state is not BatcherState.CLOSED:
                if not self._live():
                    self._slots.withdraw(self)
                    await self._change(BatcherState.IDLE)
                elif self._more_expected():
                    await self._gather()
                elif not self._start_next():
                    await self._change(BatcherState.QUEUED)
        finally:  # should it ever end by an error, nobody may be left waiting
            self._slots.leave(self)
            self._stop()

    async def _change(self, state: BatcherState) -> None:
        """Wait, in `state`, until a request comes or goes, or slots are free."""
        self.state = state
        self._changed.clear()
        await self._changed.wait()

    def _live(self) -> bool:
        """Drop requests whose caller has gone; whether any are left."""
        while self._jobs and not self._jobs[0].left:
            self._jobs.popleft()
        return bool(self._jobs)

    def _more_expected(self) -> bool:
        return self._coming > 0 and self._rows_left() < self._sizes[-1] and self._wait_left_s() > 0

    def _rows_left(self) -> int:
        return sum(job.left for job in self._jobs)

    def _wait_left_s(self) -> float:
        return self._jobs[0].submitted_s + self._wait_s - time.monotonic()

    async def _gather(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._wait_left_s()):
                await self._change(BatcherState.GATHERING)

    def _start_next(self) -> bool:
        """Start the next run, if it can be; nothing of it is kept here, or its memory would be."""
        run = self._next_run()
        if run is not None:
            self._start(run)
        return run is not None

    def _next_run(self) -> _Run | None:
        """The next run, its slots taken; None where they are not to be had yet."""
        since_s = self._jobs[0].submitted_s
        if self._streams is not None and self._streams.pace.streams_pay(self._slots.clips):
            # Rows are spread over the streams that are free, rather than all on one of them.
            rows = math.ceil(self._rows_left() / max(1, self._slots.free))
            if self._slots.take(self, 1, since_s):
                return _Run(self._streams.session, 1, self._take(self._size(rows)))
        elif self._slots.take(self, self._slots.total, since_s):
            return _Run(self._session, self._slots.total, self._take(self._size(self._rows_left())))
        return None

    def _size(self, rows: int) -> int:
        """The size of a run for so many rows; those that are left over have the next one."""
        return self._sizes[bisect_right(self._sizes, rows) - 1]

    def _take(self, room: int) -> list[_Slice]:
        """Up to `room` rows, of the request whose turn it is, then of the next ones."""
        batch: list[_Slice] = []
        while room and self._live():
            job = self._jobs.popleft()
            part = _Slice(job, job.taken, job.taken + min(room, job.left))
            job.taken = part.stop
            room -= part.rows
            batch.append(part)
            if job.left:
                self._jobs.append(job)
        return batch

    def _start(self, run: _Run) -> None:
        if counted := sum(part.rows for part in run.batch if part.job.counted):
            self._on_batch(counted)
        task = asyncio.get_running_loop().create_task(self._run(run))
        self._runs[task] = run
        task.add_done_callback(self._ended)

    async def _run(self, run: _Run) -> None:
        started_s = time.monotonic()
        for part in run.batch:
            if part.start == 0:
                part.job.started_s = started_s
        try:
            with self.run_times.running():
                outputs = await asyncio.get_running_loop().run_in_executor(self._executor, _infer, run)
        except InferenceFailed as exc:
            logger.error("a batch of %d requests failed: %s", len(run.batch), exc.message)
            _fail(run.batch)
        except BaseException:
            _fail(run.batch)
            raise
        else:
            _hand_out(run.batch, outputs, time.monotonic())

    def _ended(self, task: asyncio.Task[None]) -> None:
        run = self._runs.pop(task)
        self._slots.give(run.slots)
        if not task.cancelled() and task.exception() is not None:
            _log_failure(task)
            self._stop()  # an error that nobody foresaw: no run of this model can be trusted any more


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (failure := task.exception()) is not None:
        logger.critical("a batcher has stopped; its model answers no more", exc_info=failure)


def _closed() -> NotReady:
    return NotReady("The service is shutting down.")


def _infer(run: _Run) -> Outputs:
    return run.session.run(_stack(run.batch))


def _stack(batch: list[_Slice]) -> Inputs:
    """The rows of a batch in one array for each input; a request that fills it alone is not copied."""
    names = batch[0].job.inputs.keys()
    rows = {name: [part.job.inputs[name][part.start : part.stop] for part in batch] for name in names}
    return {name: parts[0] if len(parts) == 1 else np.concatenate(parts) for name, parts in rows.items()}


def _fail(batch: list[_Slice]) -> None:
    for part in batch:
        if not part.job.done.done():
            part.job.done.set_exception(NotReady("The model failed to run; it may do better later."))


def _hand_out(batch: list[_Slice], outputs: Outputs, finished_s: float) -> None:
    """Give every job its rows, and its result when it has them all."""
    first = 0
    for part in batch:
        last = first + part.rows
        part.job.parts[part.start] = Outputs(outputs.logits[first:last], outputs.evidence[first:last])
        first = last
        if part.job.complete and not part.job.done.done():
            part.job.done.set_result(_result(part.job, finished_s))


def _result(job: _Job, finished_s: float) -> Inference:
    parts = [job.parts[first] for first in sorted(job.parts)]  # runs end in any order
    return Inference(
        Outputs(
            np.concatenate([part.logits for part in parts]),
            np.concatenate([part.evidence for part in parts]),
        ),
        queue_ms=(job.started_s - job.submitted_s) * 1e3,
        inference_ms=(finished_s - job.started_s) * 1e3,
    )
