"""Whether inference still works: by how the latest runs ended, and by a black clip when there are none.

    nothing ends for a while ──> a black clip, through the queue that requests go through
    a run ends well ──> works      fails ──> does not, until one ends well      none ends in time ──> stuck

A service that is not ready gets no requests, so a failure is followed by black clips until one ends well.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager, suppress

from service.batcher import Batcher, BatcherState, Inference
from service.errors import NotReady
from service.runtime.session import Inputs, Session
from service.runtime.streams import Streams
from service.slots import Slots

TICK_S = 1.0

logger = logging.getLogger(__name__)


class Pulse:
    """What the runs of one model say.

    Args:
        limit_s: longest time in which some run has to end while there are any to do.
        clock: monotonic time in seconds.
    """

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit_s = limit_s
        self._clock = clock
        self._under_way = 0
        self._failed = False
        self._news_s = clock()  # when a run ended, or the first began after an idle time

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hold one run, waiting included; one that is cancelled says nothing."""
        if not self._under_way:
            self._news_s = self._clock()
        self._under_way += 1
        try:
            yield
        except NotReady:
            self._ended(failed=True)
            raise
        else:
            self._ended(failed=False)
        finally:
            self._under_way -= 1

    def problem(self) -> str | None:
        """Why inference does not work; None while nothing says so."""
        if self._under_way and self._quiet_s() > self._limit_s:
            return f"No inference has ended for {self._quiet_s():.0f} s."
        if self._failed:
            return "The last inference failed."
        return None

    def needs_test(self, idle_s: float) -> bool:
        """Whether nothing is under way, and the last run failed or is more than `idle_s` ago."""
        return not self._under_way and (self._failed or self._quiet_s() >= idle_s)

    def _quiet_s(self) -> float:
        return self._clock() - self._news_s

    def _ended(self, *, failed: bool) -> None:
        self._failed = failed
        self._news_s = self._clock()


class WatchedBatcher(Batcher):
    """A batcher that knows whether it works, and finds out when nobody asks it anything.

    Args:
        session, streams, slots, executor, sizes, wait_s: see `Batcher`.
        on_batch: see there too; it is not told of tests.
        name: of the model, for the log.
        black_clip: what a test runs on.
        idle_s: a test is made when no run has ended for so long.
        limit_s: longest that nothing may end while there is something to run.
    """

    def __init__(
        self,
        session: Session,
        streams: Streams | None,
        slots: Slots,
        executor: Executor,
        *,
        sizes: Sequence[int],
        wait_s: float,
        on_batch: Callable[[int], object],
        name: str,
        black_clip: Inputs,
        idle_s: float,
        limit_s: float,
    ) -> None:
        super().__init__(session, streams, slots, executor, sizes=sizes, wait_s=wait_s, on_batch=on_batch)
        self._name = name
        self._black_clip = black_clip
        self._idle_s = idle_s
        self._pulse = Pulse(limit_s)
        self._told: str | None = None
        self._tests: list[asyncio.Task[None]] = []

    def problem(self) -> str | None:
        """Why inference does not work; None while nothing says so."""
        return self._pulse.problem()

    def start(self) -> None:
        """Begin to serve, and to test; needs a running event loop."""
        super().start()
        loop = asyncio.get_running_loop()
        self._tests = [loop.create_task(self._test_when_idle()), loop.create_task(self._tell())]

    async def infer(self, inputs: Inputs, *, counted: bool = True) -> Inference:
        """As `Batcher.infer`."""
        with self._pulse.watching():
            return await super().infer(inputs, counted=counted)

    async def close(self) -> None:
        """Stop testing, then as `Batcher.close`."""
        for task in self._tests:
            task.cancel()
        await asyncio.gather(*self._tests, return_exceptions=True)
        self._tests = []  # their errors lead back here, and so to the black clip, in a circle
        await super().close()

    async def _test_when_idle(self) -> None:
        while self.state is not BatcherState.CLOSED:
            if not self._coming and self._pulse.needs_test(self._idle_s):
                with suppress(NotReady):  # its failure is noted as that of any run
                    inference = await self.infer(self._black_clip, counted=False)
                    logger.debug("model %s was tested: %.1f ms", self._name, inference.inference_ms)
            await asyncio.sleep(min(TICK_S, self._idle_s))

    async def _tell(self) -> None:
        """Log when inference stops to work, and when it works again."""
        while True:
            problem = self.problem()
            if problem is not None and self._told is None:
                logger.error("model %s does not answer: %s", self._name, problem)
            elif problem is None and self._told is not None:
                logger.info("model %s answers again", self._name)
            self._told = problem
            await asyncio.sleep(TICK_S)
