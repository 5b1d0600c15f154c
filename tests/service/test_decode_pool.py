from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from types import ModuleType
from typing import Any

import pytest

from service import decode_pool
from service.clip.decode import decode_clip
from service.clip.video import DecodeLimits
from service.decode_pool import DecodePool, PoolState
from service.errors import BadRequest, NotAVideo, NotReady, OverLimit, RequestError, Undecodable
from service.observer import Observer, RestartReason
from service.pool_worker import PoolWorker
from tests.clips import numbered_clip, read_numbers
from tests.long_clips import long_clip
from tests.tiny_models import TWO_STREAMS

pytestmark = pytest.mark.anyio

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


async def test_a_worker_gives_the_very_frames_that_decoding_gives_here() -> None:
    expected = decode_clip(SHORT_CLIP, TWO_STREAMS, clips=2, crops=3)
    async with running() as (pool, _):
        decoded = await pool.decode(SHORT_CLIP, TWO_STREAMS, LIMITS, clips=2, crops=3)
    assert (decoded.video, decoded.indices) == (expected.video, expected.indices)
    assert decoded.timestamps_s == expected.timestamps_s
    assert decoded.inputs.keys() == expected.inputs.keys()
    for name, frames in expected.inputs.items():
        assert decoded.inputs[name].shape == frames.shape
        assert (decoded.inputs[name] == frames).all()


async def test_frames_outlive_the_pool_and_the_next_clip() -> None:
    async with running() as (pool, _):
        first = await pool.decode(numbered_clip(frames=8), TWO_STREAMS, LIMITS)
        await decode_short(pool)
    assert read_numbers(first.inputs["little"][0]) == [0, 2, 4, 6]


async def test_a_clip_comes_as_bytes_path_or_open_file(tmp_path: Path) -> None:
    path = tmp_path / "clip"
    path.write_bytes(SHORT_CLIP)
    with TemporaryFile() as unlinked:
        unlinked.write(SHORT_CLIP)
        unlinked.flush()
        async with running() as (pool, _):
            for clip in (SHORT_CLIP, path, unlinked):
                decoded = await pool.decode(clip, TWO_STREAMS, LIMITS)
                assert decoded.indices == ((2, 7, 12, 17, 22, 27, 32, 37),)


async def test_what_cannot_be_opened_is_the_callers_fault_and_costs_no_worker(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    async with running() as (pool, recorder):
        for clip in (tmp_path / "nothing", tmp_path, tmp_path / "pipe"):
            with pytest.raises(BadRequest):
                await pool.decode(clip, TWO_STREAMS, LIMITS)
        await decode_short(pool)
    assert not recorder.restarts


@pytest.mark.parametrize(
    ("clip", "limits", "error"),
    [
        (b"this is text", LIMITS, NotAVideo),
        (SHORT_CLIP[: len(SHORT_CLIP) // 2], LIMITS, Undecodable),
        (SHORT_CLIP, DecodeLimits(max_frames=10), OverLimit),
    ],
    ids=["no video", "cut in half", "over a limit"],
)
async def test_a_refusal_comes_through_and_costs_no_worker(
    clip: bytes, limits: DecodeLimits, error: type[RequestError]
) -> None:
    async with running() as (pool, recorder):
        before = pool.pids
        with pytest.raises(error):
            await pool.decode(clip, TWO_STREAMS, limits)
        await decode_short(pool)
        assert pool.pids == before
    assert not recorder.restarts


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


async def test_a_decode_is_stopped_when_its_caller_has_gone() -> None:
    async with running() as (pool, recorder):
        before = pool.pids
        task = await decoding_long(pool)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await decode_short(pool)
        assert pool.pids.isdisjoint(before)
        (gone,) = before
        await until(lambda: not Path(f"/proc/{gone}").exists())
    assert recorder.restarts == {RestartReason.CANCELLED: 1}


async def test_a_worker_that_is_nearly_done_is_kept_when_its_caller_has_gone() -> None:
    async with running() as (pool, recorder):
        before = pool.pids
        task = asyncio.create_task(pool.decode(SHORT_CLIP, TWO_STREAMS, LIMITS))
        await asyncio.sleep(0)
        assert pool.busy_pids == before
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await decode_short(pool)
        assert pool.pids == before
    assert not recorder.restarts


async def test_a_clip_that_waits_and_whose_caller_has_gone_takes_no_worker() -> None:
    async with running() as (pool, recorder):
        long = await decoding_long(pool)
        waiting = asyncio.create_task(decode_short(pool))
        await until(lambda: pool.waiting == 1)
        waiting.cancel()
        await until(lambda: pool.waiting == 0)
        long.cancel()
        await decode_short(pool)
    assert waiting.cancelled()
    assert recorder.restarts == {RestartReason.CANCELLED: 1}


async def test_clips_wait_their_turn_and_say_how_long() -> None:
    async with running() as (pool, _):
        decoded = await asyncio.gather(*(decode_short(pool) for _ in range(6)))
    assert decoded[0].queue_ms < decoded[-1].queue_ms
    assert decoded[-1].queue_ms >= sum(one.decode_ms for one in decoded[1:-1]) * 0.5


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


async def test_a_clip_that_needs_more_memory_than_there_is_is_undecodable() -> None:
    async with running(memory_mb=64) as (pool, _):
        with pytest.raises(Undecodable, match="more memory than is allowed"):
            await pool.decode(long_clip(), TWO_STREAMS, LIMITS)
        await decode_short(pool)


async def test_a_worker_is_in_its_cage() -> None:
    async with running(memory_mb=500) as (pool, _):
        await decode_short(pool)
        (pid,) = pool.pids
        process = Path(f"/proc/{pid}")
        status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
        assert status["NoNewPrivs"] == "1"
        for number in (signal.SIGTERM, signal.SIGINT):  # sent to all processes at once; the service decides
            assert int(status["SigIgn"], 16) & 1 << number - 1
        assert (status["Seccomp"], pool.fences) == ("2", ("seccomp", "landlock"))
        if os.geteuid() == 0:
            assert set(status["Uid"].split()) == {"65534"}
            assert int(status["CapEff"], 16) == 0
        assert (process / "cwd").readlink().name.endswith("(deleted)")
        assert list((process / "cwd").iterdir()) == []
        limits = (process / "limits").read_text().splitlines()
        hard = {line[:26].strip(): line[26:].split()[1] for line in limits[1:]}
        assert hard["Max file size"] == hard["Max core file size"] == "0"
        assert hard["Max open files"] == "16"
        assert 500e6 < int(hard["Max address space"]) < 1500e6
        assert {(process / "fd" / str(stream)).readlink() for stream in range(3)} == {Path(os.devnull)}
        names = [os.readlink(link) for link in (process / "fd").iterdir()]  # noqa: PTH115
        assert sorted(name.partition(":")[0] for name in names) == ["/dev/null"] * 3 + ["socket"]


async def test_a_worker_does_not_load_the_program_that_started_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = ModuleType("__main__")
    program.__file__ = str(tmp_path / "program.py")
    Path(program.__file__).write_text("import onnxruntime")
    monkeypatch.setitem(sys.modules, "__main__", program)
    async with running() as (pool, _):
        await decode_short(pool)
        (pid,) = pool.pids
        mapped = Path(f"/proc/{pid}/maps").read_text()
    assert "libavcodec" in mapped
    assert "onnxruntime" not in mapped


async def test_closing_stops_what_runs_and_what_waits() -> None:
    async with running() as (pool, recorder):
        pids = pool.pids
        busy = await decoding_long(pool)
        waiting = asyncio.create_task(decode_short(pool))
        await until(lambda: pool.waiting == 1)
        await pool.close()
        for task in (busy, waiting):
            with pytest.raises(NotReady):
                await task
        with pytest.raises(NotReady):
            await decode_short(pool)
        assert (pool.state, pool.workers) == (PoolState.CLOSED, 0)
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert not recorder.restarts


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


async def test_nothing_is_left_of_many_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_pool, "CLIPS_PER_WORKER", 3)
    async with running(workers=2) as (pool, recorder):

        async def round_of_clips() -> None:
            for _ in range(5):
                clips = [asyncio.create_task(decode_short(pool)) for _ in range(8)]
                clips += [asyncio.create_task(pool.decode(b"text", TWO_STREAMS, LIMITS))]
                await asyncio.sleep(0.01)
                clips[0].cancel()
                for pid in list(pool.pids)[:1]:
                    os.kill(pid, signal.SIGKILL)
                await asyncio.gather(*clips, return_exceptions=True)
            await until(lambda: pool.workers == 2)

        await asyncio.create_task(round_of_clips())
        gc.collect()  # what asyncio leaves behind
        (fork_server,) = {parent_of(pid) for pid in pool.pids}
        await until(lambda: children_of(fork_server) == pool.pids)
        await asyncio.sleep(0.1)  # for the news of the last one's end
        before = held(os.getpid()), held(fork_server)
        await asyncio.create_task(round_of_clips())
        gc.collect()
        await until(lambda: (held(os.getpid()), held(fork_server)) == before)
        assert set(recorder.restarts) >= {RestartReason.KILLED, RestartReason.RECYCLED}
    assert not children_of(fork_server)


def held(pid: int) -> Counter[str]:
    """Kinds of open descriptors of a process, and its mappings of shared memory."""
    kinds: Counter[str] = Counter()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that the listing itself takes
            kinds[os.readlink(link).partition(":")[0]] += 1  # noqa: PTH115 - what it names is no path
    kinds["mapped"] = Path(f"/proc/{pid}/maps").read_text().count("memfd:")
    return kinds


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def children_of(pid: int) -> set[int]:
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
