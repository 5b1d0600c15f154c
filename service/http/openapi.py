"""Additions to the OpenAPI document that FastAPI generates: request bodies, problem answers and examples."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.http.open_inference.model_control import IndexRequest, LoadRequest, UnloadRequest
from service.http.open_inference.schemas import InferenceError, InferenceRequest, InferenceResponse
from service.http.problems import MEDIA_TYPE, PROBLEM_TYPES, PROTOCOL_PATHS, problem_document
from service.http.schemas.common import Problem, VideoForm
from service.http.schemas.timeline import TimelineEnd, TimelineError, TimelineWindow
from service.http.transfer.ndjson import NDJSON_TYPE

DESCRIPTION = """\
Video action recognition. Post a video file to `/v1/classify` to get action labels, with the duration of every
processing stage. Errors are problem documents (RFC 9457); programs should branch on their `code`.
"""

SCHEMA_REFERENCE = "#/components/schemas/{model}"
API_KEY_SCHEME = "HTTPBearer"  # FastAPI's name for the scheme of `service.http.dependencies.require_key`
FASTAPI_ERROR_SCHEMAS = ("HTTPValidationError", "ValidationError")
# Schemas of documents that routes parse or write without FastAPI.
ADDITIONAL_SCHEMAS: tuple[tuple[type[BaseModel], Literal["validation", "serialization"]], ...] = (
    (Problem, "serialization"),
    (IndexRequest, "validation"),
    (LoadRequest, "validation"),
    (UnloadRequest, "validation"),
    (InferenceRequest, "validation"),
    (InferenceResponse, "serialization"),
    (InferenceError, "serialization"),
    (VideoForm, "validation"),
    (TimelineWindow, "serialization"),
    (TimelineEnd, "serialization"),
    (TimelineError, "serialization"),
)

# Relative to the address of the document, so it is also right behind a proxy with a prefix.
SERVERS: list[dict[str, str | Any]] = [{"url": ".", "description": "The service with this document."}]

_BINARY = {"schema": {"type": "string", "format": "binary"}}

VIDEO_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The video: mp4, mov, webm, mkv, avi or another common container.",
        "content": {
            "multipart/form-data": {"schema": {"$ref": "#/components/schemas/VideoForm"}},
            "video/*": _BINARY,
            "application/octet-stream": _BINARY,
        },
    }
}

# Problems of every route that receives a video, and of every route that also decodes it.
UPLOAD_PROBLEMS = (
    "bad_request", "unauthorized", "model_not_found", "too_large", "not_a_video", "invalid_parameter",
    "rate_limited", "overloaded", "storage_full", "not_ready", "deadline_exceeded",
)  # fmt: skip
VIDEO_PROBLEMS = (*UPLOAD_PROBLEMS, "undecodable", "over_limit")

EXAMPLE_DETAILS = {
    "bad_request": "The form has no field 'file'.",
    "unauthorized": "Send a valid API key: Authorization: Bearer KEY.",
    "model_not_found": "There is no model 'nonesuch'; /v1/models lists the models.",
    "forbidden": "Models cannot be changed over HTTP: no admin key is set (BLVNET_ADMIN_KEY).",
    "model_refused": "walk/2 is refused: model.json is missing; still served: 1.",
    "jobs_off": "Jobs are disabled: neither BLVNET_JOBS_DIR nor BLVNET_JOBS_REDIS_URL is set.",
    "jobs_unavailable": "The jobs cannot be reached at the moment.",
    "teaching_off": "Teaching is disabled: the folder for it (BLVNET_TEACH_DIR) is not set.",
    "example_not_found": "gestures has no example 0f3c2b1a.",
    "label_conflict": "This clip is an example of 'left' already; delete that one to change its label.",
    "base_changed": "The examples of gestures are features of blvnet-tam-mini/5, which is not loaded.",
    "name_taken": "walk is a model of the models folder; choose another name.",
    "training": "gestures is being trained; wait for the result.",
    "teaching_full": "gestures has 10000 examples, the limit.",
    "too_few_examples": "each label needs at least 2 clips; add clips of 'left'",
    "training_failed": "The training of gestures was ended by SIGKILL; the examples are kept.",
    "job_not_found": "There is no job 0f3c2b1a; finished jobs are deleted after 24 h.",
    "idempotency_mismatch": "This Idempotency-Key was used for a job with other parameters or another video.",
    "too_large": "The upload exceeds the limit of 100000000 bytes.",
    "not_a_video": "The file is not a supported video container.",
    "undecodable": "No frame of the video can be decoded.",
    "invalid_parameter": "top_k: should be greater than or equal to 1",
    "over_limit": "pixels is 3.5389e+07, the limit is 9437184",
    "rate_limited": "Request limit for this key reached (60 per minute).",
    "overloaded": "The queue is full (64 requests in progress).",
    "storage_full": "The disk for uploads is full.",
    "not_ready": "Models are being loaded.",
    "deadline_exceeded": "The request was not answered within 30 s.",
}


def operation_id(route: APIRoute) -> str:
    """Return the operation's name in generated clients: the function's name, with prefix `v2_` for `/v2`."""
    return f"v2_{route.name}" if PROTOCOL_PATHS.match(route.path_format) else route.name


def install(app: FastAPI) -> None:
    """Complete `/openapi.json` of `app`."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                servers=SERVERS,
            )
            app.openapi_schema = _completed(document, open_to_all=app.state.service.keys.open)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # the way that FastAPI documents


def _completed(document: dict[str, Any], *, open_to_all: bool) -> dict[str, Any]:
    """Add the missing schemas, and remove generated responses that this service never sends."""
    schemas = document["components"]["schemas"]
    for name in FASTAPI_ERROR_SCHEMAS:
        schemas.pop(name, None)
    _, definitions = models_json_schema(ADDITIONAL_SCHEMAS, ref_template=SCHEMA_REFERENCE)
    schemas.update(definitions["$defs"])
    for path in document["paths"].values():
        for operation in path.values():
            validation_error = operation["responses"].get("422", {})
            schema = validation_error.get("content", {}).get("application/json", {}).get("schema", {})
            if schema.get("$ref", "").endswith(FASTAPI_ERROR_SCHEMAS):
                del operation["responses"]["422"]
            for parameter in operation.get("parameters", []):
                parameter["schema"] = _without_null(parameter["schema"])
            if open_to_all and operation.get("security") == [{API_KEY_SCHEME: []}]:
                del operation["security"]
    return document


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Drop null from a parameter's types: URLs and headers cannot contain null."""
    types = [option for option in schema.get("anyOf", []) if option != {"type": "null"}]
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    return rest | types[0] if len(types) == 1 else schema


def schema_of(kind: type[BaseModel]) -> dict[str, Any]:
    """Return a reference to one of `ADDITIONAL_SCHEMAS`."""
    return {"$ref": SCHEMA_REFERENCE.format(model=kind.__name__)}


def json_body(kind: type[BaseModel]) -> dict[str, Any]:
    """Return the `openapi_extra` of a route that parses its body, because clients send no content type."""
    return {"requestBody": {"content": {"application/json": {"schema": schema_of(kind)}}}}


def ndjson(*kinds: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route that streams these documents as NDJSON."""
    schema = {
        "description": "The schema of one line: a JSON document with a line break. The last line is "
        "a summary or an error.",
        "anyOf": [schema_of(kind) for kind in kinds],
    }
    return {200: {"description": "NDJSON", "content": {NDJSON_TYPE: {"schema": schema}}}}


def problems(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route that can answer with these problems, with an example of each."""
    responses: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        status, title = PROBLEM_TYPES[code]
        if status not in responses:
            content = {MEDIA_TYPE: {"schema": schema_of(Problem), "examples": {}}}
            responses[status] = {"description": title, "content": content}
            if status in (429, 503):
                seconds = {"type": "integer", "minimum": 1}
                header = {"description": "Seconds to wait before the next attempt.", "schema": seconds}
                responses[status]["headers"] = {"Retry-After": header}
        else:
            responses[status]["description"] += f" / {title}"
        example = problem_document(code, EXAMPLE_DETAILS[code], "6f1f9f0c2f8e4b0f9c59ad0c9bfa0a3c")
        responses[status]["content"][MEDIA_TYPE]["examples"][code] = {"summary": title, "value": example}
    return responses


def protocol_errors() -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of the Open Inference Protocol's routes, whose errors have their own format."""
    schema = schema_of(InferenceError)
    statuses = sorted({kind.status for kind in PROBLEM_TYPES.values()})
    return {
        status: {
            "description": " / ".join(kind.title for kind in PROBLEM_TYPES.values() if kind.status == status),
            "content": {"application/json": {"schema": schema}},
        }
        for status in statuses
    }
