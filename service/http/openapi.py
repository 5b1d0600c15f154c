"""What `/openapi.json` says beyond what FastAPI finds out by itself: bodies, problem answers, examples."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.http.model_control import IndexRequest, LoadRequest, UnloadRequest
from service.http.open_inference import InferenceRequest
from service.http.problems import KINDS, MEDIA_TYPE
from service.http.schemas import InferenceResponse, Problem
from service.http.timeline_schemas import TimelineEnd, TimelineError, TimelineWindow

DESCRIPTION = """\
What is happening in this clip? Post a video file to `/v1/classify` and get action labels back, with the time
that every stage took. Errors are problem documents (RFC 9457); programs should look at their `code`.
"""

SCHEMA_REFERENCE = "#/components/schemas/{model}"
API_KEY = "HTTPBearer"  # FastAPI's name for the scheme of `service.http.deps.require_key`
FASTAPIS_ERRORS = ("HTTPValidationError", "ValidationError")
READ_AND_WRITTEN_BY_HAND: tuple[tuple[type[BaseModel], Literal["validation", "serialization"]], ...] = (
    (Problem, "serialization"),
    (IndexRequest, "validation"),
    (LoadRequest, "validation"),
    (UnloadRequest, "validation"),
    (InferenceRequest, "validation"),
    (InferenceResponse, "serialization"),
    (TimelineWindow, "serialization"),
    (TimelineEnd, "serialization"),
    (TimelineError, "serialization"),
)

LINES_TYPE = "application/x-ndjson"
_BINARY = {"schema": {"type": "string", "format": "binary"}}

CLIP_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The clip: mp4, mov, webm, mkv, avi and other common containers.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "additionalProperties": False,
                    "properties": {
                        "file": {"type": "string", "format": "binary", "description": "The clip."}
                    },
                }
            },
            "video/*": _BINARY,
            "application/octet-stream": _BINARY,
        },
    }
}

_DETAILS = {
    "bad_request": "The form has no field 'file'.",
    "unauthorized": "Send a valid API key: Authorization: Bearer KEY.",
    "model_not_found": "There is no model 'nonesuch'; /v1/models lists them.",
    "forbidden": "No admin key is set, so models cannot be changed over HTTP.",
    "model_refused": "walk/2 is refused: there is no model.json; served: 1.",
    "too_large": "The upload has more than 100000000 bytes, which is the limit.",
    "not_a_video": "The bytes are not a video container that the service takes.",
    "undecodable": "No frame of the video can be decoded.",
    "invalid_parameter": "top_k: should be greater than or equal to 1",
    "over_limit": "pixels is 3.5389e+07, the limit is 9437184",
    "rate_limited": "60 requests with this key within a minute, the limit.",
    "overloaded": "64 requests are in work, the limit.",
    "not_ready": "models are being loaded",
    "deadline_exceeded": "The request was not answered within 30 s.",
}


def install(app: FastAPI) -> None:
    """Let `/openapi.json` of `app` be complete."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes
            )
            app.openapi_schema = _complete(document, open_to_all=app.state.service.keys.open)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _complete(document: dict[str, Any], *, open_to_all: bool) -> dict[str, Any]:
    """Add what FastAPI does not know, and take out what it says that does not hold."""
    schemas = document["components"]["schemas"]
    for name in FASTAPIS_ERRORS:
        schemas.pop(name, None)
    _, definitions = models_json_schema(READ_AND_WRITTEN_BY_HAND, ref_template=SCHEMA_REFERENCE)
    schemas.update(definitions["$defs"])
    for path in document["paths"].values():
        for operation in path.values():
            if _is_fastapis(operation["responses"].get("422", {})):
                del operation["responses"]["422"]
            for parameter in operation.get("parameters", []):
                parameter["schema"] = _without_null(parameter["schema"])
            if open_to_all and operation.get("security") == [{API_KEY: []}]:
                del operation["security"]
    return document


def _is_fastapis(response: dict[str, Any]) -> bool:
    """Whether it is FastAPI's own shape of errors, which is never answered."""
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    return bool(schema.get("$ref", "").endswith(FASTAPIS_ERRORS))


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter that is left out has no value: there is no way to write null into a URL or a header."""
    kinds = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    return rest | kinds[0] if len(kinds) == 1 else schema


def schema_of(kind: type[BaseModel]) -> dict[str, Any]:
    """A reference to the schema of one of `READ_AND_WRITTEN_BY_HAND`."""
    return {"$ref": SCHEMA_REFERENCE.format(model=kind.__name__)}


def json_body(kind: type[BaseModel]) -> dict[str, Any]:
    """The `openapi_extra` of a route that reads its body by hand, as clients send it without a type."""
    return {"requestBody": {"content": {"application/json": {"schema": schema_of(kind)}}}}


def json_lines(*kinds: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that answers in lines of JSON, each of one of these kinds."""
    schema = {
        "description": "A JSON document in each line; the last one is a summary, or an error.",
        "anyOf": [schema_of(kind) for kind in kinds],
    }
    return {200: {"description": "Lines", "content": {LINES_TYPE: {"schema": schema}}}}


def problems(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that can answer with these problems, an example for each."""
    responses: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        status, title = KINDS[code]
        response = responses.setdefault(status, _problem_response(status))
        response["content"][MEDIA_TYPE]["examples"][code] = {"summary": title, "value": _example(code)}
        response["description"] = " / ".join(filter(None, [response["description"], title]))
    return responses


def protocol_errors() -> dict[int | str, dict[str, Any]]:
    """The `responses` of the Open Inference Protocol's routes, whose errors have the protocol's own shape."""
    schema = {
        "type": "object",
        "required": ["error"],
        "properties": {"error": {"type": "string"}},
    }
    statuses = sorted({kind.status for kind in KINDS.values()})
    return {
        status: {
            "description": " / ".join(kind.title for kind in KINDS.values() if kind.status == status),
            "content": {"application/json": {"schema": schema}},
        }
        for status in statuses
    }


def _problem_response(status: int) -> dict[str, Any]:
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}}
    response: dict[str, Any] = {"description": "", "content": content}
    if status in (429, 503):
        schema = {"type": "integer", "minimum": 1}
        response["headers"] = {
            "Retry-After": {"description": "Seconds until it is worth a try.", "schema": schema}
        }
    return response


def _example(code: str) -> dict[str, Any]:
    status, title = KINDS[code]
    example = Problem(
        type=f"urn:blvnet:problem:{code}",
        title=title,
        status=status,
        detail=_DETAILS[code],
        code=code,
        request_id="6f1f9f0c2f8e4b0f9c59ad0c9bfa0a3c",
    )
    return example.model_dump(exclude_none=True)
