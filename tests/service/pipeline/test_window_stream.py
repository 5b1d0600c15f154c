"""Windows from a real worker: correctness, limits, and release after cancellation."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.clip.decoding.windows import decode_windows
from service.clip.spec import ClipSpec, Frames, InputSpec
from service.clip.video import DecodeLimits
from service.clip.windowing import WindowRule
from service.errors import BadRequest, NotAVideo, NotReady, OverLimit, Overloaded, Undecodable
from service.observer import RestartReason
from service.pipeline.window_stream import SLOTS, DecodedWindow, WindowStream, windows_of
from service.workers.decode_pool import DecodePool
from service.workers.supervisor import DEDICATED_NICENESS
from tests.service.clip.decoding.test_windows import Collected
from tests.service.pools import decode_short, dedicated_pids, pids, running, until
from tests.support.clips import numbered_clip, read_numbers
from tests.support.long_clips import long_clip
from tests.support.tiny_models import TWO_STREAMS

pytestmark = pytest.mark.anyio

VIDEO = numbered_clip(frames=300, rate=10)
EACH_SECOND = WindowRule.of(1, 1)
LARGE = ClipSpec(8, (InputSpec("frames", Frames.ALL, 128, 128),))
FOREVER_S = 3600.0


@asynccontextmanager
async def streaming(
    pool: DecodePool,
    clip: Any = VIDEO,
    rule: WindowRule = EACH_SECOND,
    limits: DecodeLimits | None = None,
    spec: ClipSpec = TWO_STREAMS,
) -> AsyncIterator[WindowStream]:
    async with windows_of(pool, clip, spec, rule, limits or DecodeLimits(), FOREVER_S) as stream:
        yield stream


async def all_of(stream: WindowStream) -> list[DecodedWindow]:
    windows: list[DecodedWindow] = []
    while taken := await stream.take():
        assert len(taken) <= SLOTS
        windows += taken
    return windows


async def filled(stream: WindowStream) -> list[DecodedWindow]:
    """Take the first windows, then wait until all slots are full and the worker waits."""
    first = await stream.take()
    assert stream._attempt is not None
    await until(lambda: stream._attempt is not None and len(stream._attempt.ready) == SLOTS)
    return first


async def test_worker_returns_the_windows_of_decoding_in_this_process() -> None:
    expected = Collected(TWO_STREAMS)
    decode_windows(VIDEO, TWO_STREAMS, WindowRule.of(1.5, 0.7), expected)
    async with running() as (pool, recorder), streaming(pool, rule=WindowRule.of(1.5, 0.7)) as stream:
        windows = await all_of(stream)
        await asyncio.sleep(0.1)
        assert not recorder.restarts
        assert stream.result is not None
        assert (stream.result.windows, stream.result.video.frames) == (len(windows), 300)
    assert len(windows) == len(expected.taken) == 42
    for window, taken, inputs in zip(windows, expected.taken, expected.inputs, strict=True):
        assert window.sample == taken
        assert all(np.array_equal(window.inputs[name], inputs[name]) for name in inputs)
        assert window.decode_ms >= 0


async def test_clips_have_priority_over_a_timeline() -> None:
    async with running(workers=1) as (pool, _), streaming(pool) as stream:
        await filled(stream)
        (dedicated,) = dedicated_pids(pool)
        assert dedicated not in pids(pool)
        assert (
            os.getpriority(os.PRIO_PROCESS, dedicated)
            == os.getpriority(os.PRIO_PROCESS, 0) + DEDICATED_NICENESS
        )
        await decode_short(pool)


async def test_worker_of_an_unread_timeline_waits_without_a_timeout() -> None:
    async with running(timeout_s=0.5) as (pool, recorder), streaming(pool) as stream:
        windows = await filled(stream)
        await asyncio.sleep(1)
        windows += await all_of(stream)
        assert [read_numbers(window.inputs["little"][0])[0] // 10 for window in windows] == list(range(30))
    assert not recorder.restarts


async def test_unresponsive_worker_is_killed_and_the_client_may_retry() -> None:
    async with running(timeout_s=1) as (pool, recorder):
        async with streaming(pool) as stream:
            await filled(stream)
            (pid,) = dedicated_pids(pool)
            os.kill(pid, signal.SIGSTOP)
            with pytest.raises(Overloaded, match="too busy"):
                await all_of(stream)
        await decode_short(pool)
    assert recorder.restarts == {RestartReason.TIMEOUT: 1}


async def test_slow_windows_do_not_time_out() -> None:
    async with running(timeout_s=1.2) as (pool, recorder):
        async with streaming(pool, long_clip(400), WindowRule.of(600, 600)) as stream:
            decoding = asyncio.create_task(all_of(stream))
            await until(lambda: bool(dedicated_pids(pool)))
            (pid,) = dedicated_pids(pool)
            # Simulate a slow machine: the total pause exceeds the time limit without progress.
            for _ in range(7):
                os.kill(pid, signal.SIGSTOP)
                await asyncio.sleep(0.2)
                os.kill(pid, signal.SIGCONT)
                await asyncio.sleep(0.1)  # for a sign of life, also on a busy machine
            (window,) = await decoding
        assert window.decode_ms > 1200
    assert not recorder.restarts


async def test_cancelled_stream_ends_its_worker_at_once() -> None:
    async with running() as (pool, recorder):
        async with streaming(pool, long_clip(), WindowRule.of(60, 60)) as stream:
            task = asyncio.create_task(stream.take())
            await until(lambda: bool(dedicated_pids(pool)))
            await asyncio.sleep(0.3)
            (pid,) = dedicated_pids(pool)
            task.cancel()
            await asyncio.wait([task])
        await until(lambda: not dedicated_pids(pool))
        assert not Path(f"/proc/{pid}").exists()
    assert not recorder.restarts


async def test_stream_cancelled_during_its_start_leaves_no_worker() -> None:
    async with running() as (pool, _):
        async with streaming(pool) as stream:
            task = asyncio.create_task(stream.take())
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        await until(lambda: not dedicated_pids(pool) and not pool._supervisor._starting)


async def test_stream_survives_one_killed_worker() -> None:
    async with running() as (pool, recorder), streaming(pool) as stream:
        windows = await filled(stream)
        kill(pool)
        await until(lambda: recorder.restarts.total() == 1)
        windows += await all_of(stream)
        assert [window.sample.window.number for window in windows] == list(range(30))
        assert all(
            tuple(read_numbers(window.inputs["little"][0])) == window.sample.indices[::2]
            for window in windows
        )


async def test_second_killed_worker_ends_the_stream() -> None:
    async with running() as (pool, recorder), streaming(pool) as stream:
        for _ in range(2):
            await filled(stream)
            kill(pool)
            await until(lambda: not dedicated_pids(pool))
            await stream.take()  # the killed worker
        with pytest.raises(Overloaded, match="were killed"):
            await stream.take()
    assert recorder.restarts == {RestartReason.KILLED: 2}


def kill(pool: DecodePool) -> None:
    (pid,) = dedicated_pids(pool)
    os.kill(pid, signal.SIGKILL)


async def test_crashed_worker_ends_the_timeline_after_its_windows() -> None:
    async with running() as (pool, recorder), streaming(pool) as stream:
        windows = await filled(stream)
        (pid,) = dedicated_pids(pool)
        os.kill(pid, signal.SIGSEGV)
        await until(lambda: recorder.restarts.total() == 1)
        windows += await stream.take()
        assert [window.sample.window.number for window in windows] == list(range(len(windows)))
        with pytest.raises(Undecodable, match="broke off"):
            await stream.take()
    assert recorder.restarts == {RestartReason.CRASHED: 1}


async def test_closing_the_pool_ends_the_stream() -> None:
    async with running() as (pool, recorder):
        async with streaming(pool) as stream:
            await filled(stream)
            await pool.close()
            with pytest.raises(NotReady):
                await all_of(stream)
        assert not dedicated_pids(pool)
        async with streaming(pool) as stream:
            with pytest.raises(NotReady):
                await stream.take()
    assert not recorder.restarts


@pytest.mark.parametrize(
    ("clip", "limits", "error"),
    [
        (b"this is text", DecodeLimits(), NotAVideo),
        (Path("/nowhere"), DecodeLimits(), BadRequest),
        (VIDEO, DecodeLimits(max_windows=29), OverLimit),
    ],
)
async def test_refused_stream_has_no_worker(clip: Any, limits: DecodeLimits, error: type[Exception]) -> None:
    async with running() as (pool, recorder):
        async with streaming(pool, clip, limits=limits) as stream:
            with pytest.raises(error):
                await stream.take()
        await until(lambda: not dedicated_pids(pool))
    assert not recorder.restarts


async def test_memory_does_not_depend_on_the_number_of_windows() -> None:
    async with running() as (pool, _), streaming(pool, spec=LARGE) as stream:
        count = len(await filled(stream))
        early_kb = memory_kb(pool)
        while count < 28:
            count += len(await stream.take())
        assert memory_kb(pool) < early_kb + 4000  # the frames of all windows are 12,000


def memory_kb(pool: DecodePool) -> int:
    (pid,) = dedicated_pids(pool)
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1])
