"""The pipeline behind every request, without HTTP.

    accepted ──> decoded ──> batched and run ──> scored

The service runs it on its event loop; `service.offline` labels files with it.

    NEW ──start()──> STARTING ──> SERVING ──drain()──> DRAINING ──close()──> STOPPED
                         └── start failed ──> FAILED
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from enum import StrEnum
from functools import partial

from service.errors import BlvnetError, NotReady
from service.machine.resources import usable_cores
from service.models.engine_selection import open_package
from service.observer import Observer
from service.pipeline.accepted_request import AcceptedRequest
from service.pipeline.core_config import CoreConfig
from service.pipeline.limits.admission import Admission, Ticket, TimelinePlaces
from service.pipeline.limits.deadline import Deadline
from service.pipeline.limits.memory_budget import MemoryBudget
from service.pipeline.models.repository import ModelRepository
from service.pipeline.models.served_model import ServedVersion
from service.pipeline.models.starter import ModelStarter
from service.workers.decode_pool import DecodePool

# Callers that arrive together, or keep a few requests open, are not rejected because a model is slow.
BURST_PER_CORE = 8
# For the frames of all requests that are being decoded or run; 100 views at 224 x 224 take 150 MB.
FRAMES_MEMORY_BYTES = 1_000_000_000

logger = logging.getLogger(__name__)


class RecognizerState(StrEnum):
    """The states of a recognizer; while `DRAINING` it finishes accepted requests and accepts no new ones."""

    NEW = "new"
    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


NOT_READY = {
    RecognizerState.NEW: "The service is not started.",
    RecognizerState.STARTING: "The models are being loaded.",
    RecognizerState.DRAINING: "The service is shutting down.",
    RecognizerState.STOPPED: "The service is shut down.",
}


class Recognizer:
    """Models, decode workers, and the requests in progress.

    Args:
        config: the settings.
        observer: receives the events.
        cores: number of cores to use; detected if None.

    Attributes:
        state: The current state.
        models: The model packages, loaded or not.
        decoding: The decode workers.
    """

    def __init__(
        self, config: CoreConfig, observer: Observer | None = None, *, cores: int | None = None
    ) -> None:
        cores = cores or usable_cores()
        engine_config = config.engine_config(cores)
        self._config = config
        observer = observer or Observer()
        self._workers_started = threading.Event()
        self._timelines = TimelinePlaces(config.timelines_at_once)
        self._accepted: set[asyncio.Task[object]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._cut = False
        self._closing = asyncio.Lock()
        self._failure: BlvnetError | None = None
        self.state = RecognizerState.NEW
        self.admission = Admission(config.queue_limit, config.latency_target_s, BURST_PER_CORE * cores)
        self.frames_memory = MemoryBudget(FRAMES_MEMORY_BYTES, FRAMES_MEMORY_BYTES // 16)
        starter = ModelStarter(config, engine_config.threads, self.admission, observer)
        self.models = ModelRepository(
            config.models,
            partial(open_package, config=engine_config, before_measuring=self._workers_started.wait),
            starter.serve,
            starter.serve_taught,
            taught=config.taught_models,
            default=config.default_model,
            versions_kept=config.versions_kept,
        )
        self.decoding = DecodePool(
            workers=config.decode_workers or cores,
            timeout_s=config.decode_timeout_s,
            memory_mb=config.decode_memory_mb,
            cores=cores,
            observer=observer,
        )

    @property
    def queue_depth(self) -> int:
        """Number of requests that wait for a decode worker or for a batch."""
        registry = self.models.registry
        graphs = {model.graph for model in (*registry.ready(), *registry.unloading())}
        return self.decoding.waiting + sum(model.batcher.waiting for model in graphs)

    def problem(self) -> str | None:
        """The reason why no request can be answered, or None; load alone is not a problem."""
        if self._failure is not None:
            return str(self._failure)
        if self.state is not RecognizerState.SERVING:
            return NOT_READY[self.state]
        if (problem := self.decoding.problem()) is not None:
            return problem
        return self.models.registry.problem()

    def model(self, name: str | None = None, version: int | None = None) -> ServedVersion:
        """Return the model that serves; see `ModelRegistry.get`.

        Raises:
            NotReady: the recognizer has not started, or no model serves.
            ModelNotFound: no such model, or no such version of it, serves.
        """
        if self.state not in (RecognizerState.SERVING, RecognizerState.DRAINING):
            raise NotReady(self.problem() or "")
        return self.models.registry.get(name, version)

    async def start(self) -> None:
        """Load and warm up the models, and start the workers.

        Raises:
            PackageError: no model can be served.
            ProviderUnavailable: the requested provider is not available.
            BlvnetError: the decode workers do not start.
        """
        self._enter(RecognizerState.STARTING)
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self.close)
            # Both at once; engines are compared after the workers have started and no longer use the CPU.
            started, loaded = await asyncio.gather(
                self._start_workers(), self.models.start(), return_exceptions=True
            )
            for failure in (loaded, started):
                if isinstance(failure, BlvnetError):
                    self._failure = failure
                if isinstance(failure, BaseException):
                    raise failure
            undo.pop_all()
        if self.state is RecognizerState.STARTING:
            self._enter(RecognizerState.SERVING)

    @asynccontextmanager
    async def accept(
        self,
        model: str | None = None,
        version: int | None = None,
        *,
        views: int = 1,
        deadline: Deadline | None = None,
        ticket: Ticket | None = None,
        timeline: bool = False,
        served: ServedVersion | None = None,
    ) -> AsyncIterator[AcceptedRequest]:
        """Accept a request before its upload is received, and hold its model until the block ends.

        Args:
            model: name of the model; the default model if None.
            version: version of the model; the highest one if None.
            views: number of views, as far as known.
            deadline: ends the block.
            ticket: its admission, if it is already admitted.
            timeline: whether it decodes in a dedicated worker.
            served: a loaded model to use instead of `model` and `version`.

        Raises:
            NotReady: no requests are accepted, the model does not work, or the service stopped before the
                answer.
            ModelNotFound: no such model serves.
            Overloaded: there are too many requests, or this one could not be answered in time.
            DeadlineExceeded: the block did not end by the deadline.
        """
        with self.tracked():
            served = served or self.models.registry.get(model, version)
            if (problem := served.problem()) is not None:
                raise NotReady(problem)
            if timeline:
                self._timelines.check()
            timeout_s = math.inf if deadline is None else deadline.limit_s
            if ticket is None:
                ticket = self.admission.admit(served.graph.manifest.name, views, timeout_s)
            try:
                ticket.require(views, timeout_s)
                with served.held():
                    async with deadline or nullcontext():
                        yield AcceptedRequest(
                            model=served,
                            ticket=ticket,
                            deadline=deadline,
                            decoding=self.decoding,
                            frames_memory=self.frames_memory,
                            limits=self._config.limits,
                            timelines=self._timelines,
                            timeline_timeout_s=self._config.timeline_timeout_s,
                        )
            finally:
                ticket.release()

    @contextmanager
    def tracked(self) -> Iterator[None]:
        """Let `drain` wait for the block, or cut it off.

        Raises:
            NotReady: no requests are accepted, or the block was cut off.
        """
        if self.state is not RecognizerState.SERVING:
            raise NotReady(self.problem() or "")
        task = asyncio.current_task()
        assert task is not None
        self._accepted.add(task)
        self._idle.clear()
        try:
            yield
        except asyncio.CancelledError:
            if not self._cut or task.uncancel() > 0:
                raise
            raise NotReady("The service was stopped before it could answer.") from None
        finally:
            self._accepted.discard(task)
            if not self._accepted:
                self._idle.set()

    async def drain(self, grace_s: float) -> None:
        """Stop accepting requests, wait up to `grace_s` seconds for the accepted ones, then cut them off."""
        if self.state in (RecognizerState.STARTING, RecognizerState.SERVING):
            self._enter(RecognizerState.DRAINING)
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

    async def close(self) -> None:
        """Stop everything; requests that are still in progress fail."""
        async with self._closing:  # a second caller waits for the first
            if self.state in (RecognizerState.STOPPED, RecognizerState.FAILED):
                return
            await self.decoding.close()
            await self.models.close()
            if self._failure is None:
                self._enter(RecognizerState.STOPPED)
            else:
                self._enter(RecognizerState.FAILED, logging.ERROR, reason=self._failure.message)

    async def _start_workers(self) -> None:
        try:
            await self.decoding.start()
        finally:
            self._workers_started.set()

    def _enter(self, state: RecognizerState, level: int = logging.INFO, **details: str) -> None:
        self.state = state
        logger.log(level, "service is %s", state.value, extra={"state": state.value, **details})


@asynccontextmanager
async def running(
    config: CoreConfig, observer: Observer | None = None, *, cores: int | None = None
) -> AsyncIterator[Recognizer]:
    """Yield a serving recognizer, which is closed at the end of the block."""
    recognizer = Recognizer(config, observer, cores=cores)
    await recognizer.start()
    try:
        yield recognizer
    finally:
        await recognizer.close()
