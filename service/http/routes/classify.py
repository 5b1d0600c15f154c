"""`POST /v1/classify`: labels of a clip."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from service.http.answer_cache import cache_key
from service.http.context import RequestRecord, record_of
from service.http.dependencies import CurrentService, RequestDeadline, take_share, while_connected
from service.http.openapi import VIDEO_BODY, VIDEO_PROBLEMS, problems
from service.http.schemas.classify import ClassifyAnswer, ClassifyParameters
from service.http.schemas.common import MS_DIGITS, server_timing
from service.http.service import Service
from service.http.transfer.uploads import received_video
from service.pipeline.classification import Query as VideoQuery

router = APIRouter(prefix="/v1", tags=["recognition"])


@router.post(
    "/classify",
    summary="Label a clip",
    response_model=ClassifyAnswer,
    responses=problems(*VIDEO_PROBLEMS),
    openapi_extra=VIDEO_BODY,
    dependencies=[Depends(take_share)],
)
async def classify(
    request: Request,
    service: CurrentService,
    deadline: RequestDeadline,
    parameters: Annotated[ClassifyParameters, Query()],
) -> Response:
    """What is happening in this clip?

    Send the clip as the form field `file`, or as the body itself.
    """
    record = record_of(request)
    query = VideoQuery(
        model=parameters.model,
        top_k=parameters.top_k,
        clips=parameters.clips,
        crops=parameters.crops,
        evidence=parameters.evidence,
        frames=parameters.frames,
    )
    # The model is held from here on, so an unknown model is refused before the upload is received.
    async with service.recognizer.accept(
        query.model, views=query.views, deadline=deadline, ticket=record.ticket
    ) as accepted:
        record.model = accepted.model.manifest.name
        async with received_video(request, service.video_limits, accepted.ticket) as upload:
            record.received(upload.size_bytes)

            async def compute() -> ClassifyAnswer:
                return ClassifyAnswer.of(await accepted.classify(upload.content, query))

            async with while_connected(request):
                if service.cache is None:
                    answer = await compute()
                else:
                    key = await cache_key(upload.content, accepted.model.manifest, query)
                    answer, cached = await service.cache.get_or_compute(key, compute)
                    service.metrics.cache_requests.labels(cached.value).inc()
    return _completed(service, record, answer)


def _completed(service: Service, record: RequestRecord, answer: ClassifyAnswer) -> Response:
    """Build the response with an answer; fill in its timing and request id, and count it."""
    timing = answer.timing_ms
    timing.receive = round(record.stages_ms["receive"], MS_DIGITS)
    timing.total = round(record.elapsed_ms(), MS_DIGITS)
    answer.request_id = record.request_id
    record.stages_ms = timing.stages()
    service.metrics.classified(
        answer.model.name, answer.predictions[0].label, None if answer.cached else record.stages_ms
    )
    return Response(
        answer.model_dump_json(),
        media_type="application/json",
        headers={"Server-Timing": server_timing(timing.model_dump())},
    )
