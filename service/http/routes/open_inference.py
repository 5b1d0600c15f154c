"""`/v2`: the Open Inference Protocol, on the graph's own inputs and outputs, or with a clip instead."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response
from starlette.concurrency import run_in_threadpool

from service.http import open_inference
from service.http.context import RequestRecord, record_of
from service.http.deps import (
    Deadline,
    RequestDeadline,
    Service,
    check_ready,
    take_share,
    until,
    while_connected,
)
from service.http.lifecycle import Lifecycle
from service.http.openapi import protocol_errors, schema_of
from service.http.schemas import (
    InferenceResponse,
    ServerLive,
    ServerMetadata,
    ServerReady,
    TensorMetadata,
    V2Model,
    V2ModelReady,
    server_timing,
)
from service.http.uploads import received_body
from service.packages import Model
from service.pipeline.recognition import Inferred
from service.runtime.signature import EVIDENCE, LOGITS

PREFIX = "/v2"
JSON_LENGTH_HEADER = "Inference-Header-Content-Length"
# Of the protocol's extensions those that are here; all but the last are Triton's.
EXTENSIONS = ["binary_tensor_data", "classification", "model_repository", "encoded_clip"]
PLATFORMS = {"onnxruntime": "onnxruntime_onnx", "openvino": "openvino"}

Version = Annotated[str, Path(pattern=r"^[0-9]{1,18}$", description="A whole number.")]

router = APIRouter(prefix=PREFIX, tags=["Open Inference Protocol"], responses=protocol_errors())


@router.get("", summary="Describe the server")
async def server(request: Request) -> ServerMetadata:
    """Name, version and the protocol's extensions."""
    return ServerMetadata(name=request.app.title, version=request.app.version, extensions=EXTENSIONS)


@router.get("/health/live", summary="Is the process alive?")
async def live() -> ServerLive:
    """200 while the process can answer at all."""
    return ServerLive(live=True)


@router.get("/health/ready", summary="Would a request be accepted?")
async def ready(service: Service) -> ServerReady:
    """200 when a request would be accepted now."""
    check_ready(service)
    return ServerReady(ready=True)


@router.get("/models/{name}", summary="Describe a model")
async def model(service: Service, name: str) -> V2Model:
    """The model's tensors; -1 stands for the number of clips."""
    return _described(service, name, None)


@router.get("/models/{name}/versions/{version}", summary="Describe a version of a model")
async def model_version(service: Service, name: str, version: Version) -> V2Model:
    """The model's tensors; -1 stands for the number of clips."""
    return _described(service, name, int(version))


def _described(service: Lifecycle, name: str, version: int | None) -> V2Model:
    found = service.recognizer.model(name, version).model
    spec = found.manifest.clip
    return V2Model(
        name=found.manifest.name,
        versions=[str(number) for number in service.recognizer.versions(name)],
        platform=PLATFORMS[found.session.runtime.engine],
        inputs=[
            TensorMetadata(name=item.name, datatype="UINT8", shape=[-1, *item.shape(spec.frames)])
            for item in spec.inputs
        ],
        outputs=_outputs(found),
    )


@router.get("/models/{name}/ready", summary="Does a model serve?")
async def model_ready(service: Service, name: str) -> V2ModelReady:
    """200 when a request for it would be accepted now."""
    return _ready(service, name, None)


@router.get("/models/{name}/versions/{version}/ready", summary="Does a version of a model serve?")
async def model_version_ready(service: Service, name: str, version: Version) -> V2ModelReady:
    """200 when a request for it would be accepted now."""
    return _ready(service, name, int(version))


def _ready(service: Lifecycle, name: str, version: int | None) -> V2ModelReady:
    found = service.recognizer.model(name, version)
    check_ready(service)
    return V2ModelReady(name=found.manifest.name, ready=True)


INFER_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "An inference request of the protocol. Its inputs are the graph's own, or one named "
        f"'{open_inference.CLIP}' of type BYTES that holds an encoded video: as it is in binary tensor data, "
        "as base64 in JSON.",
        "content": {
            "application/json": {"schema": schema_of(open_inference.InferenceRequest)},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
# What is answered is written by hand: it may be a document with the bytes of tensors behind it.
INFERRED: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "application/json": {"schema": schema_of(InferenceResponse)},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        }
    }
}


@router.post(
    "/models/{name}/infer",
    summary="Run a model",
    openapi_extra=INFER_BODY,
    dependencies=[Depends(take_share)],
    response_class=Response,
    responses=INFERRED,
)
async def infer(request: Request, service: Service, deadline: RequestDeadline, name: str) -> Response:
    """Tensors in, tensors out, in JSON or with binary tensor data behind it."""
    return await _inferred(request, service, deadline, name, None)


@router.post(
    "/models/{name}/versions/{version}/infer",
    summary="Run a version of a model",
    openapi_extra=INFER_BODY,
    dependencies=[Depends(take_share)],
    response_class=Response,
    responses=INFERRED,
)
async def infer_version(
    request: Request, service: Service, deadline: RequestDeadline, name: str, version: Version
) -> Response:
    """Tensors in, tensors out, in JSON or with binary tensor data behind it."""
    return await _inferred(request, service, deadline, name, int(version))


async def _inferred(
    request: Request, service: Lifecycle, deadline: Deadline, name: str, version: int | None
) -> Response:
    record = record_of(request)
    # A model that is not there is refused before the request is read; one that is stays until the answer.
    with service.admit(deadline=deadline.at), service.recognizer.model(name, version).held() as held:
        record.model = held.manifest.name
        async with (
            until(deadline),
            received_body(request, service.settings.max_upload_bytes) as upload,
        ):
            record.received(upload.size_bytes)
            header_length = request.headers.get(JSON_LENGTH_HEADER)
            memory_bytes = open_inference.memory_bytes(upload.size_bytes, header_length)
            async with while_connected(request), service.body_memory.hold(memory_bytes) as share:
                call = await run_in_threadpool(open_inference.parse, await upload.read(), header_length)
                if call.wants_clip:
                    clip = await run_in_threadpool(open_inference.clip, call)
                    call = call.without_inputs()
                    share.shrink(upload.size_bytes)
                    inferred = await service.recognizer.infer_clip(clip, held, deadline.at)
                else:
                    inputs = await run_in_threadpool(open_inference.tensors, call, held.manifest.clip)
                    call = call.without_inputs()
                    share.shrink(upload.size_bytes)
                    inferred = await service.recognizer.infer(inputs, held, deadline.at)
                return await _answer(service, record, call, inferred)


async def _answer(
    service: Lifecycle, record: RequestRecord, call: open_inference.Call, inferred: Inferred
) -> Response:
    manifest = inferred.manifest
    body = await run_in_threadpool(
        open_inference.answer, call, inferred.outputs, manifest.labels, manifest.name, manifest.version
    )
    record.stages_ms |= inferred.stages_ms()
    service.metrics.stages(manifest.name, record.stages_ms)
    for index in inferred.outputs.logits.argmax(axis=1):
        service.metrics.predictions.labels(manifest.name, manifest.labels[index]).inc()
    headers = {"Server-Timing": server_timing(record.stages_ms)}
    if body.json_bytes is None:
        return Response(body.content, media_type="application/json", headers=headers)
    headers[JSON_LENGTH_HEADER] = str(body.json_bytes)
    return Response(body.content, media_type="application/octet-stream", headers=headers)


def _outputs(model: Model) -> list[TensorMetadata]:
    shapes = {
        tensor.name: [-1 if axis is None else axis for axis in tensor.shape]
        for tensor in model.session.outputs
    }
    return [TensorMetadata(name=name, datatype="FP32", shape=shapes[name]) for name in (LOGITS, EVIDENCE)]
