"""Cross-origin requests: refused by browsers unless an origin is a setting."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from service.http.app import create_app
from service.settings import BadSetting, load_settings

PREFLIGHT = {
    "Origin": "https://example.org",
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,x-request-id",
}


def ask(origins: str | None, method: str, **headers: str) -> httpx.Response:
    """The answer of a service that is not started."""
    app = create_app(load_settings({"cors_origins": origins}))

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return await client.request(method, "/v1/classify", headers=headers)

    return asyncio.run(send())


def test_no_origin_is_allowed_by_default() -> None:
    answer = ask(None, "OPTIONS", **PREFLIGHT)
    assert (answer.status_code, "access-control-allow-origin" in answer.headers) == (405, False)


def test_origin_of_the_setting_may_call_and_read_errors() -> None:
    origins = "https://example.org,http://localhost:5173"
    allowed = ask(origins, "OPTIONS", **PREFLIGHT)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://example.org"
    refused = ask(origins, "POST", Origin="http://localhost:5173")
    assert refused.json()["code"] == "not_ready"
    assert refused.headers["access-control-allow-origin"] == "http://localhost:5173"
    assert "X-Request-ID" in refused.headers["access-control-expose-headers"]


def test_other_origins_get_no_permission() -> None:
    answer = ask("https://example.org", "OPTIONS", **PREFLIGHT | {"Origin": "https://example.com"})
    assert (answer.status_code, "access-control-allow-origin" in answer.headers) == (400, False)


@pytest.mark.parametrize("origin", ["example.org", "https://example.org/", "https://a,", "ftp://a"])
def test_malformed_origin_is_a_bad_setting(origin: str) -> None:
    with pytest.raises(BadSetting, match="CORS_ORIGINS"):
        load_settings({"cors_origins": origin})
