"""Request rates counted in a real Redis for several replicas."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from benchmarks.common.service_process import free_port
from service.access.keys import LocalRate
from service.access.shared_rate import SharedRate
from tests.support.redis_server import redis_server
from tests.support.server import RunningServer, running_server


def test_replicas_together_accept_exactly_the_limit(tiny_models: Path, red_clip: bytes) -> None:
    port = free_port()

    def replica() -> AbstractContextManager[RunningServer]:
        url = f"redis://127.0.0.1:{port}/1"
        return running_server(tiny_models, API_KEYS="first,second", KEY_REQUESTS_PER_MINUTE=10, REDIS_URL=url)

    with (
        redis_server(port),
        replica() as one,
        replica() as other,
        one.client() as first,
        other.client() as second,
    ):

        def post(turn: int, key: str) -> tuple[int, int]:
            client = (first, second)[turn % 2]
            headers = {"Authorization": f"Bearer {key}"}
            answer = client.post("/v1/classify", content=red_clip, headers=headers)
            return answer.status_code, int(answer.headers.get("Retry-After", 0))

        answers = [post(turn, "first") for turn in range(14)]
        assert [status for status, _ in answers] == [200] * 10 + [429] * 4
        assert all(1 <= retry_after_s <= 60 for status, retry_after_s in answers if status == 429)
        assert post(0, "second")[0] == 200


def test_each_replica_counts_by_itself_while_redis_is_down(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        port = free_port()
        rate = SharedRate(f"redis://127.0.0.1:{port}", 2, LocalRate(2))
        waits = [await rate.take("caller") for _ in range(3)]
        assert waits[:2] == [None, None]
        assert waits[2] is not None
        assert 50 < waits[2] <= 60
        with redis_server(port):
            assert await rate.take("caller") is None
        await rate.close()

    caplog.set_level("INFO", logger="service.access.shared_rate")
    asyncio.run(run())
    first, second = (record.message for record in caplog.records)
    assert first.startswith("Redis does not answer")
    assert second.startswith("Redis answers again")
