"""`/v2`: the Open Inference Protocol, with the graph's input tensors or an encoded video as input."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response
from starlette.concurrency import run_in_threadpool

from service.errors import NotReady
from service.http.context import RequestRecord, record_of
from service.http.dependencies import (
    CurrentService,
    RequestDeadline,
    check_ready,
    take_share,
    while_connected,
)
from service.http.open_inference import tensors
from service.http.open_inference.schemas import (
    InferenceRequest,
    InferenceResponse,
    ModelConfigTensor,
    ModelMetadata,
    ModelReady,
    ModelStatistics,
    ServerLive,
    ServerMetadata,
    ServerReady,
    StatisticsList,
    TensorMetadata,
    TritonModelConfig,
)
from service.http.openapi import protocol_errors, schema_of
from service.http.schemas.common import server_timing
from service.http.service import Service
from service.http.transfer.uploads import UploadLimits, received_body
from service.models.loading import Model
from service.pipeline.classification import Inferred
from service.pipeline.limits.deadline import Deadline

JSON_LENGTH_HEADER = "Inference-Header-Content-Length"
# The supported extensions of the protocol; all but the last are Triton's.
EXTENSIONS = [
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "statistics",
    "encoded_clip",
]
PLATFORMS = {"onnxruntime": "onnxruntime_onnx", "openvino": "openvino"}

Version = Annotated[str, Path(pattern=r"^[0-9]{1,18}$", description="Version of the model.")]

router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"], responses=protocol_errors())


@router.get("", summary="Server metadata")
async def server(request: Request) -> ServerMetadata:
    """Name, version and supported extensions of the server."""
    return ServerMetadata(name=request.app.title, version=request.app.version, extensions=EXTENSIONS)


@router.get("/health/live", summary="Liveness")
async def live() -> ServerLive:
    """200 while the process can answer."""
    return ServerLive(live=True)


@router.get("/health/ready", summary="Readiness")
async def ready(service: CurrentService) -> ServerReady:
    """200 while the service accepts requests."""
    check_ready(service)
    return ServerReady(ready=True)


@router.get("/models/stats", summary="Statistics of all models")
async def all_statistics(service: CurrentService) -> StatisticsList:
    """Counts and total durations of requests since the start, for each model that serves."""
    names = sorted({entry.name for entry in service.recognizer.models.entries() if entry.opened is not None})
    return StatisticsList(model_stats=[_statistics(service, name, None) for name in names])


@router.get("/models/{name}", summary="Model metadata")
async def model(service: CurrentService, name: str) -> ModelMetadata:
    """The model's tensors; -1 stands for the number of clips."""
    return _metadata(service, name, None)


@router.get("/models/{name}/versions/{version}", summary="Metadata of a version")
async def model_version(service: CurrentService, name: str, version: Version) -> ModelMetadata:
    """The model's tensors; -1 stands for the number of clips."""
    return _metadata(service, name, int(version))


def _metadata(service: Service, name: str, version: int | None) -> ModelMetadata:
    model = service.recognizer.model(name, version).model
    spec = model.manifest.clip
    return ModelMetadata(
        name=model.manifest.name,
        versions=[str(number) for number in sorted(service.recognizer.models.registry.versions(name))],
        platform=PLATFORMS[model.session.runtime.engine],
        inputs=[
            TensorMetadata(name=item.name, datatype="UINT8", shape=[-1, *item.shape(spec.frames)])
            for item in spec.inputs
        ],
        outputs=[
            TensorMetadata(name=name, datatype="FP32", shape=[-1, *shape])
            for name, shape in _output_shapes(model).items()
        ],
    )


@router.get("/models/{name}/config", summary="Model configuration")
async def model_config(service: CurrentService, name: str) -> TritonModelConfig:
    """The model's configuration in Triton's format; `dims` leave out the batch axis."""
    return _config(service, name, None)


@router.get("/models/{name}/versions/{version}/config", summary="Configuration of a version")
async def model_version_config(service: CurrentService, name: str, version: Version) -> TritonModelConfig:
    """The model's configuration in Triton's format; `dims` leave out the batch axis."""
    return _config(service, name, int(version))


def _config(service: Service, name: str, version: int | None) -> TritonModelConfig:
    model = service.recognizer.model(name, version).model
    spec = model.manifest.clip
    engine = model.session.runtime.engine
    batches = model.opened.batches
    return TritonModelConfig(
        name=model.manifest.name,
        platform=PLATFORMS[engine],
        backend=engine,
        version_policy={"specific": {"versions": sorted(service.recognizer.models.registry.versions(name))}},
        max_batch_size=max(batches.sizes) if batches else service.settings.max_batch or 1,
        input=[
            ModelConfigTensor(name=item.name, data_type="TYPE_UINT8", dims=list(item.shape(spec.frames)))
            for item in spec.inputs
        ],
        output=[
            ModelConfigTensor(name=name, data_type="TYPE_FP32", dims=list(shape))
            for name, shape in _output_shapes(model).items()
        ],
    )


@router.get("/models/{name}/stats", summary="Model statistics")
async def statistics(service: CurrentService, name: str) -> StatisticsList:
    """Counts and total durations of requests for the model since the start, over all its versions."""
    return StatisticsList(model_stats=[_statistics(service, name, None)])


@router.get("/models/{name}/versions/{version}/stats", summary="Statistics of a version")
async def version_statistics(service: CurrentService, name: str, version: Version) -> StatisticsList:
    """Counts and total durations of requests for the model since the start, over all its versions."""
    return StatisticsList(model_stats=[_statistics(service, name, int(version))])


def _statistics(service: Service, name: str, version: int | None) -> ModelStatistics:
    manifest = service.recognizer.model(name, version).manifest
    return ModelStatistics.of(manifest.name, manifest.version, service.metrics.model_usage(manifest.name))


@router.get("/models/{name}/ready", summary="Readiness of a model")
async def model_ready(service: CurrentService, name: str) -> ModelReady:
    """200 while the service accepts requests for the model."""
    return _ready(service, name, None)


@router.get("/models/{name}/versions/{version}/ready", summary="Readiness of a version")
async def model_version_ready(service: CurrentService, name: str, version: Version) -> ModelReady:
    """200 while the service accepts requests for the version."""
    return _ready(service, name, int(version))


def _ready(service: Service, name: str, version: int | None) -> ModelReady:
    model = service.recognizer.model(name, version)
    check_ready(service)
    if (problem := model.problem()) is not None:
        raise NotReady(problem, retry_after_s=1)
    return ModelReady(name=model.manifest.name, ready=True)


INFER_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "Inference request of the protocol. Its inputs are those of the graph, or one input "
        f"named '{tensors.CLIP}' of type BYTES with an encoded video: its bytes in binary tensor data, "
        "base64 in JSON.",
        "content": {
            "application/json": {"schema": schema_of(InferenceRequest)},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
# The response is written without FastAPI, because bytes of tensors may follow the document.
INFER_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "application/json": {"schema": schema_of(InferenceResponse)},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        }
    }
}


@router.post(
    "/models/{name}/infer",
    summary="Inference",
    openapi_extra=INFER_BODY,
    dependencies=[Depends(take_share)],
    response_class=Response,
    responses=INFER_RESPONSES,
)
async def infer(request: Request, service: CurrentService, deadline: RequestDeadline, name: str) -> Response:
    """Run a model on tensors, or on a video. JSON or binary tensor data."""
    return await _infer(request, service, deadline, name, None)


@router.post(
    "/models/{name}/versions/{version}/infer",
    summary="Inference with a version",
    openapi_extra=INFER_BODY,
    dependencies=[Depends(take_share)],
    response_class=Response,
    responses=INFER_RESPONSES,
)
async def infer_version(
    request: Request, service: CurrentService, deadline: RequestDeadline, name: str, version: Version
) -> Response:
    """Run a version of a model on tensors, or on a video. JSON or binary tensor data."""
    return await _infer(request, service, deadline, name, int(version))


async def _infer(
    request: Request, service: Service, deadline: Deadline, name: str, version: int | None
) -> Response:
    record = record_of(request)
    settings = service.settings
    header_length = request.headers.get(JSON_LENGTH_HEADER)
    limits = UploadLimits(
        tensors.max_body_bytes(
            header_length, max_upload_bytes=settings.max_upload_bytes, max_json_bytes=settings.max_json_bytes
        ),
        settings.request_timeout_s,
    )
    # An unknown model is refused before the body is read; a known one stays loaded until the answer.
    async with service.recognizer.accept(name, version, deadline=deadline) as accepted:
        manifest = accepted.model.manifest
        record.model = manifest.name
        async with received_body(request, limits, accepted.ticket) as upload:
            record.received(upload.size_bytes)
            memory_bytes = tensors.memory_bytes(upload.size_bytes, header_length)
            async with while_connected(request), service.body_memory.reserve(memory_bytes) as reservation:
                parsed = await run_in_threadpool(
                    tensors.parse, await upload.read(), header_length, accepted.model.model.output_names
                )
                if parsed.has_video:
                    video = await run_in_threadpool(tensors.video, parsed)
                    parsed = parsed.without_inputs()
                    reservation.shrink(upload.size_bytes)
                    inferred = await accepted.infer_video(video)
                else:
                    inputs = await run_in_threadpool(tensors.tensors, parsed, manifest.clip)
                    parsed = parsed.without_inputs()
                    reservation.shrink(upload.size_bytes)
                    inferred = await accepted.infer(inputs)
                return await _response(service, record, parsed, inferred)


async def _response(
    service: Service, record: RequestRecord, request: tensors.ParsedRequest, inferred: Inferred
) -> Response:
    manifest = inferred.manifest
    body = await run_in_threadpool(
        tensors.response_body, request, inferred.outputs, manifest.labels, manifest.name, manifest.version
    )
    record.stages_ms |= inferred.timing.stages_ms()
    service.metrics.stages(manifest.name, record.stages_ms)
    for index in inferred.outputs.logits.argmax(axis=1):
        service.metrics.predictions.labels(manifest.name, manifest.labels[index]).inc()
    headers = {"Server-Timing": server_timing(record.stages_ms)}
    if body.json_bytes is None:
        return Response(body.content, media_type="application/json", headers=headers)
    headers[JSON_LENGTH_HEADER] = str(body.json_bytes)
    return Response(body.content, media_type="application/octet-stream", headers=headers)


def _output_shapes(model: Model) -> dict[str, list[int]]:
    """Shapes of the outputs without the batch axis; -1 for an axis of any length."""
    shapes = model.output_shapes
    return {name: [-1 if axis is None else axis for axis in shape] for name, shape in shapes.items()}
