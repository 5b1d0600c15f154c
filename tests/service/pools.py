"""Pools of real decode workers, and clips that keep one busy."""

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
from service.workers import decode_pool
from service.workers.decode_pool import DecodePool
from tests.clips import numbered_clip
from tests.long_clips import long_clip
from tests.tiny_models import TWO_STREAMS

LIMITS = DecodeLimits()
SHORT_CLIP = numbered_clip(frames=40)
FOREVER_S = 3600.0
STOPPED_S = 0.1


class Recorder(Observer):
    def __init__(self) -> None:
        self.restarts: Counter[RestartReason] = Counter()

    def worker_restart(self, reason: RestartReason) -> None:
        self.restarts[reason] += 1


@asynccontextmanager
async def running(workers: int = 1, **changes: Any) -> AsyncIterator[tuple[DecodePool, Recorder]]:
    recorder = Recorder()
    settings: dict[str, Any] = {"timeout_s": FOREVER_S, "memory_mb": 1024, "cores": 1} | changes
    pool = DecodePool(workers=workers, observer=recorder, **settings)
    await pool.start()
    try:
        yield pool, recorder
    finally:
        await pool.close()


async def decode_short(pool: DecodePool) -> decode_pool.Decoded:
    decoded = await pool.decode(SHORT_CLIP, TWO_STREAMS, LIMITS)
    assert decoded.video.frames == 40
    return decoded


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that comes by itself, and soon."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def decoding_long(pool: DecodePool) -> asyncio.Task[decode_pool.Decoded]:
    """A task that is in mid-clip, with many seconds to go."""
    task = asyncio.create_task(pool.decode(long_clip(), TWO_STREAMS, LIMITS))
    await until(lambda: bool(pool.busy_pids))
    await asyncio.sleep(0.3)
    assert not task.done()
    return task


async def stopped_in_mid_clip(pool: DecodePool) -> asyncio.Task[decode_pool.Decoded]:
    """A task whose clip is with the pool's only worker, which is stopped."""
    (pid,) = pool.pids
    os.kill(pid, signal.SIGSTOP)
    task = asyncio.create_task(decode_short(pool))
    await until(lambda: bool(pool.busy_pids))
    await asyncio.sleep(STOPPED_S)
    return task


def kill_busy(pool: DecodePool) -> None:
    (victim,) = pool.busy_pids
    os.kill(victim, signal.SIGKILL)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def children_of(pid: int) -> set[int]:
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
