from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from service.engines.concurrency import ConcurrentSession, LatencyProfile
from service.engines.providers import open_session
from service.engines.session import InferenceFailed, Inputs, Outputs, Session, Tensor
from service.errors import NotReady
from service.packages.manifest import GRAPH_FILE
from service.pipeline.batching.batcher import Batcher, BatcherState, Inference
from service.pipeline.batching.health import InferenceHealth
from service.pipeline.batching.slots import Slots
from tests.support.engines import CPU
from tests.support.tiny_models import GAIN, ONE_STREAM, TinyModel, write_package

pytestmark = pytest.mark.anyio

FOREVER_S = 3600.0


class EchoSession:
    """Returns the first number of every row; tests can delay a batch or make it fail."""

    runtime = CPU
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()
        self.go.set()
        self.started = threading.Event()
        self.failure: Exception | None = None

    def run(self, inputs: Inputs) -> Outputs:
        rows = inputs["frames"][:, 0]
        self.batches.append(rows.tolist())
        self.started.set()
        assert self.go.wait(timeout=30)
        if self.failure:
            raise self.failure
        return Outputs(rows[:, None].astype(np.float32), rows[:, None, None].astype(np.float32))

    def close(self) -> None:
        raise AssertionError("a batcher does not own its session")


def rows(*numbers: int) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    return {"frames": np.array(numbers, np.uint8)[:, None]}


def logits(result: Inference) -> list[float]:
    return [float(value) for value in result.outputs.logits[:, 0]]


@asynccontextmanager
async def serving(
    session: Session,
    concurrent: ConcurrentSession | None = None,
    slots: Slots | None = None,
    *,
    sizes: Sequence[int] = range(1, 5),
    wait_s: float = 0.0,
    on_batch: Callable[[int], object] = id,
    on_failure: Callable[[], object] = lambda: None,
) -> AsyncIterator[Batcher]:
    slots = slots or Slots(1)
    with ThreadPoolExecutor(slots.total) as executor:
        batcher = Batcher(
            session,
            concurrent,
            slots,
            executor,
            sizes=sizes,
            wait_s=wait_s,
            on_batch=on_batch,
            health=InferenceHealth(FOREVER_S),
            on_failure=on_failure,
        )
        batcher.start()
        yield batcher
        await batcher.close()
    assert slots.free == slots.total


@asynccontextmanager
async def two_forms(most_rows: int = 1) -> AsyncIterator[tuple[Batcher, EchoSession, EchoSession]]:
    """A batcher on two slots with both configurations of a graph; `go` releases each run."""
    whole, single = EchoSession(), EchoSession()
    whole.go.clear()
    single.go.clear()
    concurrent = ConcurrentSession(single, LatencyProfile(1.0, 1.6, concurrency=2))
    async with serving(whole, concurrent, Slots(2), sizes=range(1, most_rows + 1)) as batcher:
        yield batcher, whole, single
        whole.go.set()
        single.go.set()


@asynccontextmanager
async def held_back(
    session: EchoSession, sizes: Sequence[int] = range(1, 5)
) -> AsyncIterator[Callable[..., asyncio.Task[Inference]]]:
    """A batcher whose session runs row 0 during the block; yields a function to submit more rows."""
    session.go.clear()
    async with serving(session, sizes=sizes) as batcher:
        tasks = [asyncio.create_task(batcher.infer(rows(0)))]
        await asyncio.to_thread(session.started.wait)

        def submit(*numbers: int) -> asyncio.Task[Inference]:
            tasks.append(asyncio.create_task(batcher.infer(rows(*numbers))))
            return tasks[-1]

        yield submit
        await settle()
        session.go.set()
        await asyncio.wait(tasks)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition becomes true."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


async def settle() -> None:
    """Run the event loop until all tasks wait."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_batcher_runs_a_real_graph(tmp_path: Path) -> None:
    folder = write_package(tmp_path, model=TinyModel(ONE_STREAM))
    session = open_session(folder / GRAPH_FILE, "cpu", threads=1)
    clips = [np.full((1, *ONE_STREAM.inputs[0].shape(8)), value, np.uint8) for value in (0, 51, 255)]
    async with serving(session) as batcher:
        results = await asyncio.gather(*(batcher.infer({"frames": clip}) for clip in clips))
    tops = [float(result.outputs.logits[0, 0]) for result in results]
    assert tops == pytest.approx([0, GAIN / 5, GAIN])


async def test_batcher_keeps_nothing_of_an_answered_clip() -> None:
    """Otherwise an idle service would keep the memory of the last batch."""
    async with serving(EchoSession()) as batcher:
        clip = rows(1)
        memory = weakref.ref(clip["frames"])
        await batcher.infer(clip)
        del clip
        await settle()
        assert memory() is None


async def test_waiting_requests_share_a_batch_and_get_their_own_rows() -> None:
    session = EchoSession()
    async with held_back(session) as submit:
        tasks = [submit(1), submit(2, 3), submit(4)]
    assert [logits(task.result()) for task in tasks] == [[1], [2, 3], [4]]
    assert session.batches == [[0], [1, 2, 3, 4]]


async def test_a_batch_is_no_larger_than_the_limit_and_requests_are_split_over_batches() -> None:
    session = EchoSession()
    async with held_back(session) as submit:
        large, small = submit(*range(1, 7)), submit(7, 8, 9)
    assert session.batches == [[0], [1, 2, 3, 4], [7, 8, 9, 5], [6]]
    assert logits(large.result()) == [1, 2, 3, 4, 5, 6]
    assert logits(small.result()) == [7, 8, 9]


async def test_request_with_many_rows_does_not_delay_others() -> None:
    session = EchoSession()
    async with held_back(session) as submit:
        submit(*range(1, 13)), submit(20), submit(30)
    assert session.batches == [[0], [1, 2, 3, 4], [20, 30, 5, 6], [7, 8, 9, 10], [11, 12]]


async def test_single_request_uses_all_threads_and_slots() -> None:
    async with two_forms() as (batcher, whole, single):
        first = asyncio.create_task(batcher.infer(rows(1)))
        await asyncio.to_thread(whole.started.wait)
        second = asyncio.create_task(batcher.infer(rows(2)))
        await settle()
        assert (batcher.state, batcher.waiting) == (BatcherState.QUEUED, 1)
        whole.go.set()
        assert [logits(result) for result in await asyncio.gather(first, second)] == [[1], [2]]
    assert (whole.batches, single.batches) == ([[1], [2]], [])


async def test_several_requests_run_concurrently_on_one_thread_each() -> None:
    async with two_forms() as (batcher, whole, single):
        tasks = [asyncio.create_task(batcher.infer(rows(number))) for number in (1, 2, 3)]
        await asyncio.to_thread(single.started.wait)
        await until(lambda: len(single.batches) == 2)  # the third waits for one of them
        assert (batcher.waiting, whole.batches) == (1, [])
        whole.go.set()  # for the third one, if it waits alone
        single.go.set()
        assert [logits(await task) for task in tasks] == [[1], [2], [3]]


async def test_one_request_of_several_rows_spreads_over_the_streams_and_keeps_their_order() -> None:
    async with two_forms(most_rows=4) as (batcher, whole, single):
        task = asyncio.create_task(batcher.infer(rows(1, 2, 3, 4, 5)))
        await until(lambda: len(single.batches) == 2)
        single.go.set()
        assert logits(await task) == [1, 2, 3, 4, 5]
    assert whole.batches == []
    assert single.batches == [[1, 2, 3], [4, 5]]


async def test_expected_request_counts_in_the_choice_of_the_form() -> None:
    async with two_forms() as (batcher, whole, single):
        single.go.set()
        with batcher.expect():
            await batcher.infer(rows(1))
        whole.go.set()
        await batcher.infer(rows(2))
    assert (single.batches, whole.batches) == ([[1]], [[2]])


async def test_models_share_the_slots_in_the_order_of_their_requests() -> None:
    slots, first, second = Slots(2), EchoSession(), EchoSession()
    first.go.clear()
    async with serving(first, slots=slots) as one, serving(second, slots=slots) as other:
        running = asyncio.create_task(one.infer(rows(1)))
        await asyncio.to_thread(first.started.wait)
        waiting = asyncio.create_task(other.infer(rows(2)))
        await settle()
        assert (second.batches, other.state) == ([], BatcherState.QUEUED)
        first.go.set()
        await asyncio.gather(running, waiting)
    assert second.batches == [[2]]


async def test_cancelled_request_lets_the_next_model_run() -> None:
    slots, first, second = Slots(2), EchoSession(), EchoSession()
    single = ConcurrentSession(EchoSession(), LatencyProfile(1.0, 1.0, 2))
    first.go.clear()
    async with serving(first, slots=slots) as one, serving(second, single, slots=slots) as other:
        assert slots.try_acquire(one, 1)  # one slot is in use
        whole = asyncio.create_task(one.infer(rows(1)))  # wants them both
        await settle()
        late = asyncio.create_task(other.infer(rows(2, 3)))  # one would do for each of these
        await settle()
        assert other.state is BatcherState.QUEUED
        whole.cancel()
        assert logits(await late) == [2, 3]
        slots.release(1)


async def test_every_batch_is_reported_with_its_size() -> None:
    session, sizes = EchoSession(), list[int]()
    async with serving(session, on_batch=sizes.append) as batcher:
        await batcher.infer(rows(1, 2, 3, 4, 5))
    assert sizes == [4, 1]


async def test_abandoned_request_is_not_run() -> None:
    session = EchoSession()
    async with held_back(session) as submit:
        tasks = [submit(1), submit(2), submit(3)]
        await settle()
        tasks[0].cancel()
        tasks[1].cancel()
    assert session.batches == [[0], [3]]


async def test_rest_of_an_abandoned_request_is_not_run() -> None:
    session = EchoSession()
    session.go.clear()
    async with serving(session) as batcher:
        large = asyncio.create_task(batcher.infer(rows(*range(1, 10))))
        await asyncio.to_thread(session.started.wait)
        large.cancel()
        session.go.set()
        assert logits(await batcher.infer(rows(77))) == [77]
    assert session.batches == [[1, 2, 3, 4], [77]]


async def test_single_request_does_not_wait() -> None:
    session = EchoSession()
    async with serving(session, wait_s=FOREVER_S) as batcher:
        assert logits(await batcher.infer(rows(1))) == [1]


async def test_request_waits_for_an_expected_one() -> None:
    session = EchoSession()
    async with serving(session, wait_s=FOREVER_S) as batcher:
        with batcher.expect():
            first = asyncio.create_task(batcher.infer(rows(1)))
            await settle()
            assert batcher.state is BatcherState.GATHERING
        await batcher.infer(rows(2))
        await first
    assert session.batches == [[1, 2]]


async def test_request_does_not_wait_for_an_expected_one_that_failed() -> None:
    session = EchoSession()
    async with serving(session, wait_s=FOREVER_S) as batcher:
        with batcher.expect():
            first = asyncio.create_task(batcher.infer(rows(1)))
            await settle()
        await first
    assert session.batches == [[1]]


async def test_full_batch_does_not_wait() -> None:
    session = EchoSession()
    async with serving(session, wait_s=FOREVER_S) as batcher:
        with batcher.expect():
            await batcher.infer(rows(1, 2, 3, 4))
    assert session.batches == [[1, 2, 3, 4]]


async def test_request_waits_at_most_the_configured_time() -> None:
    session = EchoSession()
    async with serving(session, wait_s=0.05) as batcher:
        with batcher.expect():
            result = await batcher.infer(rows(1))
    assert result.queue_ms >= 50


async def test_a_failing_engine_fails_its_batch_and_the_next_one_runs() -> None:
    session = EchoSession()
    session.failure = InferenceFailed("out of memory")
    async with serving(session) as batcher:
        with pytest.raises(NotReady, match="The inference failed"):
            await batcher.infer(rows(1))
        session.failure = None
        assert logits(await batcher.infer(rows(2))) == [2]


async def test_outputs_that_are_not_finite_are_a_failed_inference() -> None:
    class Overflowing(EchoSession):
        def run(self, inputs: Inputs) -> Outputs:
            outputs = super().run(inputs)
            outputs.logits[0] = np.nan
            return outputs

    failures: list[None] = []
    async with serving(Overflowing(), on_failure=lambda: failures.append(None)) as batcher:
        with pytest.raises(NotReady, match="The inference failed"):
            await batcher.infer(rows(1))
        assert batcher.health.problem() == "The last inference failed."
    assert len(failures) == 1


async def test_rows_keep_their_places_when_their_runs_end_in_another_order() -> None:
    second_ended = threading.Event()

    class LastFirst(EchoSession):
        def run(self, inputs: Inputs) -> Outputs:
            outputs = super().run(inputs)
            if outputs.logits[0, 0] == 1:
                assert second_ended.wait(timeout=30)
            else:
                second_ended.set()
            return outputs

    session = LastFirst()
    concurrent = ConcurrentSession(session, LatencyProfile(1.0, 1.0, 2))
    async with serving(session, concurrent, Slots(2)) as batcher:
        assert logits(await batcher.infer(rows(1, 2, 3, 4))) == [1, 2, 3, 4]
    assert session.batches == [[1, 2], [3, 4]]


async def test_a_request_of_many_rows_delays_another_model_by_one_run() -> None:
    slots, first, second = Slots(1), EchoSession(), EchoSession()
    first.go.clear()
    async with serving(first, slots=slots, sizes=[1]) as one, serving(second, slots=slots) as other:
        large = asyncio.create_task(one.infer(rows(*range(50))))
        await asyncio.to_thread(first.started.wait)
        small = asyncio.create_task(other.infer(rows(99)))
        await settle()
        first.go.set()
        await small
        assert len(first.batches) <= 3
        await large


async def test_waiting_model_continues_when_an_earlier_request_is_cancelled_and_repeated() -> None:
    slots, sessions = Slots(2), [EchoSession() for _ in range(3)]
    single = ConcurrentSession(EchoSession(), LatencyProfile(1.0, 1.0, 2))
    async with (
        serving(sessions[0], slots=slots) as whole,
        serving(sessions[1], single, slots=slots) as other,
    ):
        assert slots.try_acquire(whole, 1)  # one of two slots is in use
        oldest = asyncio.create_task(whole.infer(rows(1)))  # needs both
        await settle()
        waiting = asyncio.create_task(other.infer(rows(2, 3)))
        await settle()
        oldest.cancel()
        latest = asyncio.create_task(whole.infer(rows(4)))
        slots.release(1)
        assert logits(await waiting) == [2, 3]
        assert logits(await latest) == [4]


async def test_run_that_never_ends_does_not_block_other_models(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slots, stuck = Slots(1), EchoSession()
    stuck.go.clear()
    async with serving(stuck, slots=slots) as one, serving(EchoSession(), slots=slots) as other:
        running = asyncio.create_task(one.infer(rows(1)))
        await asyncio.to_thread(stuck.started.wait)
        waiting = asyncio.create_task(other.infer(rows(2)))
        one.release_stuck()
        await settle()
        assert not waiting.done()  # not overdue yet
        monkeypatch.setattr(InferenceHealth, "run_limit_s", 0.0)
        one.release_stuck()
        one.release_stuck()
        assert logits(await waiting) == [2]
        stuck.go.set()
        assert logits(await running) == [1]


async def test_unexpected_error_leaves_no_request_waiting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    session = EchoSession()
    session.failure = LookupError("nobody foresaw this")
    async with serving(session) as batcher:
        with pytest.raises(NotReady):
            await batcher.infer(rows(1))
        with pytest.raises(NotReady):
            await batcher.infer(rows(2))
        assert batcher.state is BatcherState.CLOSED
    assert "nobody foresaw this" in caplog.text


async def test_closing_finishes_the_running_batch_and_fails_the_waiting() -> None:
    session = EchoSession()
    session.go.clear()
    async with serving(session) as batcher:
        running = asyncio.create_task(batcher.infer(rows(1)))
        await asyncio.to_thread(session.started.wait)
        waiting = asyncio.create_task(batcher.infer(rows(2)))
        await settle()
        assert batcher.waiting == 1
        closing = asyncio.create_task(batcher.close())
        await settle()
        session.go.set()
        await closing
        assert logits(await running) == [1]
        with pytest.raises(NotReady):
            await waiting
        with pytest.raises(NotReady):
            await batcher.infer(rows(3))


async def test_times_are_split_into_waiting_and_running() -> None:
    session = EchoSession()
    async with held_back(session) as submit:
        waiting = submit(1)
        await settle()  # it waits from here on
        await asyncio.to_thread(partial(threading.Event().wait, 0.05))
    result = waiting.result()
    assert result.queue_ms >= 50
    assert 0 < result.inference_ms < result.queue_ms


async def test_runs_have_the_prepared_batch_sizes() -> None:
    session = EchoSession()
    async with held_back(session, sizes=(1, 2, 4)) as submit:
        tasks = [submit(number) for number in range(1, 7)] + [submit(7)]
    assert session.batches == [[0], [1, 2, 3, 4], [5, 6], [7]]
    assert [logits(task.result()) for task in tasks] == [[number] for number in range(1, 8)]
