"""The life of the service behind its HTTP interface, as a small state machine.

    STARTING ──models loaded──> SERVING ──drain()──> DRAINING ──stop()──> STOPPED
        └───── loading failed ──> FAILED

Requests that carry work pass through `admit`, which turns them away before SERVING and after, and knows those
that are under way, so that a shutdown can wait for them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from service.errors import BlvnetError, NotReady, Overloaded, PackageError
from service.http.memory_room import MemoryRoom
from service.keys import AdminKey, KeyRing
from service.metrics import Metrics
from service.pipeline.recognizer import Recognizer
from service.settings import Settings

# A slow upload is no work yet, so more may be received than worked on; each may hold a megabyte of memory.
UPLOADS_PER_PLACE = 4
RETRY_UPLOADS_S = 1.0
# Bodies of the largest size that may be in memory at once, where they have to be there as a whole.
BODIES_IN_MEMORY = 4

logger = logging.getLogger(__name__)


class State(StrEnum):
    """Where in its life the service is."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


class Lifecycle:
    """Owns the recognizer; the routes reach everything through it."""

    def __init__(self, settings: Settings, recognizer: Recognizer, metrics: Metrics) -> None:
        self.settings = settings
        self.recognizer = recognizer
        self.metrics = metrics
        self.keys = KeyRing(
            settings.api_keys, settings.key_requests_per_minute, settings.key_requests_at_once
        )
        self.admin_key = AdminKey(settings.admin_key)
        self.body_memory = MemoryRoom(BODIES_IN_MEMORY * settings.max_upload_bytes)
        self.state = State.STARTING
        self._failure: BlvnetError | None = None
        self._loaded = asyncio.Event()
        self._cut = False
        self._accepted: set[asyncio.Task[object]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._loading: asyncio.Task[None] | None = None
        self._rescanning: asyncio.Task[None] | None = None
        self._rescan_again = False

    def start(self) -> None:
        """Begin to load the models, in the background: `/healthz` and `/readyz` answer meanwhile."""
        self._loading = asyncio.create_task(self._load(), name="load models")

    async def _load(self) -> None:
        try:
            await self.recognizer.start()
            if self.state is State.STARTING:
                self._enter(State.SERVING)
        except BlvnetError as exc:
            self._failure = exc
            self._enter(State.FAILED, logging.ERROR)
            raise
        finally:
            self._loaded.set()

    async def started(self) -> None:
        """Wait until the models are loaded.

        Raises:
            BlvnetError: they cannot be; the service will never be ready.
        """
        await self._loaded.wait()
        assert self._loading is not None
        await asyncio.shield(self._loading)

    def readiness(self) -> tuple[bool, str]:
        """Whether work is accepted, and if not, why."""
        return self.recognizer.readiness() if self.state is State.SERVING else self.health()

    def health(self) -> tuple[bool, str]:
        """Whether work would be done, were there room for it, and if not, why: load alone is no illness."""
        match self.state:
            case State.SERVING:
                return self.recognizer.health()
            case State.STARTING:
                return False, "models are being loaded"
            case State.FAILED:
                return False, str(self._failure)
            case _:
                return False, "the service is shutting down"

    @contextmanager
    def admit(self, clips: int = 1, deadline: float | None = None) -> Iterator[None]:
        """Hold one request that carries work, from before its upload is read.

        Args:
            clips: views that it asks for.
            deadline: time on the clock of `time.monotonic` by which to answer it.

        Raises:
            NotReady: the service does not take work, or stops while this request is under way.
            Overloaded: its upload would be for nothing, or too many are being received.
        """
        self._check_room(clips, deadline)
        with self._accept():
            yield

    @contextmanager
    def admit_timeline(self, deadline: float | None = None) -> Iterator[None]:
        """Hold one request for a timeline; see `admit`."""
        if self.state is State.SERVING:
            self.recognizer.check_timeline_room(deadline)
        with self.admit(1, deadline):
            yield

    @contextmanager
    def change(self) -> Iterator[None]:
        """Hold one request that changes which models serve; it needs none that does.

        Raises:
            NotReady: the models are not loaded yet, or the service stops while this request is under way.
        """
        if self.state is not State.SERVING:
            raise NotReady(self.readiness()[1])
        with self._accept():
            yield

    @contextmanager
    def _accept(self) -> Iterator[None]:
        task = asyncio.current_task()
        assert task is not None
        self._accepted.add(task)
        self._idle.clear()
        try:
            yield
        except asyncio.CancelledError:
            if not self._cut or task.uncancel() > 0:
                raise
            raise NotReady("the service was stopped before it could answer") from None
        finally:
            self._accepted.discard(task)
            if not self._accepted:
                self._idle.set()

    def check_room(self, clips: int = 1, deadline: float | None = None) -> None:
        """Raise `Overloaded` if a request of so many views would be refused for want of room or time."""
        if self.state is State.SERVING:
            self.recognizer.check_room(clips, deadline)

    def _check_room(self, clips: int, deadline: float | None) -> None:
        self.check_room(clips, deadline)
        ready, reason = self.readiness()
        if not ready:
            raise NotReady(reason)
        if len(self._accepted) >= UPLOADS_PER_PLACE * self.settings.queue_limit:
            raise Overloaded("Too many clips are being received.", RETRY_UPLOADS_S)

    def rescan(self) -> None:
        """Serve what is in the folder of packages by now, in the background.

        What is asked while it is under way may have come too late for it, so it is done once more after that.
        """
        if self._rescanning is not None and not self._rescanning.done():
            self._rescan_again = True
            return
        self._rescanning = asyncio.create_task(self._rescan(), name="rescan models")
        self._rescanning.add_done_callback(_log_failure)

    async def _rescan(self) -> None:
        await self._loaded.wait()
        self._rescan_again = True
        while self._rescan_again and self.state is State.SERVING:
            self._rescan_again = False
            try:
                await self.recognizer.rescan()
                logger.info("models are rescanned", extra={"states": self._states()})
            except PackageError as exc:
                logger.error("models cannot be rescanned: %s", exc.message)

    def _states(self) -> dict[str, str]:
        return {f"{entry.name}/{entry.version}": entry.state.value for entry in self.recognizer.models()}

    async def drain(self, grace_s: float) -> None:
        """Take no more work, and wait up to `grace_s` seconds for what was accepted; then cut it off."""
        if self.state in (State.STARTING, State.SERVING):
            self._enter(State.DRAINING)
        try:
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        except TimeoutError:
            self.cut()
            await self._idle.wait()

    def cut(self) -> None:
        """Answer the accepted requests with `not_ready` now."""
        self._cut = True
        if self._accepted:
            logger.warning("accepted requests are cut off", extra={"requests": len(self._accepted)})
        for task in self._accepted:
            task.cancel()

    async def stop(self) -> None:
        """Let everything go; safe in every state."""
        tasks = [task for task in (self._loading, self._rescanning) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)  # they have been told of
        await self.recognizer.close(0)
        if self.state is not State.FAILED:
            self._enter(State.STOPPED)

    def _enter(self, state: State, level: int = logging.INFO) -> None:
        self.state = state
        reason = {} if self._failure is None else {"reason": self._failure.message}
        logger.log(level, "service is %s", state.value, extra={"state": state.value, **reason})


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (failure := task.exception()) is not None:
        logger.error("models could not be rescanned", exc_info=failure)
