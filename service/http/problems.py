"""Errors on the way out: every answer that is not a success is an RFC 9457 problem document.

On the paths of the Open Inference Protocol it is that protocol's `{"error": ...}`, with the same status.

One table turns the codes of `service.errors` into statuses and titles; a few codes of HTTP itself (no such
route, wrong method, our own fault) join them. Texts of unexpected exceptions never leave the process.
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

from service.errors import InvalidParameter, NotReady, OverLimit, Overloaded, RateLimited, RequestError
from service.http.context import record_of

MEDIA_TYPE = "application/problem+json"
INTERNAL_ERROR = "internal_error"
UNEXPECTED = "An unexpected error; the log has it under this request id."
PROTOCOL_PATHS = re.compile(r"/v2(/|$)")
CLIENT_CLOSED_REQUEST = 499  # nobody reads it; it is what logs and metrics show, as in nginx

logger = logging.getLogger(__name__)


class Kind(NamedTuple):
    """What all problems of one code share."""

    status: int
    title: str


KINDS: dict[str, Kind] = {
    "bad_request": Kind(400, "The request is malformed"),
    "unauthorized": Kind(401, "An API key is needed"),
    "forbidden": Kind(403, "An admin key is needed, and none is set"),
    "not_found": Kind(404, "There is nothing at this address"),
    "model_not_found": Kind(404, "No such model"),
    "method_not_allowed": Kind(405, "This address does not take this method"),
    "model_refused": Kind(409, "The model package cannot be served"),
    "too_large": Kind(413, "The upload is too large"),
    "not_a_video": Kind(415, "This is not a video that the service takes"),
    "undecodable": Kind(422, "The video cannot be decoded"),
    "invalid_parameter": Kind(422, "A parameter is not valid"),
    "over_limit": Kind(422, "The video passes a limit"),
    "rate_limited": Kind(429, "Too many requests with this key"),
    INTERNAL_ERROR: Kind(500, "The service failed"),
    "overloaded": Kind(503, "The service has more work than it can take"),
    "not_ready": Kind(503, "The service is not ready"),
    "deadline_exceeded": Kind(504, "The request took too long"),
}


def problem(
    code: str,
    detail: str,
    request_id: str,
    *,
    path: str = "",
    headers: dict[str, str] | None = None,
    **members: Any,
) -> JSONResponse:
    """The answer for one problem at `path`; `members` are extension members of the document."""
    status = KINDS[code].status
    if PROTOCOL_PATHS.match(path):
        return JSONResponse({"error": detail}, status, headers)
    document = _document(code, detail, request_id, members)
    return JSONResponse(document, status, headers, media_type=MEDIA_TYPE)


def _document(code: str, detail: str, request_id: str, members: dict[str, Any]) -> dict[str, Any]:
    kind = KINDS[code]
    return {
        "type": f"urn:blvnet:problem:{code}",
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
    } | members


def install(app: FastAPI) -> None:
    """Make `app` answer all its errors with problem documents."""
    app.add_exception_handler(RequestError, _on_request_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)


def unexpected(request_id: str, path: str = "") -> JSONResponse:
    """The answer to an exception that nobody foresaw: that it happened, and under which id it is logged."""
    return problem(INTERNAL_ERROR, UNEXPECTED, request_id, path=path)


def request_error(exc: RequestError, request_id: str, path: str = "") -> JSONResponse:
    """The answer to an error of the request."""
    return problem(exc.code, exc.message, request_id, path=path, headers=_headers(exc), **_members(exc))


def late_document(exc: Exception, request_id: str) -> dict[str, Any]:
    """The problem document of an error that comes when the answer has begun, whatever it is."""
    if isinstance(exc, RequestError):
        return _document(exc.code, exc.message, request_id, _members(exc))
    return _document(INTERNAL_ERROR, UNEXPECTED, request_id, {})


async def _on_request_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestError)
    record = record_of(request)
    record.problem = exc.code
    return request_error(exc, record.request_id, request.url.path)


async def _on_validation_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)
    errors = [
        {"parameter": str(error["loc"][-1]), "detail": _parameter_detail(error)} for error in exc.errors()
    ]
    detail = "; ".join(f"{error['parameter']}: {error['detail']}" for error in errors)
    return _answer(request, InvalidParameter.code, detail, errors=errors)


async def _on_http_exception(request: Request, exc: Exception) -> Response:
    """Starlette's own: no route (404) or no such method on it (405)."""
    assert isinstance(exc, HTTPException)
    headers = dict(exc.headers or {})
    if exc.status_code == KINDS["not_found"].status:
        return _answer(request, "not_found", f"There is no {request.url.path}; see /docs.")
    if exc.status_code == KINDS["method_not_allowed"].status:
        detail = f"{request.method} is not possible here, only {headers.get('Allow', 'another method')}."
        return _answer(request, "method_not_allowed", detail, headers=headers)
    logger.error("unforeseen HTTP exception", extra={"status": exc.status_code})
    return unexpected(record_of(request).request_id, request.url.path)


async def _on_disconnect(_request: Request, _exc: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)


def _answer(
    request: Request, code: str, detail: str, *, headers: dict[str, str] | None = None, **members: Any
) -> JSONResponse:
    record = record_of(request)
    record.problem = code
    return problem(code, detail, record.request_id, path=request.url.path, headers=headers, **members)


def _headers(exc: RequestError) -> dict[str, str]:
    if isinstance(exc, (Overloaded, NotReady, RateLimited)):
        return {"Retry-After": str(max(1, math.ceil(exc.retry_after_s)))}
    if exc.code == "unauthorized":
        return {"WWW-Authenticate": "Bearer"}
    return {}


def _members(exc: RequestError) -> dict[str, Any]:
    if isinstance(exc, OverLimit):
        return {"limit": exc.limit, "value": exc.value, "maximum": exc.maximum}
    return {}


def _parameter_detail(error: dict[str, Any]) -> str:
    if error["type"] == "extra_forbidden":
        return "there is no such parameter"
    return str(error["msg"]).removeprefix("Input ")
