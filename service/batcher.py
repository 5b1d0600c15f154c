"""From single requests to batches: one batcher for each model, in front of its session.

Rows (views) of several requests share a run of the graph, up to `max_batch`. A batch is not held back for a
request that nobody has made: it waits only while other requests are known to be on their way, and never
longer than `wait_s`. Work whose caller has gone is dropped before it is run.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from service.errors import NotReady
from service.runtime.session import InferenceFailed, Inputs, Outputs, Session

logger = logging.getLogger(__name__)


class BatcherState(StrEnum):
    """What a batcher is doing."""

    IDLE = "idle"
    GATHERING = "gathering"
    RUNNING = "running"
    CLOSED = "closed"


@dataclass(frozen=True)
class Inference:
    """What came out for one request: its rows in order, how long they waited, and how long they ran."""

    outputs: Outputs
    queue_ms: float
    inference_ms: float


@dataclass(eq=False)
class _Job:
    """One request: some rows, of which `taken` are in a batch already."""

    inputs: Inputs
    rows: int
    submitted_s: float
    done: asyncio.Future[Inference]
    counted: bool
    taken: int = 0
    started_s: float = 0.0
    parts: list[Outputs] = field(default_factory=list)

    @property
    def left(self) -> int:
        return self.rows - self.taken


@dataclass(frozen=True)
class _Slice:
    """The rows `start` to `stop` of a job, as part of a batch."""

    job: _Job
    start: int
    stop: int

    @property
    def rows(self) -> int:
        return self.stop - self.start


class Batcher:
    """Runs a session on batches, one at a time, in a thread of `executor`.

    Args:
        session: the model's graph.
        executor: where inference runs, so that the event loop never waits for it.
        max_batch: most rows in one run.
        wait_s: longest time that a batch waits to be filled.
        on_batch: called with the number of rows of every batch.
    """

    def __init__(
        self,
        session: Session,
        executor: Executor,
        *,
        max_batch: int,
        wait_s: float,
        on_batch: Callable[[int], object],
    ) -> None:
        self._session = session
        self._executor = executor
        self._max_batch = max_batch
        self._wait_s = wait_s
        self._on_batch = on_batch
        self._jobs: deque[_Job] = deque()
        self._batch: list[_Slice] = []
        self._coming = 0
        self._changed = asyncio.Event()
        self._loop_task: asyncio.Task[None] | None = None
        self.state = BatcherState.IDLE

    @property
    def waiting(self) -> int:
        """Requests of which no row has been run."""
        return sum(1 for job in self._jobs if job.taken == 0 and not job.done.done())

    def start(self) -> None:
        """Begin to serve; needs a running event loop."""
        self._loop_task = asyncio.get_running_loop().create_task(self._serve())
        self._loop_task.add_done_callback(_log_failure)

    @contextmanager
    def on_the_way(self) -> Iterator[None]:
        """Tell that a request is about to bring rows, or to fail; a batch may wait for it."""
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1
            self._changed.set()

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
        rows = len(next(iter(inputs.values())))
        job = _Job(inputs, rows, time.monotonic(), asyncio.get_running_loop().create_future(), counted)
        self._jobs.append(job)
        self._changed.set()
        return await job.done

    async def close(self) -> None:
        """Fail what has not begun, let the batch that runs come to its end, and stop."""
        self._stop()
        if self._loop_task is not None:
            await asyncio.wait([self._loop_task])

    def _stop(self) -> None:
        self.state = BatcherState.CLOSED
        for job in self._jobs:
            if not job.done.done():
                job.done.set_exception(_closed())
        self._changed.set()

    async def _serve(self) -> None:
        try:
            while self.state is not BatcherState.CLOSED:
                if not self._live():
                    await self._change(BatcherState.IDLE)
                elif self._more_expected():
                    await self._gather()
                else:
                    self._batch = self._take()
                    await self._run(self._batch)
        finally:  # should it ever end by an error, nobody may be left waiting
            self._stop()
            _fail(self._batch)

    async def _change(self, state: BatcherState) -> None:
        """Wait, in `state`, until a request comes or goes."""
        self.state = state
        self._changed.clear()
        await self._changed.wait()

    def _live(self) -> bool:
        """Drop requests whose caller has gone; whether any are left."""
        while self._jobs and self._jobs[0].done.done():
            self._jobs.popleft()
        return bool(self._jobs)

    def _more_expected(self) -> bool:
        rows = sum(job.left for job in self._jobs if not job.done.done())
        return self._coming > 0 and rows < self._max_batch and self._wait_left_s() > 0

    def _wait_left_s(self) -> float:
        return self._jobs[0].submitted_s + self._wait_s - time.monotonic()

    async def _gather(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._wait_left_s()):
                await self._change(BatcherState.GATHERING)

    def _take(self) -> list[_Slice]:
        """The next batch: first come, first served, up to `max_batch` rows."""
        room = self._max_batch
        batch: list[_Slice] = []
        while room and self._live():
            job = self._jobs[0]
            part = _Slice(job, job.taken, job.taken + min(room, job.left))
            job.taken = part.stop
            room -= part.rows
            batch.append(part)
            if not job.left:
                self._jobs.popleft()
        return batch

    async def _run(self, batch: list[_Slice]) -> None:
        self.state = BatcherState.RUNNING
        if counted := sum(part.rows for part in batch if part.job.counted):
            self._on_batch(counted)
        started_s = time.monotonic()
        for part in batch:
            if part.start == 0:
                part.job.started_s = started_s
        try:
            outputs = await asyncio.get_running_loop().run_in_executor(self._executor, self._infer, batch)
        except InferenceFailed as exc:
            logger.error("a batch of %d requests failed: %s", len(batch), exc.message)
            _fail(batch)
        else:
            _hand_out(batch, outputs, time.monotonic())

    def _infer(self, batch: list[_Slice]) -> Outputs:
        return self._session.run(_stack(batch))


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (failure := task.exception()) is not None:
        logger.critical("a batcher has stopped; its model answers no more", exc_info=failure)


def _closed() -> NotReady:
    return NotReady("The service is shutting down.")


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
        part.job.parts.append(Outputs(outputs.logits[first:last], outputs.evidence[first:last]))
        first = last
        if not part.job.left and not part.job.done.done():
            part.job.done.set_result(_result(part.job, finished_s))


def _result(job: _Job, finished_s: float) -> Inference:
    return Inference(
        Outputs(
            np.concatenate([part.logits for part in job.parts]),
            np.concatenate([part.evidence for part in job.parts]),
        ),
        queue_ms=(job.started_s - job.submitted_s) * 1e3,
        inference_ms=(finished_s - job.started_s) * 1e3,
    )
