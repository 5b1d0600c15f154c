"""API keys: who is admitted, and how many requests each key may make."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import time
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import pytest
from pydantic import SecretStr

from service.access.keys import KeyRing, LocalRate
from service.errors import RateLimited
from service.settings import BadSetting, load_settings
from tests.support.clock import Clock
from tests.support.server import read_response, running_server

FIRST = hashlib.sha256(b"first").hexdigest()[:12]
SECOND = hashlib.sha256(b"second").hexdigest()[:12]
HASHED = "sha256:" + hashlib.sha256(b"second").hexdigest()


def ring(
    per_minute: int | None = None, at_once: int | None = None, slots: int = 256, clock: Clock | None = None
) -> KeyRing:
    rate = None if per_minute is None else LocalRate(per_minute, clock or Clock())
    return KeyRing([SecretStr("first"), SecretStr(HASHED)], rate, at_once, upload_slots=slots)


def use(keys: KeyRing, *callers: str | None) -> None:
    """Make one request for each caller in turn."""

    async def run() -> None:
        for caller in callers:
            async with keys.share(caller):
                pass

    asyncio.run(run())


@pytest.mark.parametrize(
    ("given", "caller"),
    [("first", FIRST), ("second", SECOND), ("third", None), ("", None), (HASHED, None), ("schlüssel", None)],
)
def test_key_is_found_in_plain_text_and_by_its_digest(given: str, caller: str | None) -> None:
    assert ring().find(given) == caller


def test_ring_without_keys_is_open_and_counts_nothing() -> None:
    keys = KeyRing([], upload_slots=256)
    assert keys.open
    use(keys, None)


def test_each_key_has_its_own_rate() -> None:
    keys = ring(per_minute=2)
    use(keys, FIRST, FIRST)
    with pytest.raises(RateLimited) as caught:
        use(keys, FIRST)
    assert 50 < caught.value.retry_after_s <= 60
    use(keys, SECOND)


def test_minute_is_a_moving_window() -> None:
    clock = Clock()
    keys = ring(per_minute=2, clock=clock)
    for wait_s in (0, 40):
        clock.now_s += wait_s
        use(keys, FIRST)
    with pytest.raises(RateLimited) as caught:
        use(keys, FIRST)
    assert caught.value.retry_after_s == pytest.approx(20)
    clock.now_s += 20
    use(keys, FIRST)
    with pytest.raises(RateLimited):
        use(keys, FIRST)


def test_wall_clock_set_back_does_not_lock_a_key_out(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = KeyRing([SecretStr("first")], LocalRate(1), upload_slots=256)
    use(keys, FIRST)
    wall_s = time.time()
    monkeypatch.setattr(time, "time", lambda: wall_s - 3600)
    with pytest.raises(RateLimited) as caught:
        use(keys, FIRST)
    assert caught.value.retry_after_s <= 60


def test_one_of_several_keys_holds_at_most_half_of_the_upload_slots() -> None:
    async def run() -> None:
        keys = ring(slots=4)
        async with AsyncExitStack() as stack:
            for caller in (FIRST, FIRST, SECOND, SECOND):
                await stack.enter_async_context(keys.share(caller))
            with pytest.raises(RateLimited, match=r"limit for this key reached \(2\)\."):
                await stack.enter_async_context(keys.share(FIRST))
        only = KeyRing([SecretStr("first")], upload_slots=2)
        async with only.share(FIRST), only.share(FIRST), only.share(FIRST):
            pass

    asyncio.run(run())


def test_concurrent_requests_of_a_key_are_limited_and_failed_ones_free_their_place() -> None:
    async def run() -> None:
        keys = ring(at_once=1)
        async with keys.share(FIRST), keys.share(SECOND):
            with pytest.raises(RateLimited, match="Concurrent request limit"):
                async with keys.share(FIRST):
                    raise AssertionError("the second was let in")
        with pytest.raises(ZeroDivisionError):
            async with keys.share(FIRST):
                raise ZeroDivisionError
        async with keys.share(FIRST):
            pass

    asyncio.run(run())


def test_replaced_keys_are_refused_and_kept_ones_keep_their_counts() -> None:
    keys = ring(per_minute=2)
    use(keys, FIRST, FIRST, SECOND)
    keys.replace([SecretStr("new"), SecretStr("first")])
    assert keys.find("second") is None
    with pytest.raises(RateLimited):
        use(keys, FIRST)
    use(keys, keys.find("new"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key_requests_per_minute": "5"}, "none are set"),
        ({"key_requests_at_once": "5"}, "none are set"),
        ({"api_keys": "one", "key_requests_at_once": "0"}, "greater than or equal to 1"),
        ({"api_keys": "sha256:abc"}, "64 hex digits"),
        (
            {"api_keys": "one", "key_requests_per_minute": "5", "redis_url": "http://user:secret@host"},
            r"^BLVNET_REDIS_URL \(--redis-url\): it must start with",
        ),
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
        assert post("first", "/v2/models/tiny/infer")[0] == 400  # invalid, but it counts as a request
        status, retry_after = post("first")
        assert (status, 1 <= int(retry_after or 0) <= 60) == (429, True)
        assert post("first", "/v2/models/tiny/infer")[0] == 429
        assert post("second")[0] == 200
        limits = client.get("/v1/models", headers={"Authorization": "Bearer first"}).json()["limits"]
        assert (limits["key_requests_per_minute"], limits["key_requests_at_once"]) == (3, 1)
        assert server.metric("blvnet_rejected_total", reason="rate_limited") == 3


def test_keys_are_rotated_without_a_lost_request(tiny_models: Path, red_clip: bytes, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("old\n")
    with running_server(tiny_models, API_KEYS_FILE=path) as server, server.client() as client:

        def post(key: str) -> int:
            return client.post(
                "/v1/classify", content=red_clip, headers={"Authorization": f"Bearer {key}"}
            ).status_code

        def rotate(content: str, event: str) -> None:
            seen = len(server.lines(event=event))
            path.write_text(content)
            server.process.send_signal(signal.SIGHUP)
            server.wait_for(lambda: len(server.lines(event=event)) > seen, event)

        assert (post("old"), post("new")) == (200, 401)
        with server.begin_upload(len(red_clip), red_clip[:10], Authorization="Bearer old") as upload:
            server.wait_for(lambda: server.metric("blvnet_inflight_requests") == 2, "the upload")
            rotate("old,new", "keys are read again")
            assert (post("old"), post("new")) == (200, 200)
            rotate("new", "keys are read again")
            upload.sendall(red_clip[10:])
            assert read_response(upload).status_code == 200
        assert (post("old"), post("new")) == (401, 200)
        path.write_text("with space")
        server.process.send_signal(signal.SIGHUP)
        refusal = server.wait_for(
            lambda: [line for line in server.log if "the keys stay" in str(line.get("event"))], "a refusal"
        )
        assert "with space" not in str(refusal)
        assert post("new") == 200
        caller = hashlib.sha256(b"new").hexdigest()[:12]
        server.line(event="request", caller=caller, code=200)
        assert not any('"old"' in str(line) or "Bearer" in str(line) for line in server.log)
