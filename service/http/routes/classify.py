"""`POST /v1/classify`: a clip in, labels out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from service.http.context import RequestRecord, record_of
from service.http.deps import RequestDeadline, Service, take_share, until, while_connected
from service.http.lifecycle import Lifecycle
from service.http.openapi import CLIP_BODY, problems
from service.http.schemas import Classification, ClassifyAnswer, ClassifyParameters, server_timing
from service.http.uploads import received_clip
from service.pipeline.recognition import Query as ClipQuery
from service.pipeline.recognition import Recognition

router = APIRouter(prefix="/v1", tags=["recognition"])


@router.post(
    "/classify",
    summary="Label a clip",
    response_model=ClassifyAnswer,
    responses=problems(
        "bad_request", "unauthorized", "model_not_found", "too_large", "not_a_video", "undecodable",
        "invalid_parameter", "over_limit", "rate_limited", "overloaded", "not_ready", "deadline_exceeded",
    ),
    openapi_extra=CLIP_BODY,
    dependencies=[Depends(take_share)],
)  # fmt: skip
async def classify(
    request: Request,
    service: Service,
    deadline: RequestDeadline,
    parameters: Annotated[ClassifyParameters, Query()],
) -> Response:
    """What is happening in this clip?

    Send the clip as the form field `file`, or as the body itself.
    """
    record = record_of(request)
    query = ClipQuery(
        model=parameters.model,
        top_k=parameters.top_k,
        clips=parameters.clips,
        crops=int(parameters.crops),
        evidence=parameters.evidence,
    )
    # A model that is not there is refused before the clip is read; one that is stays until the answer.
    with service.admit(query.views, deadline.at), service.recognizer.model(query.model).held() as held:
        record.model = held.manifest.name
        async with (
            until(deadline),
            received_clip(request, service.settings.max_upload_bytes) as upload,
        ):
            record.received(upload.size_bytes)
            async with while_connected(request):
                recognition = await service.recognizer.recognize(upload.clip, query, deadline.at, held)
    return _answer(service, record, recognition)


def _answer(service: Lifecycle, record: RequestRecord, recognition: Recognition) -> Response:
    classification = Classification.of(
        recognition, receive_ms=record.stages_ms["receive"], total_ms=record.elapsed_ms()
    )
    answer = ClassifyAnswer(**dict(classification), request_id=record.request_id)
    stages = answer.timing_ms.stages()
    record.stages_ms = stages
    service.metrics.stages(answer.model.name, stages)
    service.metrics.predictions.labels(answer.model.name, answer.predictions[0].label).inc()
    return Response(
        answer.model_dump_json(),
        media_type="application/json",
        headers={"Server-Timing": server_timing(answer.timing_ms.model_dump())},
    )
