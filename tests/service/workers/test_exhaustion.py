"""Descriptors, processes and disk run out, and the pool recovers."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.errors import Overloaded
from service.observer import RestartReason
from service.workers import decode_pool
from service.workers.pool_worker import PoolWorker
from tests.service.pools import (
    LIMITS,
    SHORT_CLIP,
    decode_short,
    decoding_long,
    pids,
    pool_workers,
    running,
    stopped_while_decoding,
    until,
)
from tests.support.tiny_models import TWO_STREAMS

pytestmark = pytest.mark.anyio

FD_SETSIZE = 1024  # select() takes no higher descriptors


@contextmanager
def many_descriptors() -> Iterator[None]:
    """Have more than 1,024 descriptors open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4 * FD_SETSIZE), hard))
    descriptors = [os.open(os.devnull, os.O_RDONLY) for _ in range(FD_SETSIZE + 100)]
    assert max(descriptors) > FD_SETSIZE
    try:
        yield
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Have no descriptor left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_workers_are_killed_and_replaced_with_more_than_1024_descriptors() -> None:
    with many_descriptors():
        async with running(workers=2) as (pool, recorder):
            before = pids(pool)
            for pid in before:
                os.kill(pid, signal.SIGKILL)
            await until(lambda: recorder.restarts.total() == 2 and pool.workers == 2)
            assert pids(pool).isdisjoint(before)
            await decode_short(pool)
            (await decoding_long(pool)).cancel()
            await until(lambda: recorder.restarts[RestartReason.CANCELLED] == 1 and pool.workers == 2)
            await decode_short(pool)


async def test_without_descriptors_videos_are_refused_and_no_worker_is_lost() -> None:
    async with running(workers=2) as (pool, recorder):
        before = pids(pool)
        with no_descriptors():
            for _ in range(4):
                with pytest.raises(Overloaded, match="no descriptors or memory"):
                    await pool.decode(SHORT_CLIP, TWO_STREAMS, LIMITS)
        await asyncio.gather(*(decode_short(pool) for _ in range(4)))
        assert pids(pool) == before
    assert not recorder.restarts


async def test_an_unexpected_exception_loses_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    def defective(size: int) -> None:
        raise ZeroDivisionError

    async with running() as (pool, recorder):
        before = pids(pool)
        with monkeypatch.context() as patch:
            patch.setattr(decode_pool, "shared_memory", defective)
            with pytest.raises(ZeroDivisionError):
                await decode_short(pool)
        await decode_short(pool)
        assert pids(pool) == before
    assert not recorder.restarts


async def test_workers_that_end_without_descriptors_are_replaced_later() -> None:
    async with running() as (pool, _):
        (pid,) = pids(pool)
        with no_descriptors():
            os.kill(pid, signal.SIGKILL)
            await until(lambda: pool.problem() == "No decode worker starts.")
        await until(lambda: pool.workers == 1)
        await decode_short(pool)
        assert pool.problem() is None


@pytest.mark.parametrize(
    "error", [OSError("no processes"), RuntimeError("can't start new thread"), MemoryError()]
)
async def test_any_failure_to_start_a_worker_is_retried(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async with running() as (pool, recorder):
        start, failures = PoolWorker.start, [error, error]

        async def failing(
            memory_mb: int, on_change: Callable[[PoolWorker], None], niceness: int = 0
        ) -> PoolWorker:
            if failures:
                raise failures.pop()
            return await start(memory_mb, on_change, niceness)

        monkeypatch.setattr(PoolWorker, "start", failing)
        (pid,) = pids(pool)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: recorder.restarts.total() == 1 and pool.workers == 1)
        assert not failures
        await decode_short(pool)


async def test_a_worker_that_dies_between_reservation_and_request_costs_no_video(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as (pool, recorder):
        first = await stopped_while_decoding(pool)
        second = asyncio.create_task(decode_short(pool))
        await until(lambda: pool.waiting == 1)
        reserve = PoolWorker.reserve

        def reserve_and_die(worker: PoolWorker) -> None:
            monkeypatch.setattr(PoolWorker, "reserve", reserve)
            reserve(worker)
            worker.kill(RestartReason.KILLED)

        monkeypatch.setattr(PoolWorker, "reserve", reserve_and_die)
        (worker,) = pool_workers(pool)
        os.kill(worker.pid, signal.SIGCONT)
        await asyncio.gather(first, second)
    assert recorder.restarts == {RestartReason.KILLED: 1}


async def test_a_pool_whose_workers_never_become_idle_has_a_problem() -> None:
    now_s = 0.0
    async with running(timeout_s=10, clock=lambda: now_s) as (pool, _):
        stopped = await stopped_while_decoding(pool)
        impatient = asyncio.create_task(decode_short(pool))
        await until(lambda: pool.waiting == 1)
        now_s = 20
        impatient.cancel()
        assert pool.problem() is None  # a busy pool is not a problem
        now_s = 200
        assert pool.problem() == "No decode worker has become idle for 200 s."
        (worker,) = pool_workers(pool)
        os.kill(worker.pid, signal.SIGCONT)
        await stopped
        assert pool.problem() is None


WITHOUT_FILES = """
import resource, select
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
from service.workers.fork_server import FORK_SERVER
from service.workers.messages import read_worker_message
worker, channel = FORK_SERVER.start_worker(1024)
poll = select.poll()
poll.register(channel, select.POLLIN)
poll.poll(30_000)
print(read_worker_message(channel.recv(1000)))
channel.close()
worker.exit_status()
"""


def test_a_worker_starts_where_no_file_can_be_written(tmp_path: Path) -> None:
    """As on a full or read-only disk."""
    environment = os.environ | {"TMPDIR": str(tmp_path / "missing")}
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_FILES],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ended.stdout == "Ready(sandbox=('seccomp', 'landlock'))\n"
