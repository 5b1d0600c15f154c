"""Classification of the videos of a batch in this process, several at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from service.background import in_thread
from service.batch.output import Row
from service.batch.source import fetched
from service.errors import NotReady, Overloaded, RequestError
from service.offline import CommandRunner
from service.pipeline.classification import Classification, Query
from service.pipeline.core_config import CoreConfig
from service.pipeline.recognizer import Recognizer
from service.workers.shared_memory import VideoFile

UNREADABLE = "unreadable"
# Number of videos that are fetched while others are decoded.
FETCHED_AHEAD = 2
RETRIES = 5


class BatchClassifier:
    """Loaded models and decode workers.

    Args:
        config: settings, which determine the available models.
        models: names of the models; the default model, if there are none.
        query: labels and views for each model.

    Raises:
        PackageError: no model can be served.
        ModelNotFound: there is no model with one of the names.
    """

    def __init__(self, config: CoreConfig, models: Sequence[str], query: Query) -> None:
        self._query = query
        self._recognizer = Recognizer(config)
        with ExitStack() as stack:
            self._runner = stack.enter_context(CommandRunner())
            stack.callback(lambda: self._runner.run(self._recognizer.close()))
            self._runner.run(self._recognizer.start())
            names: Iterable[str | None] = dict.fromkeys(models) or (None,)
            self._models = [self._recognizer.model(name) for name in names]
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def rows(self, addresses: Iterable[str]) -> Iterator[Row]:
        """Yield the row of each video, in the order in which they are ready."""
        rows = self._rows(addresses)
        try:
            while (row := self._runner.run(anext(rows, None))) is not None:
                yield row
        finally:
            self._runner.run(rows.aclose())

    async def _rows(self, addresses: Iterable[str]) -> AsyncGenerator[Row]:
        waiting = iter(addresses)
        at_once = self._recognizer.decoding.workers + FETCHED_AHEAD
        tasks: set[asyncio.Task[Row]] = set()
        try:
            while True:
                while len(tasks) < at_once and (address := next(waiting, None)) is not None:
                    tasks.add(asyncio.create_task(self._row(address)))
                if not tasks:
                    return
                done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    yield task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _row(self, address: str) -> Row:
        source = fetched(address)
        try:
            video = await in_thread(source.__enter__)
        except OSError as exc:
            detail = " ".join(str(exc).split()) or type(exc).__name__
            return error_row(address, UNREADABLE, detail)
        try:
            return result_row(address, await self._classify(video))
        except RequestError as exc:
            return error_row(address, exc.code, exc.message)
        finally:
            await in_thread(source.__exit__, None, None, None)

    async def _classify(self, video: VideoFile) -> Sequence[Classification]:
        """Classify a video; a lack of resources, such as a killed worker, is not a property of the video."""
        for attempt in range(RETRIES):
            try:
                async with self._recognizer.accept(
                    served=self._models[0], views=self._query.views
                ) as request:
                    return await request.classify_with(self._models, video, self._query)
            except (NotReady, Overloaded) as exc:
                if attempt == RETRIES - 1:
                    raise
                await asyncio.sleep(exc.retry_after_s)
        raise AssertionError("unreachable")


def result_row(address: str, results: Sequence[Classification]) -> Row:
    """Return the row of a video with the labels of each model."""
    return {
        "clip": address,
        "error": None,
        "duration_s": results[0].video.duration_s,
        "results": [
            {
                "model": result.manifest.name,
                "version": result.manifest.version,
                "unsure": result.unsure,
                "predictions": [
                    {"label": item.label, "index": item.index, "score": item.score}
                    for item in result.predictions
                ],
            }
            for result in results
        ],
    }


def error_row(address: str, code: str, detail: str) -> Row:
    """Return the row of a video without labels."""
    return {"clip": address, "error": {"code": code, "detail": detail}, "duration_s": None, "results": []}
