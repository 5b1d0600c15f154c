"""Requests to a recognizer, as the HTTP routes and the command line make them."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import aclosing

from service.pipeline.classification import Classification, Query
from service.pipeline.limits.deadline import Deadline
from service.pipeline.recognizer import Recognizer
from service.pipeline.timeline import TimelineQuery, TimelineSummary, WindowClassification, classify_windows
from service.workers.shared_memory import VideoFile


def limit(timeout_s: float) -> Deadline | None:
    return None if math.isinf(timeout_s) else Deadline(timeout_s)


async def classify(
    recognizer: Recognizer, video: VideoFile, query: Query | None = None, timeout_s: float = math.inf
) -> Classification:
    """Label a video."""
    query = query or Query()
    async with recognizer.accept(query.model, views=query.views, deadline=limit(timeout_s)) as request:
        return await request.classify(video, query)


async def timeline(
    recognizer: Recognizer,
    video: VideoFile,
    query: TimelineQuery | None = None,
    first_s: float = math.inf,
) -> AsyncGenerator[WindowClassification | TimelineSummary]:
    """Label the windows of a video, the first one within `first_s` seconds."""
    query = query or TimelineQuery()
    deadline = None if math.isinf(first_s) else Deadline(3600.0)
    async with (
        recognizer.accept(query.model, deadline=deadline, timeline=True) as request,
        aclosing(classify_windows(request, video, query)) as windows,
    ):
        if deadline is not None:
            deadline.begin_phase(first_s)
        async for item in windows:
            if deadline is not None:
                deadline.end_phase()
            yield item
