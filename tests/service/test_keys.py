"""API keys: who is let in, and how much each may ask for."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydantic import SecretStr

from service.errors import RateLimited
from service.keys import KeyRing
from service.settings import BadSetting, load_settings
from tests.server import running_server

HASHED = "sha256:" + hashlib.sha256(b"second").hexdigest()


def ring(per_minute: int | None = None, at_once: int | None = None) -> KeyRing:
    return KeyRing([SecretStr("first"), SecretStr(HASHED)], per_minute, at_once)


@pytest.mark.parametrize(
    ("given", "number"),
    [("first", 0), ("second", 1), ("third", None), ("", None), (HASHED, None), ("schlüssel", None)],
)
def test_a_key_is_found_whether_it_is_kept_or_only_its_digest(given: str, number: int | None) -> None:
    assert ring().find(given) == number


def test_without_keys_the_ring_is_open_and_counts_nothing() -> None:
    keys = KeyRing([], None, None)
    assert keys.open
    with keys.share(None):
        pass


def test_each_key_has_a_share_of_its_own_in_a_minute() -> None:
    keys = ring(per_minute=2)
    for _ in range(2):
        with keys.share(0):
            pass
    with pytest.raises(RateLimited) as caught, keys.share(0):
        raise AssertionError("the third was let in")
    assert 50 < caught.value.retry_after_s <= 60
    with keys.share(1):
        pass


def test_each_key_has_so_many_requests_under_way_and_gets_the_place_back() -> None:
    keys = ring(at_once=1)
    with keys.share(0), keys.share(1), pytest.raises(RateLimited, match="under way"), keys.share(0):
        raise AssertionError("the second was let in")
    with pytest.raises(ZeroDivisionError), keys.share(0):
        raise ZeroDivisionError
    with keys.share(0):
        pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key_requests_per_minute": "5"}, "no keys are set"),
        ({"key_requests_at_once": "5"}, "no keys are set"),
        ({"api_keys": "one", "key_requests_at_once": "0"}, "greater than or equal to 1"),
        ({"api_keys": "sha256:abc"}, "64 hex digits"),
    ],
)
def test_limits_that_cannot_be_kept_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(BadSetting, match=message):
        load_settings(options)


def test_work_past_a_limit_is_429_and_looking_is_free(tiny_models: Path, red_clip: bytes) -> None:
    with (
        running_server(
            tiny_models, API_KEYS=f"first,{HASHED}", KEY_REQUESTS_PER_MINUTE=3, KEY_REQUESTS_AT_ONCE=1
        ) as server,
        server.client() as client,
    ):

        def post(key: str, path: str = "/v1/classify") -> tuple[int, str | None]:
            headers = {"Authorization": f"Bearer {key}"}
            answer = client.post(path, content=red_clip, headers=headers)
            return answer.status_code, answer.headers.get("Retry-After")

        with ExitStack() as stack:
            stack.enter_context(server.begin_upload(9, Authorization="Bearer first"))
            server.wait_for(lambda: server.metric("blvnet_inflight_requests") == 2, "the upload")
            assert post("first") == (429, "1")
            assert post("second") == (200, None)
        server.wait_for(lambda: server.metric("blvnet_inflight_requests") == 1, "its end")
        assert post("first")[0] == 200
        assert post("first", "/v2/models/tiny/infer")[0] == 400  # no request of the protocol, but a request
        status, retry_after = post("first")
        assert (status, 1 <= int(retry_after or 0) <= 60) == (429, True)
        assert post("first", "/v2/models/tiny/infer")[0] == 429
        assert post("second")[0] == 200
        limits = client.get("/v1/models", headers={"Authorization": "Bearer first"}).json()["limits"]
        assert (limits["key_requests_per_minute"], limits["key_requests_at_once"]) == (3, 1)
        assert server.metric("blvnet_rejected_total", reason="rate_limited") == 3
