"""`POST /v1/timeline`: labels of each window of a long video, one line per window."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from service.http.context import record_of
from service.http.dependencies import CurrentService, TimelineDeadline, take_share, while_connected
from service.http.openapi import VIDEO_BODY, VIDEO_PROBLEMS, ndjson, problems
from service.http.schemas.common import server_timing
from service.http.schemas.timeline import TimelineEnd, TimelineError, TimelineParameters, TimelineWindow
from service.http.service import Service
from service.http.transfer.ndjson import NDJSONResponse, NDJSONWriter
from service.http.transfer.uploads import received_video
from service.pipeline.limits.deadline import Deadline
from service.pipeline.timeline import TimelineQuery, WindowClassification, classify_windows

router = APIRouter(prefix="/v1", tags=["recognition"])


@router.post(
    "/timeline",
    summary="Label a long video, window by window",
    status_code=200,
    response_class=NDJSONResponse,
    responses=problems(*VIDEO_PROBLEMS) | ndjson(TimelineWindow, TimelineEnd, TimelineError),
    openapi_extra=VIDEO_BODY,
    dependencies=[Depends(take_share)],
)
async def timeline(
    request: Request,
    service: CurrentService,
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
    return NDJSONResponse(request, produce, service.settings.request_timeout_s)


async def _answer(
    request: Request, service: Service, deadline: Deadline, query: TimelineQuery, writer: NDJSONWriter
) -> None:
    record = record_of(request)
    async with service.recognizer.accept(
        query.model, deadline=deadline, ticket=record.ticket, timeline=True
    ) as accepted:
        record.model = accepted.model.manifest.name
        async with received_video(request, service.video_limits, accepted.ticket) as upload:
            record.received(upload.size_bytes)
            deadline.begin_phase(service.settings.request_timeout_s)  # until the first window
            found = classify_windows(accepted, upload.content, query)
            async with while_connected(request), aclosing(found):
                async for item in found:
                    if isinstance(item, WindowClassification):
                        service.metrics.classified(
                            record.model, item.predictions[0].label, item.timing.stages_ms()
                        )
                        if not writer.started:
                            deadline.end_phase()
                            service.metrics.stages(record.model, record.stages_ms)
                            to_here = record.stages_ms | item.timing.stages_ms()
                            timing = server_timing(to_here | {"total": record.elapsed_ms()})
                            await writer.start({"Server-Timing": timing})
                        await writer.write(TimelineWindow.of(item))
                    else:
                        end = TimelineEnd.of(
                            item,
                            receive_ms=record.stages_ms["receive"],
                            total_ms=record.elapsed_ms(),
                            request_id=record.request_id,
                        )
                        record.stages_ms = end.timing_ms.stages()
                        await writer.write(end)
