"""From a clip to an answer: the life of a request, in order, without HTTP.

    admitted ──> decoded ──> batched and run ──> scored

The service calls it on its event loop; `offline` labels files with it. What is asked and answered is in
`recognition`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from enum import StrEnum
from functools import partial

from service.clip.windows import WindowRule
from service.errors import DeadlineExceeded, NotReady, Overloaded
from service.observer import Observer
from service.packages import Model, VersionPolicy
from service.pipeline.admission import Admission
from service.pipeline.batcher import Batcher, Inference
from service.pipeline.core_config import CoreConfig
from service.pipeline.cores import usable_cores
from service.pipeline.model_repository import ModelEntry, ModelRepository
from service.pipeline.recognition import Inferred, Query, Recognition, answer, timings
from service.pipeline.self_test import WatchedBatcher
from service.pipeline.serving import Serving
from service.pipeline.slots import Slots
from service.pipeline.window_stream import WindowStream, windows_of
from service.runtime.choice import open_package
from service.runtime.session import Inputs, rows_of
from service.runtime.signature import black_clip
from service.workers.decode_pool import Decoded, DecodePool
from service.workers.shared_files import Clip

RETRY_TIMELINE_S = 10.0
# Callers who come at once, or keep a few requests open, are not turned away for a slow model.
BURST_PER_CORE = 8
INFERENCE = "inference"  # what its threads' names begin with

logger = logging.getLogger(__name__)


class RecognizerState(StrEnum):
    """The life of a recognizer; a `DRAINING` one finishes what it accepted and takes nothing new."""

    NEW = "new"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    CLOSED = "closed"


class Recognizer:
    """Models, decode workers and the queues between them."""

    def __init__(self, config: CoreConfig, observer: Observer | None = None) -> None:
        cores = config.cores or usable_cores()
        self._config = config
        self._observer = observer or Observer()
        self._state = RecognizerState.NEW
        self._admission = Admission(config.queue_limit, config.latency_target_s, BURST_PER_CORE * cores)
        self._workers_started = threading.Event()
        self._models = ModelRepository(
            config.models,
            partial(open_package, config=config.runtime(cores), before_measuring=self._workers_started.wait),
            self._batcher,
            default=config.default_model,
            versions_kept=config.versions_kept,
        )
        self._decoding = DecodePool(
            workers=config.decode_workers or cores,
            timeout_s=config.decode_timeout_s,
            memory_mb=config.decode_memory_mb,
            cores=cores,
            observer=self._observer,
        )
        self._slots = Slots(config.threads(cores))
        self._inference = ThreadPoolExecutor(self._slots.total, thread_name_prefix=INFERENCE)
        self._closing = asyncio.Lock()
        self._timelines = 0

    @property
    def state(self) -> RecognizerState:
        """Where in its life it is."""
        return self._state

    @property
    def ready(self) -> bool:
        """Whether the next request would be accepted."""
        return self.readiness()[0]

    def check_room(self, clips: int = 1, deadline: float | None = None) -> None:
        """Raise `Overloaded` if a request of so many views would be refused for want of room or time."""
        if self._state is RecognizerState.READY:
            self._admission.check(clips, deadline)

    def check_timeline_room(self, deadline: float | None = None) -> None:
        """Raise `Overloaded` if a timeline would be refused; see `timeline_place`."""
        if self._timelines >= self._config.timelines_at_once:
            raise Overloaded(f"{self._timelines} timelines are in work, the limit.", RETRY_TIMELINE_S)
        self.check_room(1, deadline)

    @property
    def inflight(self) -> int:
        """Requests accepted and not finished."""
        return self._admission.inflight

    @property
    def queue_depth(self) -> int:
        """Requests accepted that wait: for a decode worker, or for a batch."""
        return self._decoding.waiting + sum(item.batcher.waiting for item in self._models.serving())

    @property
    def decode_workers(self) -> int:
        """Decode workers that are alive and ready."""
        return self._decoding.workers

    @property
    def decode_pids(self) -> frozenset[int]:
        """Process ids of the decode workers."""
        return self._decoding.pids

    @property
    def timeline_pids(self) -> frozenset[int]:
        """Process ids of the workers that decode timelines."""
        return self._decoding.hired_pids

    @property
    def decode_sandbox(self) -> tuple[str, ...]:
        """The kernel's fences around the decode workers: of `seccomp` and `landlock` those that it has."""
        return self._decoding.fences

    def readiness(self) -> tuple[bool, str]:
        """Whether the next request would be accepted, and if not, why."""
        works, reason = self.health()
        if works and self._admission.full:
            return False, "The queue is full."
        return works, reason

    def health(self) -> tuple[bool, str]:
        """Whether requests can be answered, were there room for them, and if not, why."""
        if self._state is not RecognizerState.READY:
            return False, NOT_READY[self._state]
        if self._decoding.failing and not self._decoding.workers:
            return False, "No decode worker starts."
        return self._models.readiness()

    def models(self) -> tuple[ModelEntry, ...]:
        """All packages: those that serve, were refused, or are not loaded."""
        return self._models.entries()

    def versions(self, name: str) -> list[int]:
        """The versions of a model that serve, ascending."""
        return self._models.versions(name)

    def model(self, name: str | None = None, version: int | None = None) -> Serving:
        """What answers requests for a model: its highest version that serves; the default model for None.

        Whoever uses it beyond the next `await` has to hold it.

        Raises:
            NotReady: the models are not loaded yet, or closed, or there are none.
            ModelNotFound: no such model serves, or not that version of it.
        """
        if self._state not in (RecognizerState.READY, RecognizerState.DRAINING):
            raise NotReady(NOT_READY[self._state])
        return self._models.get(name, version)

    async def rescan(self) -> None:
        """Serve what is in the folder of packages by now; see `ModelRepository`."""
        await self._models.rescan()

    async def load(self, name: str, policy: VersionPolicy | None = None) -> None:
        """Serve a model as it is in the folder by now; see `ModelRepository`."""
        await self._models.load(name, policy)

    async def unload(self, name: str) -> None:
        """Serve a model no longer; see `ModelRepository`."""
        await self._models.unload(name)

    async def start(self) -> None:
        """Load and warm up the models, and start the workers; ready when it returns.

        Raises:
            PackageError: no model can be served.
            ProviderUnavailable: the provider that was asked for cannot be had.
            BlvnetError: the decode workers do not start.
        """
        self._enter(RecognizerState.STARTING)
        try:
            await self._load()
        except BaseException:
            await self.close(0)
            raise
        self._expect_pace()
        self._enter(RecognizerState.READY)

    async def recognize(
        self, clip: Clip, query: Query, deadline: float | None = None, model: Serving | None = None
    ) -> Recognition:
        """Label one clip. Cancelling drops what has not been done of it.

        Args:
            clip: the file's path, bytes, or an open file that has a descriptor.
            query: what is asked.
            deadline: time on the clock of `time.monotonic` by which to be done.
            model: what to ask, where the caller holds it already; else it goes by the query.

        Raises:
            RequestError: the leaf says why; `service.errors` lists them.
        """
        query.check()
        async with self._admitted(query.views, deadline):
            with (model or self.model(query.model)).held() as held:
                decoded, inference = await self._run_clip(clip, held, clips=query.clips, crops=query.crops)
            return answer(query, held.model, decoded, inference)

    async def infer_clip(self, clip: Clip, model: Serving, deadline: float) -> Inferred:
        """Run a model, held, on one clip; see `recognize`. The answer is what the graph gave."""
        async with self._admitted(1, deadline):
            decoded, inference = await self._run_clip(clip, model, clips=1, crops=1)
            return Inferred(model.manifest, inference.outputs, timings(decoded, inference))

    async def infer(self, inputs: Inputs, model: Serving, deadline: float) -> Inferred:
        """Run a model, held, on clips decoded already, uint8 `(N, T_branch, size, size, 3)` for each input.

        Raises:
            RequestError: the leaf says why; `service.errors` lists them.
        """
        async with self._admitted(rows_of(inputs), deadline):
            inference = await model.batcher.infer(inputs)
            return Inferred(model.manifest, inference.outputs, timings(None, inference))

    async def close(self, grace_s: float) -> None:
        """Refuse new requests, give the accepted ones `grace_s` seconds, then stop everything."""
        async with self._closing:  # whoever asks a second time waits for the first
            if self._state is RecognizerState.CLOSED:
                return
            self._enter(RecognizerState.DRAINING)
            try:
                async with asyncio.timeout(grace_s):
                    await self._admission.idle()
            except TimeoutError:
                logger.warning("%d requests were not finished in %g s", self.inflight, grace_s)
            await self._decoding.close()
            await self._models.close()
            self._inference.shutdown(wait=False)  # a run that does not end would hold the event loop
            self._enter(RecognizerState.CLOSED)

    @contextmanager
    def timeline_place(self, deadline: float | None) -> Iterator[None]:
        """Hold a place for a timeline, whose first window is wanted by the deadline.

        Raises:
            NotReady: nothing is taken.
            Overloaded: there are enough timelines, or requests.
        """
        if self._state is not RecognizerState.READY:
            raise NotReady(NOT_READY[self._state])
        self.check_timeline_room(deadline)
        with self._admission.admit_long(deadline):
            self._timelines += 1
            try:
                yield
            finally:
                self._timelines -= 1

    def windows(
        self, clip: Clip, model: Serving, rule: WindowRule
    ) -> AbstractAsyncContextManager[WindowStream]:
        """The windows of a video for a model, held; to be had within `timeline_place`."""
        config = self._config
        return windows_of(
            self._decoding, clip, model.manifest.clip, rule, config.limits, config.timeline_timeout_s
        )

    @asynccontextmanager
    async def _admitted(self, clips: int, deadline: float | None) -> AsyncIterator[None]:
        """Hold a place for one request of so many views, up to its deadline."""
        if self._state is not RecognizerState.READY:
            raise NotReady(NOT_READY[self._state])
        with self._admission.admit(clips, deadline):
            try:
                async with asyncio.timeout_at(deadline):
                    yield
            except TimeoutError as exc:
                raise DeadlineExceeded("The request could not be answered in its time.") from exc

    async def _run_clip(
        self, clip: Clip, model: Serving, *, clips: int, crops: int
    ) -> tuple[Decoded, Inference]:
        with model.batcher.on_the_way(clips * crops):
            decoded = await self._decoding.decode(
                clip, model.manifest.clip, self._config.limits, clips=clips, crops=crops
            )
        return decoded, await model.batcher.infer(decoded.inputs)

    async def _load(self) -> None:
        """Start workers and load models, side by side; engines are compared once the workers are there."""
        started, loaded = await asyncio.gather(
            self._start_workers(), self._models.start(), return_exceptions=True
        )
        for failure in (loaded, started):
            if isinstance(failure, BaseException):
                raise failure

    def _expect_pace(self) -> None:
        """Begin with the rate of the slowest model, where it was measured."""
        rates = [serving.model.opened.clips_per_s for serving in self._models.serving()]
        if rates := [rate for rate in rates if rate is not None]:
            self._admission.throughput.expect(min(rates))

    async def _start_workers(self) -> None:
        try:
            await self._decoding.start()
        finally:
            self._workers_started.set()

    def _batcher(self, model: Model) -> WatchedBatcher:
        name = model.manifest.name
        batcher = WatchedBatcher(
            Batcher(
                model.session,
                model.opened.streams,
                self._slots,
                self._inference,
                sizes=self._config.batch_sizes(model.opened.batches),
                wait_s=self._config.batch_wait_ms / 1e3,
                on_batch=partial(self._observer.batch_size, name),
            ),
            name=name,
            black_clip=black_clip(model.manifest.clip),
            idle_s=self._config.self_test_s,
            limit_s=self._config.inference_limit_s,
            on_failure=partial(self._observer.self_test_failure, name),
        )
        self._observer.model_watched(name)
        batcher.start()
        return batcher

    def _enter(self, state: RecognizerState) -> None:
        logger.info("the recognizer is %s", state.value)
        self._state = state


NOT_READY = {
    RecognizerState.NEW: "The service is not started.",
    RecognizerState.STARTING: "The models are being loaded.",
    RecognizerState.DRAINING: "The service is shutting down.",
    RecognizerState.CLOSED: "The service is shut down.",
}


@asynccontextmanager
async def running(config: CoreConfig, observer: Observer | None = None) -> AsyncIterator[Recognizer]:
    """A recognizer that is ready, and closed at the end."""
    recognizer = Recognizer(config, observer)
    await recognizer.start()
    try:
        yield recognizer
    finally:
        await recognizer.close(0)
