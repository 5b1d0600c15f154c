"""A state machine of the pool and its workers: every caller gets a result, and no worker is lost.

The test simulates the processes, and the event loop runs one iteration at a time, so that callers are
cancelled, and workers die, between any two steps of the code.
"""

from __future__ import annotations

import asyncio
import errno
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from service.clip.video import DecodeLimits
from service.errors import (
    BadRequest,
    NotAVideo,
    NotReady,
    OverLimit,
    Overloaded,
    Undecodable,
)
from service.workers import decode_pool
from service.workers import shared_memory as memory_files
from service.workers.decode_pool import Decoded, DecodePool
from service.workers.messages import DecodeFailure, DecodeRequest, Refusal, encode
from service.workers.pool_worker import PoolWorker, WorkerState
from tests.service.pools import Recorder
from tests.service.workers.fake_workers import FakeWorker, FakeWorkers, SteppedLoop, answer_to
from tests.support.tiny_models import TWO_STREAMS

TIMEOUT_S = 4.0
VIDEO = b"video"


@dataclass
class Caller:
    """A caller of `decode`, and what happened to its video.

    `events` are names of what its workers did, or what was done to it.
    """

    task: asyncio.Task[Decoded]
    events: list[str] = field(default_factory=list)


EXPLANATIONS: dict[type[BaseException], set[str]] = {
    asyncio.CancelledError: {"cancel"},
    BadRequest: {"no such file"},
    NotAVideo: {"refuse"},
    OverLimit: {"processor time"},
    Overloaded: {"time", "exhausted"},
    Undecodable: {"crash", "fail", "garbage", "hang up", "kill"},
    NotReady: {"close", "kill", "crash", "hang up", "processor time", "time"},
    ZeroDivisionError: {"defect"},
}


class PoolMachine(RuleBasedStateMachine):
    """Calls, answers, deaths, failing starts, time and cancellation in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = SteppedLoop()
        self.fakes = FakeWorkers()
        self.callers: dict[int, Caller] = {}
        self.requests: dict[FakeWorker, DecodeRequest] = {}
        self.unnoticed: list[str] = []
        self.failure: Exception | None = None
        self.closing: asyncio.Task[None] | None = None
        self.dedicated: list[asyncio.Task[PoolWorker]] = []
        self._patches = pytest.MonkeyPatch()
        self._patches.setattr(PoolWorker, "start", self.fakes.start)
        shared_memory = memory_files.shared_memory

        @contextmanager
        def failing_shared_memory(size: int) -> Iterator[Any]:
            if self.failure is not None:
                raise self.failure
            with shared_memory(size) as files:
                yield files

        self._patches.setattr(decode_pool, "shared_memory", failing_shared_memory)

    # --- what callers do ---

    @initialize(workers=st.integers(1, 3))
    def start(self, workers: int) -> None:
        self.size = workers
        self.recorder = Recorder()
        self.pool = DecodePool(
            workers=workers,
            timeout_s=TIMEOUT_S,
            memory_mb=1,
            cores=1,
            observer=self.recorder,
            clock=self.loop.time,
        )
        start = self.loop.create_task(self.pool.start())
        while not start.done():
            self.recover_once()
        start.result()

    def call(self, video: bytes | Path = VIDEO) -> Caller:
        number = len(self.callers) + 1
        coroutine = self.pool.decode(video, TWO_STREAMS, DecodeLimits(max_frames=number))
        self.callers[number] = Caller(self.loop.create_task(coroutine), list(self.unnoticed))
        return self.callers[number]

    @rule(count=st.integers(1, 3))
    def decode(self, count: int) -> None:
        for _ in range(count):
            self.call()

    @rule()
    def decode_missing_file(self) -> None:
        self.call(Path("/no/such/file")).events.append("no such file")

    @rule(
        failure=st.sampled_from(
            [OSError(errno.EMFILE, "no descriptors"), MemoryError(), ZeroDivisionError("a defect")]
        )
    )
    def decode_fails_here(self, failure: Exception) -> None:
        """All that reach a worker now fail before their request is sent."""
        self.call()
        self.failure = failure
        for caller in self.unfinished():
            caller.events += ["exhausted", "defect"]
        self.loop.settle()
        self.failure = None

    @precondition(lambda self: self.unfinished())
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        caller = data.draw(st.sampled_from(self.unfinished()))
        caller.task.cancel()
        caller.events.append("cancel")

    @precondition(lambda self: len(self.dedicated) < 2)
    @rule()
    def acquire_dedicated(self) -> None:
        self.dedicated.append(self.loop.create_task(self.pool.acquire_dedicated()))

    @precondition(lambda self: self.dedicated)
    @rule()
    def release_dedicated(self) -> None:
        task = self.dedicated.pop()
        if task.done() and not task.cancelled() and task.exception() is None:
            task.result().terminate()
        task.cancel()

    # --- what workers do ---

    @rule()
    def start_succeeds(self) -> None:
        self.fakes.allow_start()

    @rule(
        error=st.sampled_from([OSError(errno.EAGAIN, "no processes"), RuntimeError("can't start new thread")])
    )
    def start_fails(self, error: Exception) -> None:
        self.fakes.fail_start(error)

    @precondition(lambda self: self.fakes.alive)
    @rule(data=st.data())
    def become_ready(self, data: st.DataObject) -> None:
        fake = data.draw(st.sampled_from(self.fakes.alive))
        if not fake.ready:
            fake.become_ready()

    @precondition(lambda self: self.receive())
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        fake = data.draw(st.sampled_from(self.receive()))
        request = self.requests.pop(fake)
        self.note(request, "answer")
        fake.send(encode(answer_to(request)))

    @precondition(lambda self: self.receive())
    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        fake = data.draw(st.sampled_from(self.receive()))
        self.note(self.requests.pop(fake), "refuse")
        fake.send(encode(Refusal("not_a_video", "text")))

    @precondition(lambda self: self.fakes.alive)
    @rule(
        data=st.data(),
        event=st.sampled_from(["kill", "crash", "processor time", "hang up", "garbage", "fail"]),
    )
    def misbehave(self, data: st.DataObject, event: str) -> None:
        self.receive()
        fake = data.draw(st.sampled_from(self.fakes.alive))
        if (request := self.requests.pop(fake, None)) is not None:
            self.note(request, event)
        else:  # a request may be on its way, or be sent before the pool notices
            self.unnoticed.append(event)
            for caller in self.unfinished():
                caller.events.append(event)
        match event:
            case "kill":
                fake.die(-signal.SIGKILL)
            case "crash":
                fake.die(-signal.SIGSEGV)
            case "processor time":
                fake.die(-signal.SIGXCPU)
            case "hang up":
                fake.hang_up()
            case "garbage":
                fake.send(b"\x80")
            case "fail":
                fake.send(encode(DecodeFailure("ValueError: x")))

    # --- time ---

    @rule()
    def step(self) -> None:
        self.loop.step()

    @rule()
    def settle(self) -> None:
        self.loop.settle()
        self.unnoticed.clear()

    @rule(seconds=st.sampled_from([0.25, 0.6, 5.0, 20.0, 100.0]))
    def pass_time(self, seconds: float) -> None:
        for caller in self.unfinished():
            caller.events.append("time")
        self.loop.now_s += seconds
        self.loop.settle()

    @precondition(lambda self: self.closing is None)
    @rule(closes=st.sampled_from([False] * 9 + [True]))
    def close(self, closes: bool) -> None:
        if closes:
            self.closing = self.loop.create_task(self.pool.close())
            for caller in self.unfinished():
                caller.events.append("close")

    # --- what must hold ---

    @invariant()
    def results_are_explained(self) -> None:
        for number, caller in self.callers.items():
            if caller.task.done():
                self.check_result(number, caller)

    def check_result(self, number: int, caller: Caller) -> None:
        if caller.task.cancelled():
            assert "cancel" in caller.events
            return
        error = caller.task.exception()
        if error is None:
            assert "answer" in caller.events
            assert caller.task.result().video.frames == number
        else:
            explained = EXPLANATIONS[type(error)] & set(caller.events)
            assert explained or (isinstance(error, NotReady) and self.closing), error

    @rule()
    def recover(self) -> None:
        """When nothing goes wrong any more, all callers get results and all workers become idle."""
        for _ in range(12 + 2 * len(self.unfinished())):
            self.recover_once()
        assert self.unfinished() == []
        states = [worker.state for worker in self.pool._supervisor._pooled]
        assert states == ([] if self.closing else [WorkerState.IDLE] * self.size)
        assert (self.pool.waiting, self.pool.problem()) == (0, None)
        assert len(self.pool._queue._idle) == len(states)

    def recover_once(self) -> None:
        self.loop.settle()
        self.receive()
        while self.fakes.pending:
            self.fakes.allow_start()
            self.loop.settle()
        for fake in self.fakes.alive:
            if not fake.ready:
                fake.become_ready()
        self.loop.settle()
        for fake in self.receive():
            request = self.requests.pop(fake)
            self.note(request, "answer")
            fake.send(encode(answer_to(request)))
        self.loop.settle()
        self.loop.now_s += 0.6  # ends those that hung up, and the pause after a failed start
        for caller in self.unfinished():
            caller.events.append("time")

    def teardown(self) -> None:
        try:
            if hasattr(self, "pool"):
                self.recover()
                while self.dedicated:
                    self.release_dedicated()
                closing = self.closing or self.loop.create_task(self.pool.close())
                for _ in range(12):
                    self.recover_once()
                closing.result()
                assert self.fakes.alive == []
                self.loop.settle()
            tasks = asyncio.all_tasks(self.loop)
            assert tasks == set()
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        finally:
            self._patches.undo()
            self.loop.close()
        self.callers.clear()

    # --- helpers ---

    def unfinished(self) -> list[Caller]:
        return [caller for caller in self.callers.values() if not caller.task.done()]

    def note(self, request: DecodeRequest, event: str) -> None:
        self.callers[request.limits.max_frames].events.append(event)

    def receive(self) -> list[FakeWorker]:
        """The workers that have a request."""
        for fake in self.fakes.alive:
            if (request := fake.take_request()) is not None:
                self.requests[fake] = request
        return [fake for fake in self.requests if fake.alive]


def test_no_worker_and_no_caller_is_lost() -> None:
    run_state_machine_as_test(
        PoolMachine,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_closed_pool_has_no_problem_after_failed_starts() -> None:
    machine = PoolMachine()
    machine.start(workers=1)
    machine.fakes.alive[0].die(-signal.SIGSEGV)
    machine.settle()
    machine.start_fails(OSError(errno.EAGAIN, "no processes"))
    machine.settle()
    assert machine.pool.problem() == "No decode worker starts."
    machine.close(closes=True)
    machine.settle()
    machine.start_fails(OSError(errno.EAGAIN, "no processes"))
    machine.settle()
    assert machine.pool.problem() is None
    machine.teardown()
