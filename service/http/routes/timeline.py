"""`POST /v1/timeline`: a long video in, a line for each of its windows out."""

from __future__ import annotations

import time
from contextlib import aclosing
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from service.http.context import RequestRecord, record_of
from service.http.deps import Deadline, Service, TimelineDeadline, take_share, until, while_connected
from service.http.lifecycle import Lifecycle
from service.http.lines import Lines, LinesAnswer
from service.http.openapi import CLIP_BODY, json_lines, problems
from service.http.schemas import server_timing
from service.http.timeline_schemas import (
    TimelineEnd,
    TimelineError,
    TimelineParameters,
    TimelineWindow,
)
from service.http.uploads import received_clip
from service.pipeline.recognition import Timings
from service.pipeline.timeline import Deadlines, TimelineQuery, WindowRecognition, recognize_timeline

router = APIRouter(prefix="/v1", tags=["recognition"])


@router.post(
    "/timeline",
    summary="Label a long video, window by window",
    status_code=200,
    response_class=LinesAnswer,
    responses=problems(
        "bad_request", "unauthorized", "model_not_found", "too_large", "not_a_video", "undecodable",
        "invalid_parameter", "over_limit", "rate_limited", "overloaded", "not_ready", "deadline_exceeded",
    ) | json_lines(TimelineWindow, TimelineEnd, TimelineError),
    openapi_extra=CLIP_BODY,
    dependencies=[Depends(take_share)],
)  # fmt: skip
async def timeline(
    request: Request,
    service: Service,
    deadline: TimelineDeadline,
    parameters: Annotated[TimelineParameters, Query()],
) -> Response:
    """What happens in this video, and when?

    Send the video as the form field `file`, or as the body itself. The answer has a line of JSON for each
    window, as soon as it is known, and a summary in the last one. An error before the first line is a problem
    document with its status; one that comes later is the last line, `{"error": {...}}`.
    """
    query = TimelineQuery(**parameters.model_dump())
    query.check()
    produce = partial(_answer, request, service, deadline, query)
    return LinesAnswer(request, produce, service.settings.request_timeout_s)


async def _answer(
    request: Request, service: Lifecycle, deadline: Deadline, query: TimelineQuery, lines: Lines
) -> None:
    record = record_of(request)
    with (
        service.admit_timeline(deadline.at),
        service.recognizer.model(query.model).held() as held,
    ):
        record.model = held.manifest.name
        async with (
            until(deadline),
            received_clip(request, service.settings.max_upload_bytes) as upload,
        ):
            record.received(upload.size_bytes)
            begin_by = time.monotonic() + service.settings.request_timeout_s
            found = recognize_timeline(
                service.recognizer, upload.clip, query, Deadlines(begin_by, deadline.at), held
            )
            async with while_connected(request), aclosing(found):
                async for item in found:
                    if isinstance(item, WindowRecognition):
                        _count(service, record.model, item)
                        if not lines.begun:
                            service.metrics.stages(record.model, record.stages_ms)
                            await lines.begin({"Server-Timing": _to_first_line(record, item.timing)})
                        await lines.send(TimelineWindow.of(item))
                    else:
                        end = TimelineEnd.of(
                            item,
                            receive_ms=record.stages_ms["receive"],
                            total_ms=record.elapsed_ms(),
                            request_id=record.request_id,
                        )
                        record.stages_ms = end.timing_ms.stages()
                        await lines.send(end)


def _count(service: Lifecycle, model: str, recognition: WindowRecognition) -> None:
    """A window is a clip to the metrics."""
    service.metrics.stages(model, _stages(recognition.timing))
    service.metrics.predictions.labels(model, recognition.predictions[0].label).inc()


def _to_first_line(record: RequestRecord, timing: Timings) -> str:
    """Where the time up to the first line went."""
    return server_timing(record.stages_ms | _stages(timing) | {"total": record.elapsed_ms()})


def _stages(timing: Timings) -> dict[str, float]:
    return {"decode": timing.decode_ms, "queue": timing.queue_ms, "inference": timing.inference_ms}
