"""Overload is rejected before any other work, and logged and counted like other requests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace

import httpx
import pytest

from service.errors import Overloaded
from service.http.app import create_app
from service.http.service import Service
from service.pipeline.recognizer import RecognizerState
from service.settings import load_settings

pytestmark = pytest.mark.anyio

KEY = "a-key"
PATHS = ["/v1/classify", "/v1/timeline"]


@pytest.fixture
async def full(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service whose queue is full."""
    app = create_app(load_settings({"api_keys": KEY, "key_requests_per_minute": 1}))
    service: Service = app.state.service

    def admit(*_: object, **__: object) -> None:
        raise Overloaded("There is no room.", 7.2)

    tiny = SimpleNamespace(graph=SimpleNamespace(manifest=SimpleNamespace(name="tiny")))
    monkeypatch.setattr(service.recognizer, "state", RecognizerState.SERVING)
    monkeypatch.setattr(service.recognizer.models.registry, "get", lambda _: tiny)
    monkeypatch.setattr(service.recognizer.admission, "admit", admit)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize("path", PATHS)
async def test_refusal_parses_no_parameters_and_uses_no_share_of_a_key(
    full: httpx.AsyncClient, path: str
) -> None:
    for _ in range(3):
        answer = await full.post(path, params={"top_k": "x"}, content=b"clip", headers=bearer(KEY))
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "8")
        document = answer.json()
        assert (document["code"], document["detail"]) == ("overloaded", "There is no room.")
        assert document["request_id"] == answer.headers["X-Request-ID"]
    metrics = (await full.get("/metrics")).text
    assert f'blvnet_requests_total{{code="503",route="{path}"}} 3.0' in metrics
    assert 'blvnet_rejected_total{reason="overloaded"} 3.0' in metrics


@pytest.mark.parametrize("headers", [{}, bearer("another"), {"Authorization": f"Basic {KEY}"}])
async def test_caller_without_a_key_does_not_learn_of_the_queue(
    full: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    assert (await full.post(PATHS[0], content=b"clip", headers=headers)).status_code == 401


async def test_other_requests_are_answered(full: httpx.AsyncClient) -> None:
    assert (await full.get("/healthz")).status_code == 200
    assert (await full.get(PATHS[0], headers=bearer(KEY))).status_code == 405
