"""Workers that die, are killed, hang or have done enough: what becomes of their clips."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.errors import OverLimit, Undecodable
from service.observer import RestartReason
from service.workers import decode_pool
from service.workers.decode_pool import DecodePool
from service.workers.pool_worker import PoolWorker
from tests.long_clips import long_clip
from tests.service.pools import (
    LIMITS,
    SHORT_CLIP,
    STOPPED_S,
    Recorder,
    children_of,
    decode_short,
    decoding_long,
    kill_busy,
    parent_of,
    running,
    stopped_in_mid_clip,
    until,
)
from tests.tiny_models import TWO_STREAMS

pytestmark = pytest.mark.anyio


async def test_a_clip_that_takes_too_long_is_over_a_limit_and_its_worker_is_replaced() -> None:
    async with running(timeout_s=2) as (pool, recorder):
        before = pool.pids
        with pytest.raises(OverLimit) as caught:
            await pool.decode(long_clip(), TWO_STREAMS, LIMITS)
        assert (caught.value.limit, caught.value.maximum) == ("decode_s", 2)
        assert caught.value.value >= 2
        await decode_short(pool)
        assert pool.pids.isdisjoint(before)
    assert recorder.restarts == {RestartReason.TIMEOUT: 1}


async def test_a_worker_that_dies_of_a_clip_costs_that_clip_only() -> None:
    async with running(workers=2) as (pool, recorder):
        before = pool.pids
        doomed = await decoding_long(pool)
        others = [asyncio.create_task(decode_short(pool)) for _ in range(4)]
        await asyncio.gather(*others)
        (victim,) = pool.busy_pids
        os.kill(victim, signal.SIGSEGV)
        with pytest.raises(Undecodable, match="broke off"):
            await doomed
        await until(lambda: pool.workers == 2)
        assert len(pool.pids & before) == 1
        await asyncio.gather(*(decode_short(pool) for _ in range(4)))
    assert recorder.restarts == {RestartReason.CRASHED: 1}


async def test_a_clip_whose_worker_is_killed_is_decoded_by_another_and_before_those_that_wait() -> None:
    async with running() as (pool, recorder):
        clip = await stopped_in_mid_clip(pool)
        waiting = [asyncio.create_task(decode_short(pool)) for _ in range(3)]
        await until(lambda: pool.waiting == 3)
        kill_busy(pool)
        decoded = await clip
        assert not any(task.done() for task in waiting)
        assert decoded.decode_ms >= STOPPED_S * 1e3  # the time that it lost is told
        await asyncio.gather(*waiting)
        assert pool.workers == 1
    assert recorder.restarts == {RestartReason.KILLED: 1}


async def test_a_clip_of_which_two_workers_were_killed_is_not_tried_a_third_time() -> None:
    async with running() as (pool, recorder):
        clip = asyncio.create_task(pool.decode(long_clip(), TWO_STREAMS, LIMITS))
        for number in range(2):
            await until(lambda: len(pool.busy_pids) == 1 and recorder.restarts.total() == number)  # noqa: B023
            kill_busy(pool)
        with pytest.raises(Undecodable, match="broke off"):
            await clip
        await decode_short(pool)
    assert recorder.restarts == {RestartReason.KILLED: 2}


async def test_a_second_try_ends_with_its_caller() -> None:
    async with running() as (pool, recorder):
        clip = asyncio.create_task(pool.decode(long_clip(), TWO_STREAMS, LIMITS))
        await until(lambda: bool(pool.busy_pids))
        kill_busy(pool)
        await until(lambda: recorder.restarts.total() == 1 and bool(pool.busy_pids))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(clip, 0.3)
        await decode_short(pool)
    assert recorder.restarts == {RestartReason.KILLED: 1, RestartReason.CANCELLED: 1}


async def test_a_worker_that_dies_idle_is_replaced_before_a_clip_meets_it() -> None:
    async with running() as (pool, recorder):
        (pid,) = pool.pids
        os.kill(pid, signal.SIGKILL)
        await until(lambda: recorder.restarts.total() == 1)
        await decode_short(pool)
        assert pid not in pool.pids
    assert recorder.restarts == {RestartReason.KILLED: 1}


async def test_a_clip_that_meets_a_dead_worker_is_decoded_by_the_next() -> None:
    async with running() as (pool, recorder):
        (pid,) = pool.pids
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)  # dead, and the event loop has not had the time to see it
        await decode_short(pool)
    assert recorder.restarts == {RestartReason.KILLED: 1}  # as it was, not what a refused clip looks like


async def test_a_worker_that_is_killed_before_it_is_ready_is_followed_at_once_by_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decode_pool, "RESPAWN_PAUSE_S", 25.0)  # longer than is waited for here
    killed: list[int] = []
    until_ready = PoolWorker.ready

    async def ready(worker: PoolWorker) -> None:
        if len(killed) == 1:
            killed.append(worker.pid)
            os.kill(worker.pid, signal.SIGKILL)
        await until_ready(worker)

    async with running() as (pool, recorder):
        monkeypatch.setattr(PoolWorker, "ready", ready)
        killed.extend(pool.pids)
        os.kill(killed[0], signal.SIGKILL)
        await until(lambda: pool.workers == 1 and pool.pids.isdisjoint(killed) and not pool.failing)
        assert len(killed) == 2
    assert recorder.restarts == {RestartReason.KILLED: 1}


async def test_all_workers_come_back_when_the_server_of_forks_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_SECRET", "hunter2")
    async with running(workers=2) as (pool, recorder):
        (fork_server,) = {parent_of(pid) for pid in pool.pids}
        assert parent_of(fork_server) == os.getpid()
        os.kill(fork_server, signal.SIGKILL)
        await until(lambda: recorder.restarts.total() == 2)
        await asyncio.gather(*(decode_short(pool) for _ in range(4)))
        await until(lambda: pool.workers == 2)
        assert "SOME_SECRET" not in environments(pool.pids)
    assert os.environ["SOME_SECRET"] == "hunter2"


def environments(pids: frozenset[int]) -> str:
    """What the processes were started with."""
    return "".join(Path(f"/proc/{pid}/environ").read_text() for pid in pids)


async def test_a_worker_is_recycled_after_its_number_of_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_pool, "CLIPS_PER_WORKER", 3)
    async with running() as (pool, recorder):
        pids: list[int] = []
        for _ in range(7):
            await until(lambda: pool.workers == 1)
            pids += pool.pids
            await decode_short(pool)
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]
    assert recorder.restarts == {RestartReason.RECYCLED: 2}


async def test_a_start_that_is_called_off_leaves_no_process() -> None:
    async with running() as (other, _):
        (fork_server,) = {parent_of(pid) for pid in other.pids}
        pool = DecodePool(workers=2, timeout_s=1, memory_mb=512, cores=1, observer=Recorder())
        start = asyncio.create_task(pool.start())
        await asyncio.sleep(0)
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        await pool.close()
        assert children_of(fork_server) == other.pids


async def test_a_pool_is_whole_again_after_every_worker_was_killed_at_once() -> None:
    async with running(workers=3) as (pool, recorder):
        before = pool.pids
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        await until(lambda: recorder.restarts.total() == 3 and pool.workers == 3)
        assert pool.pids.isdisjoint(before)
    assert recorder.restarts == {RestartReason.KILLED: 3}


async def test_a_worker_that_raises_what_it_should_not_is_replaced() -> None:
    nonsense: Any = "no way of sampling"
    async with running() as (pool, recorder):
        with pytest.raises(Undecodable, match="broke off"):
            await pool.decode(SHORT_CLIP, replace(TWO_STREAMS, sampling=nonsense), LIMITS)
        await decode_short(pool)
    assert recorder.restarts == {RestartReason.ERROR: 1}
