"""A loaded version of a model while it serves: its batcher, its self-tests, and the requests that hold it.

A taught model has no batcher. Its requests run in the batches of its base, which it keeps loaded.

    idle for a while ──> a black clip, through the queue that requests use
    a run succeeds ──> healthy      a run fails ──> unhealthy, until one succeeds

An unhealthy model gets no requests, so only self-tests can show its recovery.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from service.background import start_background
from service.engines.memory import return_freed_memory
from service.engines.session import Inputs, Outputs, batch_length
from service.errors import NotReady
from service.models.loading import Model
from service.models.verify import black_clip
from service.pipeline.batching.batcher import Batcher, BatcherState, Inference
from service.tracing import record_stages

TICK_S = 1.0
# Number of multiply-accumulates of a head that take about a millisecond; larger products run in a thread.
INLINE_PRODUCTS = 4_000_000

logger = logging.getLogger(__name__)


class ServedVersion(ABC):
    """A version of a model that requests can use.

    A request holds the version from its admission to its answer: its video is decoded for this version's
    inputs and runs on its session, even if another version has replaced it in the meantime.

    Args:
        model: the loaded package.

    Attributes:
        model: The loaded package.
        manifest: Its manifest.
        view_bytes: Size of the frames of one view.
    """

    view_bytes: int

    def __init__(self, model: Model) -> None:
        self.model = model
        self.manifest = model.manifest
        self._holders = 0
        self._unused = asyncio.Event()
        self._unused.set()

    @property
    def key(self) -> tuple[str, int]:
        """Name and version."""
        return self.manifest.name, self.manifest.version

    @property
    def is_held(self) -> bool:
        """Whether a request uses it."""
        return not self._unused.is_set()

    def __str__(self) -> str:
        return f"{self.manifest.name}/{self.manifest.version}"

    @property
    @abstractmethod
    def graph(self) -> ServedModel:
        """The model that provides the graph to run and the queue in which requests wait."""

    @abstractmethod
    def problem(self) -> str | None:
        """Why requests for this model would fail, or None."""

    @abstractmethod
    async def infer(self, inputs: Inputs) -> Inference:
        """Run the views of one request; see `Batcher.infer`."""

    @abstractmethod
    async def applied(self, inference: Inference) -> Inference:
        """Return the outputs of this version for a run of its graph.

        Raises:
            NotReady: the outputs of a head are not finite.
        """

    @abstractmethod
    async def close(self) -> None:
        """Stop the work of the version; no request may hold it any more.

        Raises:
            TimeoutError: a run does not end.
        """

    @abstractmethod
    def unload(self) -> None:
        """Release the memory; blocks, so call it in a thread, after `close`."""

    @contextmanager
    def held(self) -> Iterator[Self]:
        """Keep the model loaded for one request."""
        self._holders += 1
        self._unused.clear()
        try:
            yield self
        finally:
            self._holders -= 1
            if not self._holders:
                self._unused.set()

    async def unused(self) -> None:
        """Wait until no request holds the model."""
        await self._unused.wait()

    def abandon(self) -> None:
        """End the wait for the requests that hold the model; they fail."""
        self._unused.set()


class ServedModel(ServedVersion):
    """A model with its own graph.

    Args:
        model: the loaded package.
        batcher: the model's batcher, not started yet.
        idle_s: the model is tested when nothing has run for this long.
        limit_s: maximum duration of a run.
        on_failure: called every second in which inference is stuck.

    Attributes:
        taught: The taught models that use the graph. The graph stays loaded while there are any.
    """

    def __init__(
        self,
        model: Model,
        batcher: Batcher,
        *,
        idle_s: float,
        limit_s: float,
        on_failure: Callable[[], object],
    ) -> None:
        super().__init__(model)
        self.batcher = batcher
        self.taught: set[ServedHead] = set()
        self._black_clip = black_clip(model.manifest.clip)
        self.view_bytes = sum(frames.nbytes for frames in self._black_clip.values())
        self._idle_s = idle_s
        self._limit_s = limit_s
        self._on_failure = on_failure
        self._reported: str | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def graph(self) -> ServedModel:
        """Itself."""
        return self

    def problem(self) -> str | None:
        """Why requests for this model would fail, or None."""
        if self.batcher.state is BatcherState.CLOSED:
            return f"Model {self.manifest.name} has stopped."
        problem = self.batcher.health.problem()
        return None if problem is None else f"Model {self.manifest.name} does not answer: {problem}"

    def start(self) -> None:
        """Start the batcher and the self-tests; needs a running event loop."""
        self.batcher.start()
        self._tasks = [start_background(self._test_when_idle()), start_background(self._watch())]

    async def infer(self, inputs: Inputs) -> Inference:
        """Run the views of one request; see `Batcher.infer`."""
        inference = await self.batcher.infer(inputs)
        record_stages(("queue", inference.queue_ms), ("inference", inference.inference_ms))
        return inference

    async def applied(self, inference: Inference) -> Inference:
        """Return `inference` unchanged."""
        return inference

    async def close(self) -> None:
        """Stop the self-tests and the batcher.

        Raises:
            TimeoutError: a run does not end within `limit_s`.
        """
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []  # their exceptions refer to this object and would keep it alive
        async with asyncio.timeout(max(0.0, self._limit_s - self.batcher.health.oldest_run_s)):
            await self.batcher.close()

    def unload(self) -> None:
        """Release the memory; blocks, so call it in a thread, after `close`."""
        self.model.opened.close()
        return_freed_memory()

    async def _test_when_idle(self) -> None:
        batcher = self.batcher
        while batcher.state is not BatcherState.CLOSED:
            if not batcher.clips and batcher.health.needs_test(self._idle_s):
                with suppress(NotReady):  # the health records the failure, like that of any run
                    inference = await batcher.infer(self._black_clip, counted=False)
                    logger.debug("model %s was tested: %.1f ms", self.manifest.name, inference.inference_ms)
            await asyncio.sleep(min(TICK_S, self._idle_s))

    async def _watch(self) -> None:
        """Log when inference stops or resumes; while it is stuck, count failures and release its slots."""
        while True:
            problem = self.batcher.health.problem()
            if problem is not None and self._reported is None:
                logger.error("model %s does not answer: %s", self.manifest.name, problem)
            elif problem is None and self._reported is not None:
                logger.info("model %s answers again", self.manifest.name)
            self._reported = problem
            if self.batcher.health.stuck() is not None:
                self._on_failure()
                self.batcher.release_stuck()
            await asyncio.sleep(TICK_S)


class ServedHead(ServedVersion):
    """A taught model: its requests run on the graph of its base, and its head classifies the features.

    Args:
        model: the loaded package.
        base: the model that it was taught on; the base stays loaded until this model is closed.
        on_rows: called with the number of views of each request.
    """

    def __init__(
        self, model: Model, base: ServedModel, on_rows: Callable[[int], object] = lambda _: None
    ) -> None:
        super().__init__(model)
        assert model.head is not None
        self._head = model.head
        self._on_rows = on_rows
        self._base = base
        self.view_bytes = base.view_bytes
        self._hold = ExitStack()
        self._hold.enter_context(base.held())
        base.taught.add(self)

    @property
    def graph(self) -> ServedModel:
        """The base."""
        return self._base

    def problem(self) -> str | None:
        """Why requests for the base would fail, or None."""
        return self._base.problem()

    async def infer(self, inputs: Inputs) -> Inference:
        """Run the views of one request with the base, and classify the features.

        Raises:
            NotReady: see `Batcher.infer`; or the head's values are not finite.
        """
        self._on_rows(batch_length(inputs))
        return await self.applied(await self._base.infer(inputs))

    async def applied(self, inference: Inference) -> Inference:
        """Classify the features of a run of the base.

        Raises:
            NotReady: the head's values are not finite.
        """
        features = inference.outputs.features
        assert features is not None
        started_s = time.monotonic()
        if features.size * self._head.classes > INLINE_PRODUCTS:
            outputs = await asyncio.to_thread(self._classified, features)
        else:
            outputs = self._classified(features)
        record_stages(("head", (time.monotonic() - started_s) * 1e3))
        # NaN would pass through the softmax as a score of every label.
        if not outputs.finite:
            raise NotReady(f"The outputs of {self} are not finite; teach it again.")
        return replace(inference, outputs=outputs)

    async def close(self) -> None:
        """Release the base."""
        self._base.taught.discard(self)
        self._hold.close()

    def unload(self) -> None:
        """Do nothing: the head is freed with this object."""

    def _classified(self, features: NDArray[np.float32]) -> Outputs:
        evidence = self._head.evidence(features)
        return Outputs(evidence.mean(axis=1), evidence, features)
