"""Two batchers on shared slots against a simple model: requests, cancellations and ends of runs in any order.

Runs end when the test says so, in an executor without threads, so every step is deterministic.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.engines.concurrency import ConcurrentSession, LatencyProfile
from service.engines.session import InferenceFailed, Inputs, Outputs, Tensor
from service.errors import NotReady
from service.pipeline.batching.batcher import Batcher, Inference
from service.pipeline.batching.health import InferenceHealth
from service.pipeline.batching.slots import Slots
from tests.support.engines import CPU

SLOTS = 2
MODELS = st.integers(0, 1)


class Echo:
    """A session that returns the numbers of its rows."""

    runtime = CPU
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()

    def run(self, inputs: Inputs) -> Outputs:
        rows = inputs["frames"][:, :1].astype(np.float32)
        return Outputs(rows, rows[:, None])

    def close(self) -> None:
        raise AssertionError("a batcher does not own its session")


class HeldExecutor(Executor):
    """Runs nothing until the test releases it."""

    def __init__(self) -> None:
        self.held: list[tuple[Future[Any], Callable[[], Any]]] = []
        self.started = 0

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.held.append((future, lambda: function(*args, **kwargs)))
        self.started += 1
        return future

    def finish(self, index: int, failure: Exception | None) -> None:
        future, work = self.held.pop(index)
        if failure is None:
            future.set_result(work())
        else:
            future.set_exception(failure)


class Request:
    """A request of one batcher, and how often the other model has run since it was made."""

    def __init__(self, model: int, numbers: list[int], task: asyncio.Task[Inference], others: int) -> None:
        self.model = model
        self.numbers = numbers
        self.task = task
        self.others = others


class BatcherMachine(RuleBasedStateMachine):
    """The model: a list of requests, each with the numbers that its rows must return."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.slots = Slots(SLOTS)
        self.executors = [HeldExecutor(), HeldExecutor()]
        self.batchers: list[Batcher] = []
        self.requests: list[Request] = []
        self.numbers = 0
        self.run(self.start())

    async def start(self) -> None:
        for executor in self.executors:
            batcher = Batcher(
                Echo(),
                ConcurrentSession(Echo(), LatencyProfile(1.0, 1.0, SLOTS)),
                self.slots,
                executor,
                sizes=range(1, 4),
                wait_s=0,
                on_batch=id,
                health=InferenceHealth(3600),
            )
            batcher.start()
            self.batchers.append(batcher)

    def run(self, work: Any = None) -> None:
        """Run the event loop until nothing is left to do."""

        async def settle() -> None:
            if work is not None:
                await work
            for _ in range(200):  # the longest chain of callbacks is far shorter
                await asyncio.sleep(0)

        self.loop.run_until_complete(settle())

    @rule(model=MODELS, rows=st.integers(1, 6))
    def submit(self, model: int, rows: int) -> None:
        numbers = [(self.numbers + offset) % 251 for offset in range(rows)]
        self.numbers += rows
        inputs = {"frames": np.array(numbers, np.uint8)[:, None]}
        task = self.loop.create_task(self.batchers[model].infer(inputs))
        self.requests.append(Request(model, numbers, task, self.executors[1 - model].started))
        self.run()

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), steps=st.integers(0, 3), end_run=st.booleans())
    def cancel(self, data: st.DataObject, steps: int, end_run: bool) -> None:
        """Cancel a request, before or after its run has ended and at any step on the way to its result."""
        request = data.draw(st.sampled_from(self.requests))
        held = self.executors[request.model].held
        if end_run and held:
            self.executors[request.model].finish(0, None)

        async def cancel_soon() -> None:
            for _ in range(steps):
                await asyncio.sleep(0)
            request.task.cancel()

        self.run(cancel_soon())
        assert request.task.done()
        self.requests.remove(request)
        if not request.task.cancelled():
            self.check(request)

    @precondition(lambda self: any(executor.held for executor in self.executors))
    @rule(data=st.data(), fails=st.integers(0, 9))
    def finish(self, data: st.DataObject, fails: int) -> None:
        """End a run; one in ten fails."""
        executor = data.draw(st.sampled_from([one for one in self.executors if one.held]))
        index = data.draw(st.integers(0, len(executor.held) - 1))
        model, started = self.executors.index(executor), executor.started
        executor.finish(index, InferenceFailed("no") if fails == 0 else None)
        self.run()
        if all(request.model != model or request.task.done() for request in self.requests):
            assert executor.started == started  # nothing runs for cancelled requests
        for request in [request for request in self.requests if request.task.done()]:
            self.requests.remove(request)
            self.check(request)

    def check(self, request: Request) -> None:
        if request.task.exception() is not None:
            assert isinstance(request.task.exception(), NotReady)
        else:
            assert request.task.result().outputs.logits[:, 0].tolist() == request.numbers

    @invariant()
    def slots_are_not_idle_while_requests_wait(self) -> None:
        if any(batcher.waiting for batcher in self.batchers):
            assert any(executor.held for executor in self.executors)

    @invariant()
    def another_model_does_not_run_more_than_once_per_slot_before_a_request(self) -> None:
        for model, batcher in enumerate(self.batchers):
            waiting = [request for request in self.requests if request.model == model]
            if waiting and batcher.waiting == len(waiting):  # none of them has run
                others = self.executors[1 - model].started - min(request.others for request in waiting)
                assert others <= SLOTS

    @invariant()
    def slots_and_rows_add_up(self) -> None:
        assert 0 <= self.slots.free <= SLOTS
        if not self.requests and not any(executor.held for executor in self.executors):
            assert self.slots.free == SLOTS
            assert self.slots.clips == 0

    def teardown(self) -> None:
        while any(executor.held for executor in self.executors):
            for executor in self.executors:
                while executor.held:
                    executor.finish(0, None)
            self.run()
        for request in self.requests:
            assert request.task.done()
            self.check(request)
        for batcher in self.batchers:
            self.run(batcher.close())
        assert self.slots.free == SLOTS
        self.loop.close()


TestBatcher = BatcherMachine.TestCase
TestBatcher.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, derandomize=True, phases=[Phase.generate]
)
