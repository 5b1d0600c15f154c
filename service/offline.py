"""Offline recognition: files without a server, for the command line and for programs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from service.errors import RequestError
from service.pipeline.core_config import CoreConfig
from service.pipeline.recognition import Query, Recognition
from service.pipeline.recognizer import Recognizer
from service.pipeline.timeline import TimelineQuery, TimelineSummary, WindowRecognition, recognize_timeline

Found = TypeVar("Found")


def recognize_files(
    config: CoreConfig, clips: Iterable[Path], query: Query
) -> Iterator[tuple[Path, Recognition | RequestError]]:
    """Label files without a server: each with its answer, or the error that it met, in the order given.

    As many clips as there are decode workers are in work at once, so that decoding and inference overlap.

    Raises:
        PackageError: no model can be served.
        ProviderUnavailable: the provider that was asked for cannot be had.
    """
    with asyncio.Runner() as runner:
        recognizer = Recognizer(config)
        runner.run(recognizer.start())
        try:
            pending: list[tuple[Path, asyncio.Task[Recognition | RequestError]]] = []
            for clip in clips:
                task = runner.get_loop().create_task(_attempt(recognizer, clip, query))
                pending.append((clip, task))
                if len(pending) > max(1, recognizer.decode_workers):
                    first, task = pending.pop(0)
                    yield first, runner.run(_wait(task))
            for last, task in pending:
                yield last, runner.run(_wait(task))
        finally:
            runner.run(recognizer.close(0))


async def _attempt(recognizer: Recognizer, clip: Path, query: Query) -> Recognition | RequestError:
    try:
        return await recognizer.recognize(clip, query)
    except RequestError as exc:
        return exc


async def _wait(task: asyncio.Task[Recognition | RequestError]) -> Recognition | RequestError:
    return await task


def timeline_of_file(
    config: CoreConfig, path: Path, query: TimelineQuery
) -> Iterator[WindowRecognition | TimelineSummary]:
    """The timeline of a file without a server; see `recognize_timeline`.

    Raises:
        RequestError: the video's, or the query's.
        PackageError: no model can be served.
        ProviderUnavailable: the provider that was asked for cannot be had.
    """
    with asyncio.Runner() as runner:
        recognizer = Recognizer(config)
        runner.run(recognizer.start())
        lines = recognize_timeline(recognizer, path, query)
        try:
            while (line := runner.run(_next(lines))) is not None:
                yield line
        finally:
            runner.run(lines.aclose())
            runner.run(recognizer.close(0))


async def _next(lines: AsyncIterator[Found]) -> Found | None:
    return await anext(lines, None)
