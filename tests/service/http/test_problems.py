"""Problem documents: every error has a type, and internal details stay internal."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service import errors
from service.errors import NotReady, OverLimit, Overloaded, RateLimited, RequestError, TooLarge, Unauthorized
from service.http import problems
from service.http.problems import PROBLEM_TYPES, problem_response


def leaves(kind: type[RequestError]) -> list[type[RequestError]]:
    return [leaf for child in kind.__subclasses__() for leaf in (child, *leaves(child))]


@pytest.mark.parametrize("kind", leaves(RequestError), ids=lambda kind: kind.__name__)
def test_error_has_a_status_and_a_title(kind: type[RequestError]) -> None:
    assert 400 <= PROBLEM_TYPES[kind.code].status < 600
    assert PROBLEM_TYPES[kind.code].title


def test_every_code_except_those_of_http_has_an_error_class() -> None:
    of_http = {"not_found", "method_not_allowed", problems.INTERNAL_ERROR}
    assert set(PROBLEM_TYPES) - of_http == {kind.code for kind in leaves(errors.RequestError)}


def document(response: Any) -> dict[str, Any]:
    assert response.media_type == "application/problem+json"
    parsed: dict[str, Any] = json.loads(response.body)
    return parsed


def test_document_has_the_members_of_the_contract() -> None:
    response = problem_response(TooLarge("Too much."), "id-1", "/v1/classify")
    assert response.status_code == 413
    assert document(response) == {
        "type": "urn:blvnet:problem:too_large",
        "title": PROBLEM_TYPES["too_large"].title,
        "status": 413,
        "detail": "Too much.",
        "code": "too_large",
        "request_id": "id-1",
    }


def test_unexpected_error_has_no_details() -> None:
    response = problem_response(ValueError("secret"), "id-2", "/v1/classify")
    assert response.status_code == 500
    assert document(response)["request_id"] == "id-2"
    assert b"secret" not in bytes(response.body)


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (Overloaded("full", 2.2), "3"),
        (NotReady("loading", 0.0), "1"),
        (RateLimited("slow down", 60.0), "60"),
    ],
)
def test_retry_after_is_in_whole_seconds_and_at_least_one(error: RequestError, seconds: str) -> None:
    assert problem_response(error, "id", "/").headers["Retry-After"] == seconds


def test_unauthorized_says_how_to_authenticate() -> None:
    assert problem_response(Unauthorized("no key"), "id", "/").headers["WWW-Authenticate"] == "Bearer"


def test_over_limit_has_the_limit_in_extension_members() -> None:
    body = document(problem_response(OverLimit("pixels", 100, 10), "id", "/"))
    assert (body["limit"], body["value"], body["maximum"]) == ("pixels", 100, 10)
