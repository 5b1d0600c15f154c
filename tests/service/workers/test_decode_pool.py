"""The decode pool: results, queueing, cancellation, and what it leaves behind."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from types import ModuleType

import pytest

from service.clip.decoding.clips import decode_video
from service.clip.spec import ClipSpec, Frames, InputSpec
from service.clip.video import DecodeLimits
from service.errors import BadRequest, NotAVideo, NotReady, OverLimit, RequestError, Undecodable
from service.observer import RestartReason
from service.packages.manifest import MAX_FRAMES
from service.pipeline.classification import MAX_CLIPS
from service.workers import supervisor
from service.workers.decode_pool import PoolState
from tests.service.pools import (
    LIMITS,
    SHORT_CLIP,
    busy_pids,
    children_of,
    decode_short,
    decoding_long,
    parent_of,
    pids,
    running,
    until,
)
from tests.support.clips import numbered_clip, read_numbers
from tests.support.long_clips import long_clip
from tests.support.tiny_models import TWO_STREAMS

pytestmark = pytest.mark.anyio


async def test_a_worker_decodes_the_same_frames_as_this_process() -> None:
    expected = decode_video(SHORT_CLIP, TWO_STREAMS, clips=2, crops=3)
    async with running() as (pool, _):
        decoded = await pool.decode(SHORT_CLIP, TWO_STREAMS, LIMITS, clips=2, crops=3)
    assert (decoded.video, decoded.indices) == (expected.video, expected.indices)
    assert decoded.timestamps_s == expected.timestamps_s
    assert decoded.inputs.keys() == expected.inputs.keys()
    for name, frames in expected.inputs.items():
        assert decoded.inputs[name].shape == frames.shape
        assert (decoded.inputs[name] == frames).all()


async def test_the_most_frames_and_clips_fit_into_an_answer() -> None:
    spec = ClipSpec(MAX_FRAMES, (InputSpec("frames", Frames.ALL, 8, 8),))
    clip = numbered_clip(frames=70, rate=30)  # times with many digits
    async with running() as (pool, recorder):
        decoded = await pool.decode(clip, spec, LIMITS, clips=MAX_CLIPS)
    assert {len(times) for times in decoded.timestamps_s} == {MAX_FRAMES}
    assert not recorder.restarts


async def test_frames_stay_valid_after_the_next_video_and_the_pool() -> None:
    async with running() as (pool, _):
        first = await pool.decode(numbered_clip(frames=8), TWO_STREAMS, LIMITS)
        await decode_short(pool)
    assert read_numbers(first.inputs["little"][0]) == [0, 2, 4, 6]


async def test_a_video_can_be_bytes_a_path_or_an_open_file(tmp_path: Path) -> None:
    path = tmp_path / "clip"
    path.write_bytes(SHORT_CLIP)
    with TemporaryFile() as unlinked:
        unlinked.write(SHORT_CLIP)
        unlinked.flush()
        async with running() as (pool, _):
            for clip in (SHORT_CLIP, path, unlinked):
                decoded = await pool.decode(clip, TWO_STREAMS, LIMITS)
                assert decoded.indices == ((2, 7, 12, 17, 22, 27, 32, 37),)


async def test_a_path_that_cannot_be_opened_is_a_bad_request_and_costs_no_worker(tmp_path: Path) -> None:
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
async def test_errors_of_decoding_reach_the_caller_and_cost_no_worker(
    clip: bytes, limits: DecodeLimits, error: type[RequestError]
) -> None:
    async with running() as (pool, recorder):
        before = pids(pool)
        with pytest.raises(error):
            await pool.decode(clip, TWO_STREAMS, limits)
        await decode_short(pool)
        assert pids(pool) == before
    assert not recorder.restarts


async def test_cancelling_stops_the_worker() -> None:
    async with running() as (pool, recorder):
        before = pids(pool)
        task = await decoding_long(pool)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await decode_short(pool)
        assert pids(pool).isdisjoint(before)
        (gone,) = before
        await until(lambda: not Path(f"/proc/{gone}").exists())
    assert recorder.restarts == {RestartReason.CANCELLED: 1}


async def test_a_worker_that_finishes_soon_after_cancellation_is_kept() -> None:
    async with running() as (pool, recorder):
        before = pids(pool)
        task = asyncio.create_task(pool.decode(SHORT_CLIP, TWO_STREAMS, LIMITS))
        await asyncio.sleep(0)
        assert busy_pids(pool) == before
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await decode_short(pool)
        assert pids(pool) == before
    assert not recorder.restarts


async def test_a_cancelled_caller_in_the_queue_takes_no_worker() -> None:
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


async def test_videos_are_decoded_in_order_and_report_their_waiting_time() -> None:
    async with running() as (pool, _):
        decoded = await asyncio.gather(*(decode_short(pool) for _ in range(6)))
    assert decoded[0].queue_ms < decoded[-1].queue_ms
    assert decoded[-1].queue_ms >= sum(one.decode_ms for one in decoded[1:-1]) * 0.5


async def test_a_video_that_exceeds_the_memory_limit_is_undecodable() -> None:
    async with running(memory_mb=64) as (pool, _):
        with pytest.raises(Undecodable, match="more memory than is allowed"):
            await pool.decode(long_clip(), TWO_STREAMS, LIMITS)
        await decode_short(pool)


async def test_a_worker_is_in_its_sandbox() -> None:
    async with running(memory_mb=500) as (pool, _):
        await decode_short(pool)
        (pid,) = pids(pool)
        process = Path(f"/proc/{pid}")
        status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
        assert status["NoNewPrivs"] == "1"
        for number in (signal.SIGTERM, signal.SIGINT):  # sent to all processes; the service decides
            assert int(status["SigIgn"], 16) & 1 << number - 1
        assert (status["Seccomp"], pool.sandbox) == ("2", ("seccomp", "landlock"))
        if os.geteuid() == 0:
            assert set(status["Uid"].split()) == {"65534"}
            assert int(status["CapEff"], 16) == 0
        assert (process / "cwd").readlink().name.endswith("(deleted)")
        with pytest.raises((FileNotFoundError, ProcessLookupError)):
            list((process / "cwd").iterdir())
        assert (process / "oom_score_adj").read_text() == "1000\n"  # the kernel ends it before the service
        limits = (process / "limits").read_text().splitlines()
        hard = {line[:26].strip(): line[26:].split()[1] for line in limits[1:]}
        assert hard["Max file size"] == hard["Max core file size"] == "0"
        assert hard["Max open files"] == "16"
        assert 500e6 < int(hard["Max address space"]) < 1500e6
        assert {(process / "fd" / str(stream)).readlink() for stream in range(3)} == {Path(os.devnull)}
        names = [os.readlink(link) for link in (process / "fd").iterdir()]  # noqa: PTH115
        assert sorted(name.partition(":")[0] for name in names) == ["/dev/null"] * 3 + ["socket"]


async def test_a_worker_does_not_import_the_main_module_of_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = ModuleType("__main__")
    program.__file__ = str(tmp_path / "program.py")
    Path(program.__file__).write_text("import onnxruntime")
    monkeypatch.setitem(sys.modules, "__main__", program)
    async with running() as (pool, _):
        await decode_short(pool)
        (pid,) = pids(pool)
        mapped = Path(f"/proc/{pid}/maps").read_text()
    assert "libavcodec" in mapped
    assert "onnxruntime" not in mapped


async def test_closing_ends_workers_and_refuses_callers_that_wait() -> None:
    async with running() as (pool, recorder):
        before = pids(pool)
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
        assert not any(Path(f"/proc/{pid}").exists() for pid in before)
    assert not recorder.restarts


async def test_many_videos_leak_no_descriptors_memory_or_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "REQUESTS_PER_WORKER", 3)
    async with running(workers=2) as (pool, recorder):

        async def round_of_clips() -> None:
            for _ in range(5):
                clips = [asyncio.create_task(decode_short(pool)) for _ in range(8)]
                clips += [asyncio.create_task(pool.decode(b"text", TWO_STREAMS, LIMITS))]
                await asyncio.sleep(0.01)
                clips[0].cancel()
                for pid in list(pids(pool))[:1]:
                    os.kill(pid, signal.SIGKILL)
                await asyncio.gather(*clips, return_exceptions=True)
            await until(lambda: pool.workers == 2)

        await asyncio.create_task(round_of_clips())
        gc.collect()  # exceptions that refer to tasks
        (fork_server,) = {parent_of(pid) for pid in pids(pool)}
        await until(lambda: children_of(fork_server) == pids(pool))
        await asyncio.sleep(0.1)  # for the exit status of the last one
        before = held(os.getpid()), held(fork_server)
        await asyncio.create_task(round_of_clips())
        gc.collect()
        await until(lambda: (held(os.getpid()), held(fork_server)) == before)
        assert set(recorder.restarts) >= {RestartReason.KILLED, RestartReason.RECYCLED}
    assert not children_of(fork_server)


def held(pid: int) -> Counter[str]:
    """A process's open descriptors by kind, and its mappings of shared memory."""
    kinds: Counter[str] = Counter()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # the descriptor of the listing itself
            kinds[os.readlink(link).partition(":")[0]] += 1  # noqa: PTH115 - what it names is no path
    kinds["mapped"] = Path(f"/proc/{pid}/maps").read_text().count("memfd:")
    return kinds
