"""Readiness follows the results of inference, and of self-tests when the service is idle."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from service.engines.concurrency import ConcurrentSession, LatencyProfile
from service.engines.session import InferenceFailed, Inputs, Outputs, Tensor
from service.errors import NotReady
from service.http.app import create_app
from service.http.service import Service
from service.models.loading import Model
from service.pipeline.batching import health
from service.pipeline.batching.batcher import Batcher
from service.pipeline.batching.health import InferenceHealth
from service.pipeline.batching.slots import Slots
from service.pipeline.models import served_model
from service.pipeline.models.served_model import ServedModel
from service.settings import load_settings
from tests.support.engines import CPU
from tests.support.server import running_server

pytestmark = pytest.mark.anyio

FOREVER_S = 3600.0
BLACK: Inputs = {"frames": np.zeros((1, 1), np.uint8)}
WHITE: Inputs = {"frames": np.full((1, 1), 255, np.uint8)}


class Engine:
    """An engine that tests can make fail or block."""

    runtime = CPU
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()

    def __init__(self) -> None:
        self.runs: list[int] = []
        self.go = threading.Event()
        self.go.set()
        self.failing = False
        self.holds = [0, 255]  # blocks for clips of these colours

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
    monkeypatch.setattr(served_model, "TICK_S", 0.05)


@asynccontextmanager
async def serving(
    engine: Engine,
    *,
    idle_s: float = 0.05,
    limit_s: float = FOREVER_S,
    concurrency: int = 1,
    on_batch: Callable[[int], object] = id,
    on_failure: Callable[[], object] = lambda: None,
) -> AsyncIterator[ServedModel]:
    with ThreadPoolExecutor(concurrency) as executor:
        side_by_side = ConcurrentSession(engine, LatencyProfile(1.0, 1.0, concurrency))
        batcher = Batcher(
            engine,
            side_by_side,
            Slots(concurrency),
            executor,
            sizes=[1],
            wait_s=0,
            on_batch=on_batch,
            health=InferenceHealth(limit_s),
            on_failure=on_failure,
        )
        package = SimpleNamespace(name="stand-in", clip=None)
        model = Model(package, SimpleNamespace(session=engine))  # type: ignore[arg-type]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(served_model, "black_clip", lambda _: BLACK)
            served = ServedModel(model, batcher, idle_s=idle_s, limit_s=limit_s, on_failure=on_failure)
        served.start()
        yield served
        await served.close()


@asynccontextmanager
async def watched(engine: Engine, **options: Any) -> AsyncIterator[Batcher]:
    async with serving(engine, **options) as served:
        yield served.batcher


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition becomes true."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_idle_model_is_tested_repeatedly_and_tests_are_not_counted() -> None:
    engine, batches = Engine(), list[int]()
    async with watched(engine, on_batch=batches.append) as batcher:
        await until(lambda: len(engine.runs) == 3)
        await batcher.infer(WHITE)
    assert set(engine.runs[:3]) == {0}
    assert 255 in engine.runs
    assert batches == [1]


async def test_no_test_runs_while_a_clip_is_expected() -> None:
    engine = Engine()
    async with watched(engine) as batcher:
        with batcher.expect():
            await asyncio.sleep(0.3)
            assert engine.runs == []
        await until(lambda: bool(engine.runs))


async def test_failing_engine_and_its_recovery_are_detected(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = Engine()
    engine.failing = True
    failures: list[None] = []
    async with watched(engine, on_failure=lambda: failures.append(None)) as batcher:
        await until(lambda: batcher.health.problem() == "The last inference failed.")
        await until(lambda: len(failures) == 2)
        await until(lambda: "model stand-in does not answer: The last inference failed." in caplog.messages)
        engine.failing = False
        await until(lambda: batcher.health.problem() is None)


async def test_stuck_engine_and_its_recovery_are_detected() -> None:
    engine = Engine()
    engine.go.clear()
    async with watched(engine, limit_s=0.1) as batcher:
        await until(lambda: str(batcher.health.problem()).startswith("An inference has not ended"))
        assert len(engine.runs) == 1  # the same self-test is still running
        engine.go.set()
        await until(lambda: batcher.health.problem() is None)


async def test_stuck_run_is_detected_while_others_continue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health, "LEAST_BOUND_S", 0.1)
    engine, failures = Engine(), list[None]()
    async with watched(
        engine, idle_s=FOREVER_S, concurrency=2, on_failure=lambda: failures.append(None)
    ) as batcher:
        await batcher.infer(BLACK)
        engine.holds.remove(0)
        engine.go.clear()
        with batcher.expect():  # so that it does not run alone and leaves a session to others
            stuck = asyncio.create_task(batcher.infer(WHITE))
            await until(lambda: 255 in engine.runs)
        while batcher.health.problem() is None:
            await batcher.infer(BLACK)
        assert str(batcher.health.problem()).startswith("An inference has not ended")
        stuck.cancel()  # as by its deadline
        await until(lambda: len(failures) > 2)
        assert batcher.health.problem() is not None
        engine.go.set()
        await until(lambda: batcher.health.problem() is None)
    assert engine.runs.count(255) == 1


async def test_model_that_has_stopped_says_so() -> None:
    engine = Engine()
    async with serving(engine) as served:
        await until(lambda: bool(engine.runs))
        assert served.problem() is None
        engine.go = None  # type: ignore[assignment]  # a mistake in the code
        await until(lambda: served.problem() is not None)
        assert served.problem() == "Model stand-in has stopped."
        with pytest.raises(NotReady):
            await served.infer(WHITE)


async def test_requests_cancelled_by_a_stop_are_not_failures() -> None:
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


async def test_failed_batch_of_a_caller_is_detected_and_cleared_by_a_test() -> None:
    engine = Engine()
    async with watched(engine, idle_s=FOREVER_S) as batcher:
        engine.failing = True
        with pytest.raises(NotReady):
            await batcher.infer(WHITE)
        assert batcher.health.problem() == "The last inference failed."
        engine.failing = False
        await until(lambda: batcher.health.problem() is None)
    assert engine.runs[-1] == 0


async def test_not_ready_without_inference(
    tiny_models: Path, red_clip: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Inputs) -> Outputs:
        raise InferenceFailed("the device is gone")

    app = create_app(load_settings({"models": tiny_models, "decode_workers": 1, "self_test_s": 0.1}))
    service: Service = app.state.service
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        await service.started()
        assert (await client.get("/readyz")).status_code == 200
        with monkeypatch.context() as broken:
            broken.setattr(service.recognizer.models.registry.get("tiny").model.session, "run", fail)
            await until(lambda: service.recognizer.problem() is not None)
            probe, protocol = await client.get("/readyz"), await client.get("/v2/health/ready")
            refused = await client.post("/v1/classify", content=red_clip)
            metrics = (await client.get("/metrics")).text
        reason = "Model tiny does not answer: The last inference failed."
        assert (probe.status_code, probe.json()["detail"]) == (503, reason)
        assert (protocol.status_code, protocol.json()) == (503, {"error": reason})
        assert (refused.status_code, refused.json()["code"]) == (503, "not_ready")
        assert re.search(r'blvnet_self_test_failures_total{model="tiny"} [1-9]', metrics)
        await until(lambda: service.recognizer.problem() is None)
        assert (await client.post("/v1/classify", content=red_clip)).status_code == 200


def test_running_service_tests_itself_without_counting(tiny_models: Path) -> None:
    with running_server(tiny_models, SELF_TEST_S=0.1) as server:
        server.wait_for(lambda: len(told_tests(server.log)) >= 2, "tests")
        assert server.is_ready()
        assert server.metric("blvnet_batch_size_count", model="tiny") == 0
        assert server.metric("blvnet_self_test_failures_total", model="tiny") == 0
        assert server.metric("blvnet_stage_seconds_count", stage="inference", model="tiny") == 0


def told_tests(log: list[dict[str, object]]) -> list[dict[str, object]]:
    return [line for line in log if str(line.get("event")).startswith("model tiny was tested")]
