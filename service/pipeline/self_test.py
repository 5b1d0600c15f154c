"""Whether inference still works: by how the latest runs ended, and by a black clip when there are none.

    nothing ends for a while ──> a black clip, through the queue that requests go through
    a run ends well ──> works      fails ──> does not, until one ends well
    a run does not end in its time, whatever the others beside it do, or nothing ends at all ──> stuck

A service that is not ready gets no requests, so a failure is followed by black clips until one ends well.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from service.errors import NotReady
from service.pipeline.batcher import Batcher, BatcherState, Inference
from service.pipeline.run_times import RunTimes
from service.runtime.session import Inputs

TICK_S = 1.0

logger = logging.getLogger(__name__)


class Pulse:
    """What the runs of one model say.

    Args:
        limit_s: longest time in which some request has to be through while there are any, and of any run.
        run_times: of the model.
        clock: monotonic time in seconds.
    """

    def __init__(
        self, limit_s: float, run_times: RunTimes, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit_s = limit_s
        self._run_times = run_times
        self._clock = clock
        self._under_way = 0
        self._failed = False
        self._news_s = clock()  # when a run ended, or the first began after an idle time

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hold one request, waiting included; one that is cancelled says nothing."""
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

    def stuck(self) -> str | None:
        """What does not end; None while all goes on."""
        if (overdue_s := self._run_times.overdue_s(self._limit_s)) is not None:
            return f"An inference has not ended for {overdue_s:.0f} s."
        if self._under_way and self._quiet_s() > self._limit_s:
            return f"No inference has ended for {self._quiet_s():.0f} s."
        return None

    def problem(self) -> str | None:
        """Why inference does not work; None while nothing says so."""
        return self.stuck() or ("The last inference failed." if self._failed else None)

    def needs_test(self, idle_s: float) -> bool:
        """Whether nothing is under way, and the last run failed or is more than `idle_s` ago."""
        return not self._under_way and (self._failed or self._quiet_s() >= idle_s)

    def _quiet_s(self) -> float:
        return self._clock() - self._news_s

    def _ended(self, *, failed: bool) -> None:
        self._failed = failed
        self._news_s = self._clock()


class WatchedBatcher:
    """A batcher, and whether it works, which is found out too when nobody asks it anything.

    Args:
        batcher: not started yet.
        name: of the model, for the log.
        black_clip: what a test runs on; `on_batch` of the batcher is not told of tests.
        idle_s: a test is made when nothing has ended for so long.
        limit_s: longest that nothing may end while there is something to run, and that a run may take.
        on_failure: called for every inference that fails, and every second in which one is stuck.
    """

    def __init__(
        self,
        batcher: Batcher,
        *,
        name: str,
        black_clip: Inputs,
        idle_s: float,
        limit_s: float,
        on_failure: Callable[[], object],
    ) -> None:
        self._batcher = batcher
        self._name = name
        self._black_clip = black_clip
        self._idle_s = idle_s
        self._limit_s = limit_s
        self._on_failure = on_failure
        self._pulse = Pulse(limit_s, batcher.run_times)
        self._told: str | None = None
        self._tests: list[asyncio.Task[None]] = []

    @property
    def state(self) -> BatcherState:
        """What the batcher is doing."""
        return self._batcher.state

    @property
    def waiting(self) -> int:
        """Requests of which no row has been run."""
        return self._batcher.waiting

    def problem(self) -> str | None:
        """Why inference does not work; None while nothing says so."""
        return self._pulse.problem()

    def start(self) -> None:
        """Begin to serve, and to test; needs a running event loop."""
        self._batcher.start()
        loop = asyncio.get_running_loop()
        self._tests = [loop.create_task(self._test_when_idle()), loop.create_task(self._tell())]

    def on_the_way(self, rows: int = 1) -> AbstractContextManager[None]:
        """As `Batcher.on_the_way`."""
        return self._batcher.on_the_way(rows)

    async def infer(self, inputs: Inputs, *, counted: bool = True) -> Inference:
        """As `Batcher.infer`."""
        try:
            with self._pulse.watching():
                return await self._batcher.infer(inputs, counted=counted)
        except NotReady:
            if self.state is not BatcherState.CLOSED:  # else it was told to stop, and did not fail
                self._on_failure()
            raise

    async def close(self) -> None:
        """Stop testing, then as `Batcher.close`.

        Raises:
            TimeoutError: a run has not ended in the time that any may take.
        """
        for task in self._tests:
            task.cancel()
        await asyncio.gather(*self._tests, return_exceptions=True)
        self._tests = []  # their errors lead back here, and so to the black clip, in a circle
        async with asyncio.timeout(max(0.0, self._limit_s - self._batcher.run_times.oldest_s)):
            await self._batcher.close()

    async def _test_when_idle(self) -> None:
        while self.state is not BatcherState.CLOSED:
            if not self._batcher.clips and self._pulse.needs_test(self._idle_s):
                with suppress(NotReady):  # its failure is noted as that of any run
                    inference = await self.infer(self._black_clip, counted=False)
                    logger.debug("model %s was tested: %.1f ms", self._name, inference.inference_ms)
            await asyncio.sleep(min(TICK_S, self._idle_s))

    async def _tell(self) -> None:
        """Log when inference stops to work, and when it works again; count while it is stuck."""
        while True:
            problem = self.problem()
            if problem is not None and self._told is None:
                logger.error("model %s does not answer: %s", self._name, problem)
            elif problem is None and self._told is not None:
                logger.info("model %s answers again", self._name)
            self._told = problem
            if self._pulse.stuck() is not None:
                self._on_failure()
            await asyncio.sleep(TICK_S)
