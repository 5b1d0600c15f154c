"""Pools of real decode workers, and ways to keep one busy."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from service.clip.video import DecodeLimits
from service.observer import Observer, RestartReason
from service.workers.decode_pool import Decoded, DecodePool
from service.workers.pool_worker import PoolWorker, WorkerState
from tests.support.clips import numbered_clip
from tests.support.long_clips import long_clip
from tests.support.tiny_models import TWO_STREAMS

LIMITS = DecodeLimits()
SHORT_CLIP = numbered_clip(frames=40)
FOREVER_S = 3600.0
STOPPED_S = 0.1


class Recorder(Observer):
    """Counts the workers that were replaced."""

    def __init__(self) -> None:
        self.restarts: Counter[RestartReason] = Counter()

    def worker_restart(self, reason: RestartReason) -> None:
        self.restarts[reason] += 1


@asynccontextmanager
async def running(
    workers: int = 1, recorder: Recorder | None = None, **changes: Any
) -> AsyncIterator[tuple[DecodePool, Recorder]]:
    """A pool that is started, and closed at the end."""
    recorder = recorder or Recorder()
    settings: dict[str, Any] = {"timeout_s": FOREVER_S, "memory_mb": 1024, "cores": 1} | changes
    pool = DecodePool(workers=workers, observer=recorder, **settings)
    await pool.start()
    try:
        yield pool, recorder
    finally:
        await pool.close()


def pool_workers(pool: DecodePool) -> tuple[PoolWorker, ...]:
    """The workers that are alive and ready."""
    return pool._supervisor.pooled


def pids(pool: DecodePool) -> frozenset[int]:
    """Process ids of the workers that are alive and ready."""
    return frozenset(worker.pid for worker in pool_workers(pool))


def busy_pids(pool: DecodePool) -> frozenset[int]:
    """Process ids of the workers that decode."""
    return frozenset(worker.pid for worker in pool_workers(pool) if worker.state is not WorkerState.IDLE)


def dedicated_pids(pool: DecodePool) -> frozenset[int]:
    """Process ids of the dedicated workers that have not ended."""
    return frozenset(worker.pid for worker in pool._supervisor.dedicated)


async def decode_short(pool: DecodePool) -> Decoded:
    """Decode the short video, which has 40 frames."""
    decoded = await pool.decode(SHORT_CLIP, TWO_STREAMS, LIMITS)
    assert decoded.video.frames == 40
    return decoded


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds that needs no further action."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def decoding_long(pool: DecodePool) -> asyncio.Task[Decoded]:
    """A task that decodes a video and will take many more seconds."""
    task = asyncio.create_task(pool.decode(long_clip(), TWO_STREAMS, LIMITS))
    await until(lambda: bool(busy_pids(pool)))
    await asyncio.sleep(0.3)
    assert not task.done()
    return task


async def stopped_while_decoding(pool: DecodePool) -> asyncio.Task[Decoded]:
    """A task whose video is on the pool's only worker, which is stopped by SIGSTOP."""
    (pid,) = pids(pool)
    os.kill(pid, signal.SIGSTOP)
    task = asyncio.create_task(decode_short(pool))
    await until(lambda: bool(busy_pids(pool)))
    await asyncio.sleep(STOPPED_S)
    return task


def kill_busy(pool: DecodePool) -> None:
    """Kill the only worker that decodes."""
    (victim,) = busy_pids(pool)
    os.kill(victim, signal.SIGKILL)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def children_of(pid: int) -> set[int]:
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
