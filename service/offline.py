"""Offline recognition: files without a server, for the command line and for programs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.errors import ModelNotFound, RequestError
from service.pipeline.classification import Classification, Query
from service.pipeline.core_config import CoreConfig
from service.pipeline.models.served_model import ServedVersion
from service.pipeline.recognizer import Recognizer
from service.pipeline.recognizer import logger as recognizer_logger
from service.pipeline.timeline import TimelineQuery, TimelineSummary, WindowClassification, classify_windows

Line = WindowClassification | TimelineSummary
Result = TypeVar("Result")


def classify_files(
    config: CoreConfig, videos: Iterable[Path], query: Query
) -> Iterator[tuple[Path, Classification | RequestError]]:
    """Label files: yield each with its result, or its error, in the order given.

    Raises:
        PackageError: no model can be served.
        ProviderUnavailable: the requested provider is not available.
    """

    async def classify(recognizer: Recognizer, video: Path) -> Classification | RequestError:
        try:
            query.check()
            async with recognizer.accept(query.model, views=query.views) as request:
                return await request.classify(video, query)
        except RequestError as exc:
            return exc

    with running_offline(config) as (runner, recognizer):
        yield from in_order(runner, recognizer, videos, classify)


class CommandRunner:
    """The event loop of a command, which runs only on request."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        self._runner.__enter__()
        return self

    def __exit__(self, *outcome: object) -> None:
        self._runner.close()

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine to its end.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed meanwhile.
        """
        try:
            return self._runner.run(coroutine)
        except asyncio.CancelledError:
            # Nothing but Ctrl-C cancels a coroutine of a command. The runner raises KeyboardInterrupt itself,
            # except for a Ctrl-C between the installation of its signal handler and the start of the loop.
            raise KeyboardInterrupt from None

    def start(self, coroutine: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """Start a task, which proceeds while `run` is called."""
        return self._runner.get_loop().create_task(coroutine)


class OfflineBase:
    """A base model in this process, for `blvnet teach`.

    Attributes:
        manifest: The manifest of the base.
    """

    def __init__(self, runner: CommandRunner, recognizer: Recognizer, name: str | None) -> None:
        self._runner = runner
        self._recognizer = recognizer
        self.manifest = _base(recognizer, name).manifest

    def features(
        self, videos: Iterable[Path], *, mirrored: bool = False, all_views: bool = True
    ) -> Iterator[tuple[Path, NDArray[np.float32] | RequestError]]:
        """Features of the views of each video, float32 `(V, T', F)`, or its error, in the order given.

        Args:
            videos: files.
            mirrored: add mirror images.
            all_views: use all views to learn from; otherwise only the one that requests are answered with.
        """

        async def features(recognizer: Recognizer, video: Path) -> NDArray[np.float32] | RequestError:
            try:
                async with recognizer.accept(self.manifest.name) as request:
                    if all_views:
                        return (await request.features(video, mirrored=mirrored)).array
                    features = (await request.infer_video(video)).outputs.features
                    assert features is not None
                    return features
            except RequestError as exc:
                return exc

        yield from in_order(self._runner, self._recognizer, videos, features)


@contextmanager
def offline_base(config: CoreConfig, name: str | None) -> Iterator[OfflineBase]:
    """Load a base for taught models: `name`, or the first model that can be one.

    Raises:
        ModelNotFound: there is no such model, or it cannot be a base; the message says what to do.
        PackageError: no model can be served.
        ProviderUnavailable: the requested provider is not available.
    """
    with running_offline(config) as (runner, recognizer):
        yield OfflineBase(runner, recognizer, name)


def _base(recognizer: Recognizer, name: str | None) -> ServedVersion:
    if name is not None:
        chosen = recognizer.model(name)
    else:
        served = sorted(recognizer.models.registry.ready(), key=lambda version: version.manifest.name)
        bases = [
            version for version in served if version.model.feature_size and not version.manifest.is_taught
        ]
        chosen = bases[0] if bases else recognizer.model()
    model = chosen.manifest
    if model.base is not None:
        raise ModelNotFound(f"{model.name} is a taught model; teach on its base {model.base.name} instead")
    if chosen.model.feature_size is None:
        raise ModelNotFound(
            f"{model.name}/{model.version} has no output 'features', so it cannot be a base; export it again"
            " with blvnet export"
        )
    return chosen


@contextmanager
def running_offline(config: CoreConfig) -> Iterator[tuple[CommandRunner, Recognizer]]:
    """Yield a serving recognizer and the runner of its event loop."""
    with CommandRunner() as runner:
        recognizer = Recognizer(config)
        with _without_states():
            runner.run(recognizer.start())
        try:
            yield runner, recognizer
        finally:
            runner.run(recognizer.close())


@contextmanager
def _without_states() -> Iterator[None]:
    """Do not log the states of the service: there is no server here, and errors are raised."""

    def is_no_state(record: logging.LogRecord) -> bool:
        return not hasattr(record, "state")

    recognizer_logger.addFilter(is_no_state)
    try:
        yield
    finally:
        recognizer_logger.removeFilter(is_no_state)


def in_order(
    runner: CommandRunner,
    recognizer: Recognizer,
    videos: Iterable[Path],
    work: Callable[[Recognizer, Path], Coroutine[None, None, Result]],
) -> Iterator[tuple[Path, Result]]:
    """Yield each video with the result of `work`, in the order given.

    As many videos as there are decode workers are in progress at once, so that decoding and inference
    overlap.
    """
    pending: list[tuple[Path, asyncio.Task[Result]]] = []
    for video in videos:
        pending.append((video, runner.start(work(recognizer, video))))
        if len(pending) > max(1, recognizer.decoding.workers):
            first, task = pending.pop(0)
            yield first, runner.run(asyncio.wait_for(task, None))
    for last, task in pending:
        yield last, runner.run(asyncio.wait_for(task, None))


def timeline_of_file(config: CoreConfig, path: Path, query: TimelineQuery) -> Iterator[Line]:
    """Label the windows of a file; see `classify_windows`.

    Raises:
        RequestError: the video or the query is at fault.
        PackageError: no model can be served.
        ProviderUnavailable: the requested provider is not available.
    """

    async def lines(recognizer: Recognizer) -> AsyncGenerator[Line]:
        async with (
            recognizer.accept(query.model, timeline=True) as request,
            aclosing(classify_windows(request, path, query)) as windows,
        ):
            async for line in windows:
                yield line

    async def following(found: AsyncGenerator[Line]) -> Line | None:
        return await anext(found, None)

    with running_offline(config) as (runner, recognizer):
        found = lines(recognizer)
        try:
            while (line := runner.run(following(found))) is not None:
                yield line
        finally:
            runner.run(found.aclose())
