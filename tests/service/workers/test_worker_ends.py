"""Workers that crash, are killed, hang or are recycled, and what happens to their videos."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.contextvars import bound_contextvars, get_contextvars

from service.clip.spec import Sampling
from service.errors import OverLimit, Overloaded, Undecodable
from service.observer import RestartReason
from service.workers import decode_pool, supervisor
from service.workers.decode_pool import DecodePool
from service.workers.pool_worker import PoolWorker
from tests.service.pools import (
    LIMITS,
    SHORT_CLIP,
    STOPPED_S,
    Recorder,
    busy_pids,
    children_of,
    decode_short,
    decoding_long,
    kill_busy,
    parent_of,
    pids,
    running,
    stopped_while_decoding,
    until,
)
from tests.support.long_clips import long_clip
from tests.support.tiny_models import TWO_STREAMS

pytestmark = pytest.mark.anyio


async def test_a_video_that_uses_up_its_processor_time_is_over_a_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decode_pool, "WALL_TIME_FACTOR", 20.0)  # other processes may be busy
    async with running(timeout_s=2) as (pool, recorder):
        before = pids(pool)
        with pytest.raises(OverLimit) as caught:
            await pool.decode(long_clip(), TWO_STREAMS, LIMITS)
        assert (caught.value.limit, caught.value.value, caught.value.maximum) == ("decode_s", 2, 2)
        await decode_short(pool)
        assert pids(pool).isdisjoint(before)
    assert recorder.restarts == {RestartReason.CPU_LIMIT: 1}


async def test_a_machine_that_is_busy_for_longer_than_the_timeout_refuses_no_video() -> None:
    async with running(timeout_s=1) as (pool, recorder):
        decoding = await stopped_while_decoding(pool)
        await asyncio.sleep(1.2)  # the machine does other work
        for pid in pids(pool):
            os.kill(pid, signal.SIGCONT)
        assert (await decoding).decode_ms > 1200
    assert not recorder.restarts


async def test_a_video_on_a_machine_without_a_free_core_may_be_sent_again() -> None:
    async with running(timeout_s=0.2) as (pool, recorder):
        decoding = await stopped_while_decoding(pool)
        with pytest.raises(Overloaded, match="too busy") as caught:
            await decoding
        assert caught.value.retry_after_s > 0
        await decode_short(pool)
    assert recorder.restarts == {RestartReason.TIMEOUT: 1}


async def test_a_crash_fails_only_the_video_that_caused_it() -> None:
    async with running(workers=2) as (pool, recorder):
        before = pids(pool)
        doomed = await decoding_long(pool)
        others = [asyncio.create_task(decode_short(pool)) for _ in range(4)]
        await asyncio.gather(*others)
        (victim,) = busy_pids(pool)
        os.kill(victim, signal.SIGSEGV)
        with pytest.raises(Undecodable, match="broke off"):
            await doomed
        await until(lambda: pool.workers == 2)
        assert len(pids(pool) & before) == 1
        await asyncio.gather(*(decode_short(pool) for _ in range(4)))
    assert recorder.restarts == {RestartReason.CRASHED: 1}


async def test_a_video_whose_worker_is_killed_goes_to_another_ahead_of_the_queue() -> None:
    async with running() as (pool, recorder):
        clip = await stopped_while_decoding(pool)
        waiting = [asyncio.create_task(decode_short(pool)) for _ in range(3)]
        await until(lambda: pool.waiting == 3)
        kill_busy(pool)
        decoded = await clip
        assert not any(task.done() for task in waiting)
        assert decoded.decode_ms >= STOPPED_S * 1e3  # includes the time on the first worker
        await asyncio.gather(*waiting)
        assert pool.workers == 1
    assert recorder.restarts == {RestartReason.KILLED: 1}


async def test_a_video_whose_workers_were_killed_twice_can_be_sent_again_later() -> None:
    async with running() as (pool, recorder):
        clip = asyncio.create_task(pool.decode(long_clip(), TWO_STREAMS, LIMITS))
        for number in range(2):
            await until(lambda: len(busy_pids(pool)) == 1 and recorder.restarts.total() == number)  # noqa: B023
            kill_busy(pool)
        with pytest.raises(Overloaded, match="were killed") as caught:
            await clip
        assert caught.value.retry_after_s > 0
        await decode_short(pool)
    assert recorder.restarts == {RestartReason.KILLED: 2}


async def test_a_second_attempt_can_be_cancelled() -> None:
    async with running() as (pool, recorder):
        clip = asyncio.create_task(pool.decode(long_clip(), TWO_STREAMS, LIMITS))
        await until(lambda: bool(busy_pids(pool)))
        kill_busy(pool)
        await until(lambda: recorder.restarts.total() == 1 and bool(busy_pids(pool)))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(clip, 0.3)
        await decode_short(pool)
    assert recorder.restarts == {RestartReason.KILLED: 1, RestartReason.CANCELLED: 1}


async def test_a_worker_that_is_killed_while_idle_is_replaced() -> None:
    async with running() as (pool, recorder):
        (pid,) = pids(pool)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: recorder.restarts.total() == 1)
        await decode_short(pool)
        assert pid not in pids(pool)
    assert recorder.restarts == {RestartReason.KILLED: 1}


async def test_a_video_that_is_handed_to_a_dead_worker_goes_to_the_next() -> None:
    async with running() as (pool, recorder):
        (pid,) = pids(pool)
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)  # the event loop has not noticed yet
        await decode_short(pool)
    assert recorder.restarts == {RestartReason.KILLED: 1}  # the true reason


async def test_a_worker_that_is_killed_before_it_is_ready_is_replaced_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "RESTART_PAUSE_S", 25.0)  # longer than the test waits
    killed: list[int] = []
    until_ready = PoolWorker.ready

    async def ready(worker: PoolWorker) -> None:
        if len(killed) == 1:
            killed.append(worker.pid)
            os.kill(worker.pid, signal.SIGKILL)
        await until_ready(worker)

    async with running() as (pool, recorder):
        monkeypatch.setattr(PoolWorker, "ready", ready)
        killed.extend(pids(pool))
        os.kill(killed[0], signal.SIGKILL)
        await until(
            lambda: pool.workers == 1 and pids(pool).isdisjoint(killed) and not pool._supervisor.failing
        )
        assert len(killed) == 2
    assert recorder.restarts == {RestartReason.KILLED: 1}


async def test_all_workers_are_replaced_when_the_fork_server_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_SECRET", "hunter2")
    async with running(workers=2) as (pool, recorder):
        (fork_server,) = {parent_of(pid) for pid in pids(pool)}
        assert parent_of(fork_server) == os.getpid()
        os.kill(fork_server, signal.SIGKILL)
        await until(lambda: recorder.restarts.total() == 2)
        await asyncio.gather(*(decode_short(pool) for _ in range(4)))
        await until(lambda: pool.workers == 2)
        assert "SOME_SECRET" not in environments(pids(pool))
    assert os.environ["SOME_SECRET"] == "hunter2"


def environments(pids: frozenset[int]) -> str:
    """The environments with which the processes were started."""
    return "".join(Path(f"/proc/{pid}/environ").read_text() for pid in pids)


async def test_a_worker_is_recycled_after_a_number_of_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "REQUESTS_PER_WORKER", 3)
    async with running() as (pool, recorder):
        served: list[int] = []
        for _ in range(7):
            await until(lambda: pool.workers == 1)
            served += pids(pool)
            await decode_short(pool)
    assert [served.count(pid) for pid in dict.fromkeys(served)] == [3, 3, 1]
    assert recorder.restarts == {RestartReason.RECYCLED: 2}


async def test_a_cancelled_start_leaves_no_process() -> None:
    async with running() as (other, _):
        (fork_server,) = {parent_of(pid) for pid in pids(other)}
        pool = DecodePool(workers=2, timeout_s=1, memory_mb=512, cores=1, observer=Recorder())
        start = asyncio.create_task(pool.start())
        await asyncio.sleep(0)
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        await pool.close()
        assert children_of(fork_server) == pids(other)


async def test_all_workers_are_replaced_after_being_killed_at_once() -> None:
    async with running(workers=3) as (pool, recorder):
        before = pids(pool)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        await until(lambda: recorder.restarts.total() == 3 and pool.workers == 3)
        assert pids(pool).isdisjoint(before)
    assert recorder.restarts == {RestartReason.KILLED: 3}


async def test_a_worker_with_an_unexpected_exception_is_replaced() -> None:
    impossible = replace(TWO_STREAMS, sampling=Sampling.DENSE, stride=0)
    async with running() as (pool, recorder):
        with pytest.raises(Undecodable, match="broke off"):
            await pool.decode(SHORT_CLIP, impossible, LIMITS)
        await decode_short(pool)
    assert recorder.restarts == {RestartReason.ERROR: 1}


async def test_messages_about_a_worker_do_not_name_the_request_that_started_it() -> None:
    contexts: list[dict[str, object]] = []

    class ContextRecorder(Recorder):
        def worker_restart(self, reason: RestartReason) -> None:
            super().worker_restart(reason)
            contexts.append(get_contextvars())

    async with running(recorder=ContextRecorder()) as (pool, _):
        with bound_contextvars(request_id="of an earlier request"):
            worker = await pool.acquire_dedicated()
        os.kill(worker.pid, signal.SIGKILL)
        await until(lambda: bool(contexts))
    assert contexts == [{}]
