"""The work of a job: the same as for a request of its kind, with a stored result instead of a response."""

from __future__ import annotations

import time
from contextlib import aclosing

from structlog.contextvars import bound_contextvars

from service.http.schemas.classify import ClassifyAnswer
from service.http.schemas.timeline import TimelineEnd, TimelineWindow
from service.jobs.job import Job, JobKind, JobLost
from service.jobs.store import JobStore
from service.monitoring.metrics import Metrics
from service.pipeline.classification import Query
from service.pipeline.limits.deadline import Deadline
from service.pipeline.recognizer import Recognizer
from service.pipeline.timeline import TimelineQuery, WindowClassification, classify_windows

PROGRESS_S = 1.0


class JobWork:
    """Runs jobs on a recognizer.

    Args:
        recognizer: runs the models.
        store: holds the videos and the results.
        metrics: counts stages and predictions as for requests.
        timeout_s: time limit of a job.
    """

    def __init__(self, recognizer: Recognizer, store: JobStore, metrics: Metrics, timeout_s: float) -> None:
        self._recognizer = recognizer
        self._store = store
        self._metrics = metrics
        self._timeout_s = timeout_s

    async def perform(self, job: Job) -> str:
        """Write the result of a job and return the JSON of its answer, or of the summary of a timeline.

        Raises:
            RequestError: as for the request of this kind.
            JobLost: the job is held no longer.
            OSError: the result cannot be written.
            StorageFull, JobsUnavailable: the store cannot store the result or provide the video.
        """
        with bound_contextvars(request_id=job.request_id, job=job.id):
            return await (self._classify(job) if job.kind is JobKind.CLASSIFY else self._timeline(job))

    async def _classify(self, job: Job) -> str:
        started = time.monotonic()
        query = Query(**job.parameters)
        async with (
            self._recognizer.accept(
                query.model, views=query.views, deadline=Deadline(self._timeout_s)
            ) as accepted,
            self._store.video(job.id) as video,
        ):
            classification = await accepted.classify(video, query)
        total_ms = (time.monotonic() - started) * 1000
        answer = ClassifyAnswer.of(classification, total_ms=total_ms, request_id=job.request_id)
        self._metrics.classified(answer.model.name, answer.predictions[0].label, answer.timing_ms.stages())
        text = answer.model_dump_json()
        async with self._store.writing_result(job.id) as result:
            await result.write(text.encode())
        return text

    async def _timeline(self, job: Job) -> str:
        started = reported = time.monotonic()
        query = TimelineQuery(**job.parameters)
        end: TimelineEnd | None = None
        async with (
            self._recognizer.accept(
                query.model, deadline=Deadline(self._timeout_s), timeline=True
            ) as accepted,
            self._store.video(job.id) as video,
            self._store.writing_result(job.id) as result,
            aclosing(classify_windows(accepted, video, query)) as found,
        ):
            name = accepted.model.manifest.name
            async for item in found:
                line: TimelineWindow | TimelineEnd
                if isinstance(item, WindowClassification):
                    self._metrics.classified(name, item.predictions[0].label, item.timing.stages_ms())
                    line = TimelineWindow.of(item)
                    if time.monotonic() - reported >= PROGRESS_S:
                        reported = time.monotonic()
                        if not await self._store.progress(job.id, item.window + 1, item.windows):
                            raise JobLost
                else:
                    total_ms = (time.monotonic() - started) * 1000
                    line = end = TimelineEnd.of(item, total_ms=total_ms, request_id=job.request_id)
                await result.write(line.model_dump_json().encode() + b"\n")
        assert end is not None
        await self._store.progress(job.id, end.summary.windows, end.summary.windows)
        return end.model_dump_json()
