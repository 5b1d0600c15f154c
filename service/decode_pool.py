"""Worker processes that decode clips, and what happens when one is slow, dies, or is no longer wanted.

Each worker is a pebble pool of one process: pebble starts it, hands it a task, notices its death and its
timeouts, and kills it. After anything out of the ordinary a worker is not repaired but replaced, so that no
worker is ever in a state that a fresh one could not be in.

    decode ──> idle worker ──> descriptors by socket, task by pebble ──> frames in shared memory
                   ^                                                        │
                   └──── released when all went well, else replaced <───────┘

A clip and its frames travel as file descriptors, so that the messages stay small and a worker needs no access
to any file.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import mmap
import os
import signal
import socket
import stat
import time
from collections import deque
from collections.abc import Coroutine, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pebble import ProcessExpired, ProcessPool

from service import decode_worker
from service.clip.spec import ClipSpec
from service.clip.threads import THREADS_PER_CORE
from service.clip.video import DecodeLimits, VideoInfo
from service.decode_worker import DecodeRequest, Found, Inbox, Place, places
from service.errors import BadRequest, BlvnetError, NotReady, OverLimit, RequestError, Undecodable
from service.observer import Observer, RestartReason
from service.worker_context import CONTEXT, start_fork_server

Clip = Path | bytes | BinaryIO
"""A clip's file, by path or open (it needs a descriptor), or its bytes."""

# A fork of the server costs some 10 ms, so workers can be short-lived: whatever a clip left behind in one
# (memory that FFmpeg did not give back, or worse) does not stay.
CLIPS_PER_WORKER = 200
START_TIMEOUT_S = 30.0
RESPAWN_PAUSE_S = 0.5
# A worker that nobody waits for any more is killed, but not when it is as good as done: most clips are, and a
# flood of callers who hang up should not cost a process each.
PATIENCE_S = 0.2
# More cores than this gained nothing on any clip, and their threads take address space.
MOST_THREADS = 4
# A worker may be found dead when a clip is handed to it; the clip is then for the next one.
HANDOVERS = 3
logger = logging.getLogger(__name__)


class PoolState(StrEnum):
    """The life of a pool."""

    NEW = "new"
    RUNNING = "running"
    CLOSED = "closed"


@dataclass(frozen=True)
class Decoded:
    """A clip's frames and what was found. See `service.clip.decode.DecodedClip` for the fields.

    `inputs` are views of memory that is given back when the last of them goes. `queue_ms` is the time for
    which no worker was free, `decode_ms` the time that one took, hand-over included.
    """

    inputs: Mapping[str, NDArray[np.uint8]]
    video: VideoInfo
    indices: tuple[tuple[int, ...], ...]
    timestamps_s: tuple[tuple[float, ...], ...]
    queue_ms: float
    decode_ms: float


class DecodePool:
    """A fixed number of decode workers, and the queue in front of them.

    Args:
        workers: processes.
        timeout_s: longest time for one clip.
        memory_mb: address space that decoding may take in a worker, in MB of 10^6 bytes.
        cores: what the machine has, to give a lone clip more than one thread.
        observer: told of every worker that is replaced.
    """

    def __init__(
        self, *, workers: int, timeout_s: float, memory_mb: int, cores: int, observer: Observer
    ) -> None:
        self._size = workers
        self._timeout_s = timeout_s
        self._memory_mb = memory_mb
        self._cores = cores
        self._observer = observer
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._waiters: deque[asyncio.Future[_Worker]] = deque()
        self._chores: set[asyncio.Task[None]] = set()
        self.state = PoolState.NEW
        self.failing = False  # the last worker that should have started did not

    @property
    def workers(self) -> int:
        """Processes that are alive and ready."""
        return len(self._idle) + len(self._busy)

    @property
    def pids(self) -> frozenset[int]:
        """Process ids of the workers that are alive and ready."""
        return frozenset(worker.pid for worker in (*self._idle, *self._busy))

    @property
    def busy_pids(self) -> frozenset[int]:
        """Process ids of those that are decoding."""
        return frozenset(worker.pid for worker in self._busy)

    @property
    def waiting(self) -> int:
        """Clips for which no worker is free."""
        return len(self._waiters)

    async def start(self) -> None:
        """Start all workers and wait until they are ready.

        Raises:
            BlvnetError: one does not start; the log says why.
        """
        self.state = PoolState.RUNNING
        start_fork_server()
        spawning = [self._do(self._adopt()) for _ in range(self._size)]
        await asyncio.wait(spawning)
        for failure in filter(None, (task.exception() for task in spawning)):
            await self.close()
            raise BlvnetError(f"decode workers do not start: {failure!r}") from failure
        logger.info("%d decode workers are ready", self.workers)

    async def decode(
        self, clip: Clip, spec: ClipSpec, limits: DecodeLimits, *, clips: int = 1, crops: int = 1
    ) -> Decoded:
        """Decode one clip. Cancelling frees the worker at once, in mid-clip if need be.

        Raises:
            RequestError: as `service.clip.decode.decode_clip`; `OverLimit` (`decode_s`) past the time limit;
                `Undecodable` if the worker died of the clip; `NotReady` when the pool closes.
        """
        waited_s = 0.0
        for _ in range(HANDOVERS):
            asked_s = time.monotonic()
            worker = await self._acquire()
            began_s = time.monotonic()
            waited_s += began_s - asked_s
            request = self._request(spec, limits, clips, crops)
            try:
                found, memory = await self._decode_on(worker, clip, request)
            except _NeverBegun:
                continue
            return Decoded(
                inputs={place.name: place.array(memory) for place in places(spec, request.views)},
                video=found.video,
                indices=found.indices,
                timestamps_s=found.timestamps_s,
                queue_ms=waited_s * 1e3,
                decode_ms=(time.monotonic() - began_s) * 1e3,
            )
        raise NotReady("The decode workers are being replaced.", RESPAWN_PAUSE_S)

    async def close(self) -> None:
        """Fail what waits, kill the workers, whatever they do, and wait for their end."""
        self.state = PoolState.CLOSED
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(_shutting_down())
        for worker in (*self._idle, *self._busy):
            self._do(self._stop(worker))
        self._idle.clear()
        self._busy.clear()
        while self._chores:
            await asyncio.wait(self._chores)

    def _request(self, spec: ClipSpec, limits: DecodeLimits, clips: int, crops: int) -> DecodeRequest:
        """Each clip may keep its share of the cores busy; how, see `service.clip.threads`."""
        threads = max(1, min(MOST_THREADS, self._cores // len(self._busy)))
        cpu_s = self._timeout_s * (
            THREADS_PER_CORE * threads + 1
        )  # our own clock is the first limit to be hit
        return DecodeRequest(spec, clips, crops, limits, threads, cpu_s)

    async def _decode_on(
        self, worker: _Worker, clip: Clip, request: DecodeRequest
    ) -> tuple[Found, mmap.mmap]:
        """Decode on `worker`, which is released or replaced afterwards, whatever happens."""
        began_s = time.monotonic()
        try:
            with _opened(clip) as clip_fd, _shared(places(request.spec, request.views)) as (fd, memory):
                task = worker.submit((clip_fd, fd), request, self._timeout_s)
        except RequestError:
            self._release(worker)
            raise
        except (OSError, RuntimeError) as exc:  # its socket or its pool is closed
            self._replace(worker, RestartReason.CRASHED)
            raise _NeverBegun from exc
        answer = asyncio.wrap_future(task)
        try:
            await asyncio.wait([answer])
        except asyncio.CancelledError:
            self._do(self._abandon(worker, answer))
            raise
        if answer.cancelled():
            raise _shutting_down()
        failure = answer.exception()
        if failure is None or isinstance(failure, RequestError):
            self._release(worker)
            return answer.result(), memory
        reason = _reason(failure)
        self._replace(worker, reason)
        raise self._verdict(reason, failure, time.monotonic() - began_s) from failure

    async def _abandon(self, worker: _Worker, answer: asyncio.Future[Found]) -> None:
        """Free a worker whose caller has gone."""
        await asyncio.wait([answer], timeout=PATIENCE_S)
        if self.state is PoolState.CLOSED:
            return
        if answer.done() and (answer.exception() is None or isinstance(answer.exception(), RequestError)):
            self._release(worker)
        else:
            self._replace(worker, RestartReason.CANCELLED)

    def _verdict(self, reason: RestartReason, failure: BaseException, took_s: float) -> Exception:
        """What a failure of the worker means for its clip."""
        if isinstance(failure, BrokenProcessPool):
            logger.warning("the way to a decode worker broke: %r", failure.__cause__ or failure)
            return _NeverBegun()
        if reason is RestartReason.TIMEOUT:
            return OverLimit("decode_s", took_s, self._timeout_s)
        if reason is RestartReason.ERROR:
            logger.error("a decode worker raised what it should not", exc_info=failure)
        return Undecodable("The decoder broke off on this video.")

    async def _acquire(self) -> _Worker:
        """A worker, now busy; first come, first served."""
        if self.state is not PoolState.RUNNING:
            raise _shutting_down()
        if self._idle:
            worker = self._idle.pop()
        else:
            waiter: asyncio.Future[_Worker] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                worker = await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._put_back(waiter.result())  # it came in the very moment of cancelling
                else:
                    self._waiters.remove(waiter)
                raise
        self._busy.add(worker)
        return worker

    def _release(self, worker: _Worker) -> None:
        """All went well: the worker takes the next clip, unless it has had its number of them."""
        if worker.served >= CLIPS_PER_WORKER:
            self._replace(worker, RestartReason.RECYCLED)
        else:
            self._busy.discard(worker)
            self._put_back(worker)

    def _put_back(self, worker: _Worker) -> None:
        """Hand an idle worker to the next one waiting."""
        if self.state is PoolState.CLOSED:
            self._do(self._stop(worker))
            return
        if worker.dead:
            self._replace(worker, RestartReason.KILLED)
            return
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(worker)
                return
        self._idle.append(worker)

    def _replace(self, worker: _Worker, reason: RestartReason) -> None:
        """Stop a worker for good and start another in its place."""
        self._busy.discard(worker)
        if worker in self._idle:
            self._idle.remove(worker)
        self._do(self._stop(worker))
        if self.state is PoolState.RUNNING:
            level = logging.DEBUG if reason is RestartReason.RECYCLED else logging.WARNING
            logger.log(level, "decode worker %d is replaced: %s", worker.pid, reason.value)
            self._observer.worker_restart(reason)
            self._do(self._respawn())

    async def _respawn(self) -> None:
        while self.state is PoolState.RUNNING:
            try:
                await self._adopt()
            except START_FAILURES as exc:
                self.failing = True
                logger.error("a decode worker does not start, trying again: %r", exc)
                await asyncio.sleep(RESPAWN_PAUSE_S)
            else:
                return

    async def _adopt(self) -> None:
        """Start a worker and let it take clips."""
        worker = await self._spawn()
        self.failing = False
        self._put_back(worker)

    async def _spawn(self) -> _Worker:
        worker = await asyncio.to_thread(_Worker, self._memory_mb)
        try:
            worker.pid = await asyncio.wrap_future(worker.ready())
        except START_FAILURES:
            await asyncio.to_thread(worker.stop)
            raise
        worker.detach()
        asyncio.get_running_loop().add_reader(worker.outbox, self._on_death, worker)
        return worker

    def _on_death(self, worker: _Worker) -> None:
        """The worker's end of the socket closed. If it was busy, pebble reports the exit code to its task."""
        asyncio.get_running_loop().remove_reader(worker.outbox)
        worker.dead = True
        if worker in self._idle:
            self._replace(worker, RestartReason.KILLED)

    async def _stop(self, worker: _Worker) -> None:
        asyncio.get_running_loop().remove_reader(worker.outbox)
        await asyncio.to_thread(worker.stop)

    def _do(self, chore: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine beside the requests; `close` waits for all of them."""
        task = asyncio.get_running_loop().create_task(chore)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)
        return task


class _Worker:
    """One worker process and the ways to reach it."""

    def __init__(self, memory_mb: int) -> None:
        start_fork_server()
        self.outbox, inbox = socket.socketpair()
        self._inbox = Inbox(inbox)
        self.served = 0
        self.dead = False
        self.pid = 0
        self._pool = ProcessPool(
            1,
            initializer=decode_worker.enter_cage,
            initargs=(self._inbox, memory_mb),
            context=CONTEXT,
        )
        self._ready: Future[int] = self._pool.schedule(decode_worker.ready, timeout=START_TIMEOUT_S)
        self._task: Future[Any] = self._ready

    def ready(self) -> Future[int]:
        """Done when the process is in its cage."""
        return self._ready

    def detach(self) -> None:
        """Close our copy of the worker's end of the socket: from now on its death closes it.

        That also keeps pebble from starting another process behind our back: it could not hand it the socket.
        """
        self._inbox.socket.close()

    def submit(self, descriptors: tuple[int, int], request: DecodeRequest, timeout_s: float) -> Future[Found]:
        """Send a clip and a place for its frames, and the task to go with them."""
        self.served += 1
        socket.send_fds(self.outbox, [b"\0"], descriptors)
        task: Future[Found] = self._pool.schedule(decode_worker.decode, args=(request,), timeout=timeout_s)
        self._task = task
        return task

    def stop(self) -> None:
        """Kill the process and wait for its end; blocks for a tenth of a second."""
        self._task.cancel()  # pebble forgets the tasks of a pool that is stopped
        self._pool.stop()  # type: ignore[no-untyped-call]  # pebble's types leave it out
        self._pool.join()
        self.outbox.close()
        self._inbox.socket.close()


# How it shows that a worker does not start: it died, and its pool could tell how or not; it took too long;
# there was no process, thread or socket to be had.
START_FAILURES = (ProcessExpired, BrokenProcessPool, TimeoutError, OSError, RuntimeError)


class _NeverBegun(Exception):
    """The worker was gone before it began, so its clip is as good as new."""


def _reason(failure: BaseException) -> RestartReason:
    match failure:
        case ProcessExpired(exitcode=code) if code == -signal.SIGKILL:
            return RestartReason.KILLED
        case ProcessExpired() | BrokenProcessPool():
            return RestartReason.CRASHED
        case TimeoutError():
            return RestartReason.TIMEOUT
        case _:
            return RestartReason.ERROR


def _shutting_down() -> NotReady:
    return NotReady("The service is shutting down.")


@contextmanager
def _opened(clip: Clip) -> Iterator[int]:
    """A descriptor of the clip with a position of its own, for reading only."""
    if isinstance(clip, bytes):
        descriptor = os.memfd_create("clip")
        with open(descriptor, "wb", closefd=False) as file:
            file.write(clip)
    else:
        path = clip if isinstance(clip, Path) else Path(f"/proc/self/fd/{clip.fileno()}")
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # or a named pipe would hold us up
        except OSError as exc:
            raise BadRequest(f"The clip cannot be opened: {exc.strerror}.") from exc
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise BadRequest("The clip is not a file.")
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _shared(layout: tuple[Place, ...]) -> Iterator[tuple[int, mmap.mmap]]:
    """Memory for the frames: a descriptor to send, and our read-only view of it, which outlives it.

    Its size is sealed: a worker that shrank it could make us touch memory that is gone, and die of it.
    """
    size = layout[-1].stop
    descriptor = os.memfd_create("frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size)
        fcntl.fcntl(
            descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        )
        yield descriptor, mmap.mmap(descriptor, size, prot=mmap.PROT_READ)
    finally:
        os.close(descriptor)
