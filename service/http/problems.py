"""Error answers: problem documents (RFC 9457), or `{"error": ...}` under the Open Inference Protocol's `/v2`.

One table maps the codes of `service.errors`, and a few of HTTP itself, to statuses and titles. Messages of
unexpected exceptions are never sent to clients.
"""

from __future__ import annotations

import logging
import math
import re
from typing import Any, NamedTuple

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from service.errors import InvalidParameter, OverLimit, RequestError, RetryAfter
from service.http.context import record_of

MEDIA_TYPE = "application/problem+json"
INTERNAL_ERROR = "internal_error"
METHODS = ("GET", "HEAD", "POST", "DELETE")
UNEXPECTED = "Unexpected error. The service's log has the details under this request id."
PROTOCOL_PATHS = re.compile(r"/v2(/|$)")
# Never sent: only logs and metrics show this status, as in nginx.
CLIENT_CLOSED_REQUEST = 499

logger = logging.getLogger(__name__)


class ProblemType(NamedTuple):
    """Status and title of all problems with one code."""

    status: int
    title: str


PROBLEM_TYPES: dict[str, ProblemType] = {
    "bad_request": ProblemType(400, "Malformed request"),
    "unauthorized": ProblemType(401, "Missing or invalid API key"),
    "forbidden": ProblemType(403, "Disabled without an admin key"),
    "jobs_off": ProblemType(403, "Jobs are disabled"),
    "teaching_off": ProblemType(403, "Teaching is disabled"),
    "not_found": ProblemType(404, "Not found"),
    "model_not_found": ProblemType(404, "Model not found"),
    "job_not_found": ProblemType(404, "Job not found"),
    "example_not_found": ProblemType(404, "Example not found"),
    "method_not_allowed": ProblemType(405, "Method not allowed"),
    "model_refused": ProblemType(409, "Model package refused"),
    "idempotency_mismatch": ProblemType(409, "Idempotency-Key used for another job"),
    "label_conflict": ProblemType(409, "Conflict with another example or label"),
    "base_changed": ProblemType(409, "Examples of another base"),
    "name_taken": ProblemType(409, "Name of another model"),
    "training": ProblemType(409, "Training in progress"),
    "teaching_full": ProblemType(409, "Limit of taught models reached"),
    "too_large": ProblemType(413, "Upload too large"),
    "not_a_video": ProblemType(415, "Not a supported video"),
    "undecodable": ProblemType(422, "Video cannot be decoded"),
    "invalid_parameter": ProblemType(422, "Invalid parameter"),
    "over_limit": ProblemType(422, "Video exceeds a limit"),
    "too_few_examples": ProblemType(422, "Too few examples"),
    "rate_limited": ProblemType(429, "Too many requests with this API key"),
    INTERNAL_ERROR: ProblemType(500, "Internal error"),
    "overloaded": ProblemType(503, "Service overloaded"),
    "storage_full": ProblemType(503, "No disk space for the upload"),
    "jobs_unavailable": ProblemType(503, "Jobs unavailable"),
    "not_ready": ProblemType(503, "Service not ready"),
    "training_failed": ProblemType(503, "Training failed"),
    "deadline_exceeded": ProblemType(504, "Request timed out"),
}


def install(app: FastAPI) -> None:
    """Register the exception handlers."""
    app.add_exception_handler(RequestError, _on_request_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)


def problem_document(code: str, detail: str, request_id: str, **members: Any) -> dict[str, Any]:
    """Return the problem document for a code; `members` are its extension members."""
    status, title = PROBLEM_TYPES[code]
    return {
        "type": f"urn:blvnet:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
    } | members


def problem_document_of(exc: Exception, request_id: str) -> dict[str, Any]:
    """Return the problem document for any exception; the message of an unexpected one is left out."""
    if not isinstance(exc, RequestError):
        return problem_document(INTERNAL_ERROR, UNEXPECTED, request_id)
    members = {}
    if isinstance(exc, OverLimit):
        members = {"limit": exc.limit, "value": exc.value, "maximum": exc.maximum}
    return problem_document(exc.code, exc.message, request_id, **members)


def problem_response(exc: Exception, request_id: str, path: str) -> JSONResponse:
    """Return the response for any exception at `path`."""
    headers = {}
    if isinstance(exc, RetryAfter):
        headers["Retry-After"] = str(max(1, math.ceil(exc.retry_after_s)))
    elif isinstance(exc, RequestError) and exc.code == "unauthorized":
        headers["WWW-Authenticate"] = "Bearer"
    return _response(problem_document_of(exc, request_id), path, headers)


def _response(document: dict[str, Any], path: str, headers: dict[str, str]) -> JSONResponse:
    if PROTOCOL_PATHS.match(path):
        return JSONResponse({"error": document["detail"]}, document["status"], headers)
    return JSONResponse(document, document["status"], headers, media_type=MEDIA_TYPE)


async def _on_request_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestError)
    record = record_of(request)
    record.problem = exc.code
    return problem_response(exc, record.request_id, request.url.path)


async def _on_validation_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)
    errors = [
        {"parameter": str(error["loc"][-1]), "detail": _validation_message(error)} for error in exc.errors()
    ]
    detail = "; ".join(f"{error['parameter']}: {error['detail']}" for error in errors)
    record = record_of(request)
    record.problem = InvalidParameter.code
    document = problem_document(InvalidParameter.code, detail, record.request_id, errors=errors)
    return _response(document, request.url.path, {})


def _validation_message(error: dict[str, Any]) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown parameter"
    return str(error["msg"]).removeprefix("Value error, ").removeprefix("Input ")


async def _on_http_exception(request: Request, exc: Exception) -> Response:
    """Answer Starlette's own errors: no such route (404), or method not allowed (405)."""
    assert isinstance(exc, HTTPException)
    record = record_of(request)
    path = request.url.path
    headers = dict(exc.headers or {})
    if exc.status_code == 404:
        code, detail = "not_found", f"There is no {path}; see /docs."
    elif exc.status_code == 405:
        code = "method_not_allowed"
        headers["Allow"] = ", ".join(_allowed_methods(request))
        detail = f"{path} does not support {request.method}; allowed: {headers['Allow']}."
    else:
        logger.error("unexpected HTTP exception", extra={"status": exc.status_code})
        code, detail = INTERNAL_ERROR, UNEXPECTED
    record.problem = code
    return _response(problem_document(code, detail, record.request_id), path, headers)


def _allowed_methods(request: Request) -> list[str]:
    """Return the methods of all routes with the request's path; Starlette only names those of the first."""
    return [
        method
        for method in METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]


async def _on_disconnect(_request: Request, _exc: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)
