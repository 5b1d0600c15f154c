"""The application in this process: cases that a real server cannot be made to show."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service.errors import BlvnetError
from service.http.app import create_app
from service.http.problems import PROBLEM_TYPES
from service.http.schemas.classify import ClassifyAnswer
from service.http.service import Service
from service.pipeline.limits.admission import Admission
from service.pipeline.recognizer import RecognizerState
from service.settings import load_settings

SECRET = "the inside of the service"


@pytest.fixture
def app(tiny_models: Path) -> FastAPI:
    return create_app(load_settings({"models": tiny_models, "decode_workers": 1}))


@pytest.fixture
def service(app: FastAPI) -> Service:
    """The service behind `app`, in the state of a started one."""
    service: Service = app.state.service
    service.recognizer.state = RecognizerState.SERVING
    return service


def exchange(app: FastAPI, talk: Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]) -> httpx.Response:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await talk(client)

    return asyncio.run(run())


def get(app: FastAPI, path: str) -> httpx.Response:
    return exchange(app, lambda client: client.get(path))


def post(app: FastAPI, **request: Any) -> httpx.Response:
    return exchange(app, lambda client: client.post("/v1/classify", **request))


@pytest.fixture
def broken(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A core that fails with an unexpected error."""

    def accept(*_: object, **__: object) -> None:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(service.recognizer, "accept", accept)


@pytest.mark.usefixtures("broken")
def test_unexpected_error_is_a_problem_without_details(app: FastAPI) -> None:
    answer = post(app, content=b"clip", headers={"X-Request-ID": "broken-1"})
    assert answer.status_code == 500
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (answer.json()["code"], answer.json()["request_id"]) == ("internal_error", "broken-1")
    assert SECRET not in answer.text


@pytest.mark.usefixtures("broken")
def test_unexpected_error_is_logged_and_counted(
    app: FastAPI, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        post(app, content=b"clip")
    assert [SECRET in str(record.exc_info) for record in caplog.records if record.exc_info] == [True]
    registry = service.metrics.registry
    labels = {"route": "/v1/classify", "code": "500"}
    assert registry.get_sample_value("blvnet_requests_total", labels) == 1
    assert registry.get_sample_value("blvnet_rejected_total", {"reason": "internal_error"}) == 1
    assert registry.get_sample_value("blvnet_inflight_requests") == 0


def test_service_accepts_no_clips_before_its_start(app: FastAPI) -> None:
    for answer in (get(app, "/readyz"), post(app, content=b"clip")):
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
        assert answer.json()["detail"] == "The service is not started."
        assert int(answer.headers["Retry-After"]) >= 1
    assert get(app, "/healthz").status_code == 200


def test_failed_start_is_not_waited_for(
    app: FastAPI, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def start() -> None:
        raise RuntimeError(SECRET)

    async def started() -> None:
        async with app.router.lifespan_context(app):
            await service.started()

    monkeypatch.setattr(service.recognizer, "start", start)
    with pytest.raises(RuntimeError, match=SECRET):
        asyncio.run(started())


def test_failed_start_is_the_reason_for_not_being_ready(tmp_path: Path) -> None:
    app = create_app(load_settings({"models": tmp_path, "decode_workers": 1}))

    async def readiness_after_start() -> httpx.Response:
        async with app.router.lifespan_context(app):
            with pytest.raises(BlvnetError):
                await app.state.service.started()
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.get("/readyz")

    answer = asyncio.run(readiness_after_start())
    assert answer.status_code == 503
    assert "no model package" in answer.json()["detail"]


def test_full_queue_refuses_before_the_upload_is_read(
    app: FastAPI, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unread(AsyncIterator[bytes]):
        async def __anext__(self) -> bytes:
            raise AssertionError("the body was read")

    tiny = SimpleNamespace(manifest=SimpleNamespace(name="tiny"))
    tiny.graph = tiny
    monkeypatch.setattr(service.recognizer.models.registry, "get", lambda _: tiny)
    monkeypatch.setattr(service.recognizer, "admission", Admission(limit=0))
    answer = post(app, content=Unread(), headers={"Expect": "100-continue"})
    assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nonesuch", 404, "not_found"),
        ("GET", "/v1", 404, "not_found"),
        ("GET", "/docs/../../etc/passwd", 404, "not_found"),
        ("GET", "/docs/index.html", 404, "not_found"),
        ("GET", "/v1/classify", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
    ],
)
def test_unknown_path_or_method_is_a_problem(
    app: FastAPI, method: str, path: str, status: int, code: str
) -> None:
    answer = exchange(app, lambda client: client.request(method, path))
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_unknown_paths_share_one_label(app: FastAPI, service: Service) -> None:
    for path in ("/a", "/b", "/v1/nonesuch"):
        get(app, path)
    labels = {"route": "unmatched", "code": "404"}
    assert service.metrics.registry.get_sample_value("blvnet_requests_total", labels) == 3


def test_route_is_counted_by_its_template(app: FastAPI, service: Service) -> None:
    get(app, "/v1/models/some-name")
    labels = {"route": "/v1/models/{name}", "code": "404"}
    assert service.metrics.registry.get_sample_value("blvnet_requests_total", labels) == 1


class TestDescription:
    @pytest.fixture
    def document(self, app: FastAPI) -> dict[str, Any]:
        parsed: dict[str, Any] = get(app, "/openapi.json").json()
        return parsed

    def test_clip_is_accepted_in_every_documented_form(self, document: dict[str, Any]) -> None:
        body = document["paths"]["/v1/classify"]["post"]["requestBody"]["content"]
        assert set(body) == {"multipart/form-data", "video/*", "application/octet-stream"}

    def test_problems_are_described_with_an_example_each(self, document: dict[str, Any]) -> None:
        examples = {
            code: (int(status), example["value"])
            for path in document["paths"].values()
            for operation in path.values()
            for status, response in operation["responses"].items()
            for code, example in response.get("content", {})
            .get("application/problem+json", {})
            .get("examples", {})
            .items()
        }
        for code, (status, value) in examples.items():
            assert (value["code"], value["status"], status) == (code, status, PROBLEM_TYPES[code].status)
        of_others = {"not_found", "method_not_allowed", "internal_error", "forbidden", "model_refused"}
        assert set(examples) == set(PROBLEM_TYPES) - of_others

    def test_only_possible_errors_are_described(self, document: dict[str, Any]) -> None:
        assert "HTTPValidationError" not in json.dumps(document)

    def test_no_parameter_is_described_as_nullable(self, document: dict[str, Any]) -> None:
        parameters = document["paths"]["/v1/classify"]["post"]["parameters"]
        assert {"model", "x-request-timeout"} <= {item["name"] for item in parameters}
        assert "null" not in json.dumps(parameters)

    def test_security_is_described_if_keys_are_set(self, document: dict[str, Any], tiny_models: Path) -> None:
        settings = {"models": tiny_models, "decode_workers": 1, "api_keys": "key"}
        locked = get(create_app(load_settings(settings)), "/openapi.json").json()
        for described, expected in ((document, None), (locked, [{"HTTPBearer": []}])):
            assert described["paths"]["/v1/classify"]["post"].get("security") == expected

    def test_every_reference_resolves(self, document: dict[str, Any]) -> None:
        def references(node: Any) -> list[str]:
            if isinstance(node, list):
                return [found for child in node for found in references(child)]
            if not isinstance(node, dict):
                return []
            own = [node["$ref"]] if "$ref" in node else []
            return own + [found for child in node.values() for found in references(child)]

        for reference in references(document):
            assert reference.rpartition("/")[2] in document["components"]["schemas"]

    def test_example_of_an_answer_is_valid(self, document: dict[str, Any]) -> None:
        answer = ClassifyAnswer.model_validate(document["components"]["schemas"]["ClassifyAnswer"]["example"])
        assert answer.evidence is not None
        assert {len(row) for row in answer.evidence.scores} == {len(answer.predictions)}

    def test_query_parameters_have_their_bounds(self, document: dict[str, Any]) -> None:
        parameters = document["paths"]["/v1/classify"]["post"]["parameters"]
        schemas = {item["name"]: item["schema"] for item in parameters if item["in"] == "query"}
        assert set(schemas) == {"model", "top_k", "clips", "crops", "evidence", "frames"}
        assert (schemas["top_k"]["minimum"], schemas["top_k"]["maximum"], schemas["top_k"]["default"]) == (
            1,
            100,
            5,
        )


@pytest.mark.parametrize("path", ["/v2/health/ready", "/v2/models/tiny", "/v2/models/tiny/ready"])
def test_open_inference_paths_report_in_their_format_that_no_model_is_loaded(app: FastAPI, path: str) -> None:
    answer = get(app, path)
    assert (answer.status_code, list(answer.json())) == (503, ["error"])
    assert "being loaded" in answer.json()["error"] or "not started" in answer.json()["error"]
    assert int(answer.headers["Retry-After"]) >= 1
    assert get(app, "/v2/health/live").json() == {"live": True}
