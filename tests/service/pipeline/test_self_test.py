"""Readiness follows inference: what its runs say, and the tests that are made when there are none."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.errors import NotReady
from service.http.app import create_app
from service.http.lifecycle import Lifecycle
from service.pipeline import run_times, self_test
from service.pipeline.batcher import Batcher
from service.pipeline.run_times import RunTimes
from service.pipeline.self_test import Pulse, WatchedBatcher
from service.pipeline.slots import Slots
from service.runtime.session import InferenceFailed, Inputs, Outputs, Tensor
from service.runtime.streams import Pace, Streams
from service.settings import load_settings
from tests.engines import CPU
from tests.server import running_server

pytestmark = pytest.mark.anyio

FOREVER_S = 3600.0
BLACK: Inputs = {"frames": np.zeros((1, 1), np.uint8)}
WHITE: Inputs = {"frames": np.full((1, 1), 255, np.uint8)}


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class TestPulse:
    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def runs(self, clock: Clock) -> RunTimes:
        return RunTimes(clock)

    @pytest.fixture
    def pulse(self, clock: Clock, runs: RunTimes) -> Pulse:
        return Pulse(30, runs, clock)

    def test_an_idle_model_works_and_is_to_be_tested_after_a_while(self, pulse: Pulse, clock: Clock) -> None:
        clock.now_s = 19
        assert (pulse.problem(), pulse.needs_test(20)) == (None, False)
        clock.now_s = 3600
        assert (pulse.problem(), pulse.needs_test(20)) == (None, True)

    def test_a_run_that_ended_is_as_good_as_a_test(self, pulse: Pulse, clock: Clock) -> None:
        clock.now_s = 100
        with pulse.watching():
            assert not pulse.needs_test(20)
        clock.now_s = 119
        assert not pulse.needs_test(20)

    def test_a_failure_counts_until_a_run_succeeds_and_asks_for_a_test_at_once(self, pulse: Pulse) -> None:
        with pytest.raises(NotReady), pulse.watching():
            raise NotReady("no")
        assert pulse.problem() == "The last inference failed."
        assert pulse.needs_test(FOREVER_S)
        with pulse.watching():
            assert pulse.problem() == "The last inference failed."
        assert (pulse.problem(), pulse.needs_test(FOREVER_S)) == (None, False)

    def test_runs_of_which_none_ends_are_stuck(self, pulse: Pulse, clock: Clock) -> None:
        clock.now_s = 100
        with pulse.watching():
            for clock.now_s in (110, 120):
                with pulse.watching():
                    pass
            clock.now_s = 150
            assert pulse.problem() is None
            clock.now_s = 151
            assert pulse.problem() == "No inference has ended for 31 s."
        assert pulse.problem() is None

    def test_a_run_that_does_not_end_is_stuck_though_others_end_and_its_caller_has_gone(
        self, pulse: Pulse, runs: RunTimes, clock: Clock
    ) -> None:
        with runs.running():
            for clock.now_s in range(30):
                with pulse.watching():
                    pass
                assert pulse.problem() is None
            clock.now_s = 31
            assert pulse.problem() == "An inference has not ended for 31 s."
        assert pulse.problem() is None

    def test_a_run_whose_caller_has_gone_says_nothing(self, pulse: Pulse, clock: Clock) -> None:
        with pytest.raises(asyncio.CancelledError), pulse.watching():
            raise asyncio.CancelledError
        clock.now_s = 20
        assert (pulse.problem(), pulse.needs_test(20)) == (None, True)


class Engine:
    """Stands in for an engine that can be made to fail, and to stand still."""

    runtime = CPU
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()

    def __init__(self) -> None:
        self.runs: list[int] = []
        self.go = threading.Event()
        self.go.set()
        self.failing = False
        self.holds = [0, 255]  # of clips of these colours it waits until it may go

    def run(self, inputs: Inputs) -> Outputs:
        colour = int(inputs["frames"][0, 0])
        self.runs.append(colour)
        assert colour not in self.holds or self.go.wait(timeout=30)
        if self.failing:
            raise InferenceFailed("the device is gone")
        return Outputs(np.zeros((1, 1), np.float32), np.zeros((1, 1, 1), np.float32))

    def close(self) -> None:
        raise AssertionError("a batcher does not own its session")


@pytest.fixture(autouse=True)
def short_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_test, "TICK_S", 0.05)


@asynccontextmanager
async def watched(
    engine: Engine,
    *,
    idle_s: float = 0.05,
    limit_s: float = FOREVER_S,
    streams: int = 1,
    on_batch: Callable[[int], object] = id,
    on_failure: Callable[[], object] = lambda: None,
) -> AsyncIterator[WatchedBatcher]:
    with ThreadPoolExecutor(streams) as executor:
        side_by_side = Streams(engine, Pace(lone_s=1.0, together_s=1.0, streams=streams))
        batcher = Batcher(
            engine, side_by_side, Slots(streams), executor, sizes=[1], wait_s=0, on_batch=on_batch
        )
        watched = WatchedBatcher(
            batcher,
            name="stand-in",
            black_clip=BLACK,
            idle_s=idle_s,
            limit_s=limit_s,
            on_failure=on_failure,
        )
        watched.start()
        yield watched
        await watched.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that comes by itself, and soon."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_black_clip_runs_again_and_again_while_there_is_nothing_else_and_is_not_counted() -> None:
    engine, batches = Engine(), list[int]()
    async with watched(engine, on_batch=batches.append) as batcher:
        await until(lambda: len(engine.runs) == 3)
        await batcher.infer(WHITE)
    assert set(engine.runs[:3]) == {0}
    assert 255 in engine.runs
    assert batches == [1]


async def test_no_test_is_made_while_a_clip_is_on_its_way() -> None:
    engine = Engine()
    async with watched(engine) as batcher:
        with batcher.on_the_way():
            await asyncio.sleep(0.3)
            assert engine.runs == []
        await until(lambda: bool(engine.runs))


async def test_an_engine_that_fails_is_found_out_and_so_is_one_that_works_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = Engine()
    engine.failing = True
    failures: list[None] = []
    async with watched(engine, on_failure=lambda: failures.append(None)) as batcher:
        await until(lambda: batcher.problem() == "The last inference failed.")
        await until(lambda: len(failures) == 2)
        await until(lambda: "model stand-in does not answer: The last inference failed." in caplog.messages)
        engine.failing = False
        await until(lambda: batcher.problem() is None)


async def test_an_engine_that_stands_still_is_found_out_and_so_is_one_that_goes_on() -> None:
    engine = Engine()
    engine.go.clear()
    async with watched(engine, limit_s=0.1) as batcher:
        await until(lambda: str(batcher.problem()).startswith("An inference has not ended"))
        assert len(engine.runs) == 1  # the same test is still waited for
        engine.go.set()
        await until(lambda: batcher.problem() is None)


async def test_one_run_that_stands_still_is_found_out_and_counted_while_those_beside_it_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_times, "LEAST_BOUND_S", 0.1)
    engine, failures = Engine(), list[None]()
    async with watched(
        engine, idle_s=FOREVER_S, streams=2, on_failure=lambda: failures.append(None)
    ) as batcher:
        await batcher.infer(BLACK)
        engine.holds.remove(0)
        engine.go.clear()
        with batcher.on_the_way():  # so that it is not alone, and leaves a stream to others
            stuck = asyncio.create_task(batcher.infer(WHITE))
            await until(lambda: 255 in engine.runs)
        while batcher.problem() is None:
            await batcher.infer(BLACK)
        assert str(batcher.problem()).startswith("An inference has not ended")
        stuck.cancel()  # as by its deadline
        await until(lambda: len(failures) > 2)
        assert batcher.problem() is not None
        engine.go.set()
        await until(lambda: batcher.problem() is None)
    assert engine.runs.count(255) == 1


async def test_requests_that_a_stop_cuts_off_are_no_failures() -> None:
    engine, failures = Engine(), list[None]()
    engine.go.clear()
    async with watched(engine, idle_s=FOREVER_S, on_failure=lambda: failures.append(None)) as batcher:
        tasks = [asyncio.create_task(batcher.infer(WHITE)) for _ in range(3)]
        await until(lambda: bool(engine.runs))
        asyncio.get_running_loop().call_later(0.1, engine.go.set)
    await asyncio.wait(tasks)
    cut = [task for task in tasks if isinstance(task.exception(), NotReady)]
    assert len(cut) == 2
    assert failures == []


async def test_the_failure_of_a_callers_batch_is_found_out_and_a_test_ends_it() -> None:
    engine = Engine()
    async with watched(engine, idle_s=FOREVER_S) as batcher:
        engine.failing = True
        with pytest.raises(NotReady):
            await batcher.infer(WHITE)
        assert batcher.problem() == "The last inference failed."
        engine.failing = False
        await until(lambda: batcher.problem() is None)
    assert engine.runs[-1] == 0


async def test_no_readiness_without_inference(
    tiny_models: Path, red_clip: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Inputs) -> Outputs:
        raise InferenceFailed("the device is gone")

    app = create_app(load_settings({"models": tiny_models, "decode_workers": 1, "self_test_s": 0.1}))
    service: Lifecycle = app.state.service
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        await service.started()
        assert (await client.get("/readyz")).status_code == 200
        with monkeypatch.context() as broken:
            broken.setattr(service.recognizer.model("tiny").model.session, "run", fail)
            await until(lambda: not service.readiness()[0])
            probe, protocol = await client.get("/readyz"), await client.get("/v2/health/ready")
            refused = await client.post("/v1/classify", content=red_clip)
            metrics = (await client.get("/metrics")).text
        reason = "Model tiny does not answer: The last inference failed."
        assert (probe.status_code, probe.json()["detail"]) == (503, reason)
        assert (protocol.status_code, protocol.json()) == (503, {"error": reason})
        assert (refused.status_code, refused.json()["code"]) == (503, "not_ready")
        assert re.search(r'blvnet_self_test_failures_total{model="tiny"} [1-9]', metrics)
        await until(lambda: service.readiness()[0])
        assert (await client.post("/v1/classify", content=red_clip)).status_code == 200


def test_a_real_service_tests_itself_and_does_not_count_it(tiny_models: Path) -> None:
    with running_server(tiny_models, SELF_TEST_S=0.1) as server:
        server.wait_for(lambda: len(told_tests(server.log)) >= 2, "tests")
        assert server.is_ready()
        assert server.metric("blvnet_batch_size_count", model="tiny") == 0
        assert server.metric("blvnet_self_test_failures_total", model="tiny") == 0
        assert server.metric("blvnet_stage_seconds_count", stage="inference", model="tiny") == 0


def told_tests(log: list[dict[str, object]]) -> list[dict[str, object]]:
    return [line for line in log if str(line.get("event")).startswith("model tiny was tested")]
