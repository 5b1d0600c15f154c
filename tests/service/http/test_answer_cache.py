"""The cache of answers: identical clips in progress, failures of the request that computes, and its size."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.errors import DeadlineExceeded, Undecodable
from service.http.answer_cache import AnswerCache, CacheResult
from service.http.schemas.classify import EXAMPLE, ClassifyAnswer
from tests.support.server import RunningServer, running_server
from tests.support.tiny_models import colour_clip

ANSWER = ClassifyAnswer.model_validate(EXAMPLE)
DOCUMENT_BYTES = len(ANSWER.model_dump_json())


class Computation:
    """Computes `ANSWER`, or fails, when `proceed` is set; counts its calls."""

    def __init__(self, *outcomes: Exception | None) -> None:
        self.outcomes = list(outcomes)
        self.calls = 0
        self.proceed = asyncio.Event()

    async def __call__(self) -> ClassifyAnswer:
        self.calls += 1
        await self.proceed.wait()
        if self.outcomes and (failure := self.outcomes.pop(0)) is not None:
            raise failure
        return ANSWER.model_copy()


async def two_at_once(computation: Computation) -> list[Any]:
    """The results of two requests with one key, the second of which arrives while the first computes."""
    cache = AnswerCache(10**6)
    tasks = [asyncio.create_task(cache.get_or_compute("key", computation)) for _ in range(2)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    computation.proceed.set()
    return await asyncio.gather(*tasks, return_exceptions=True)


def test_identical_requests_in_progress_are_computed_once() -> None:
    async def run() -> None:
        computation = Computation()
        (first, first_result), (second, second_result) = await two_at_once(computation)
        assert computation.calls == 1
        assert (first_result, second_result) == (CacheResult.MISS, CacheResult.SHARED)
        assert (first.cached, second.cached) == (False, True)
        assert second.predictions == first.predictions
        assert second.timing_ms.total == 0

    asyncio.run(run())


def test_failure_about_the_clip_is_shared() -> None:
    async def run() -> None:
        computation = Computation(Undecodable("no frame"))
        results = await two_at_once(computation)
        assert [type(result) for result in results] == [Undecodable] * 2
        assert computation.calls == 1

    asyncio.run(run())


def test_request_that_waits_computes_if_the_first_one_fails() -> None:
    async def run() -> None:
        computation = Computation(DeadlineExceeded("too late"))
        first, (second, result) = await two_at_once(computation)
        assert isinstance(first, DeadlineExceeded)
        assert (result, second.cached, computation.calls) == (CacheResult.MISS, False, 2)

    asyncio.run(run())


def test_request_that_waits_computes_if_the_first_one_is_cancelled() -> None:
    async def run() -> None:
        cache, computation = AnswerCache(10**6), Computation()
        first = asyncio.create_task(cache.get_or_compute("key", computation))
        await asyncio.sleep(0)
        second = asyncio.create_task(cache.get_or_compute("key", computation))
        await asyncio.sleep(0)
        first.cancel()
        computation.proceed.set()
        assert (await second)[1] is CacheResult.MISS
        assert first.cancelled()
        assert computation.calls == 2

    asyncio.run(run())


def test_least_recently_used_answers_are_dropped() -> None:
    async def run() -> None:
        cache, computation = AnswerCache(2 * (DOCUMENT_BYTES + 500)), Computation()
        computation.proceed.set()
        for key in ("a", "b", "a", "c", "a", "b"):
            await cache.get_or_compute(key, computation)
        assert computation.calls == 4  # a, b, c, and b again
        assert len(cache) == 2
        assert cache.size_bytes == 2 * (DOCUMENT_BYTES + 500)

    asyncio.run(run())


def test_answer_that_exceeds_the_cache_is_not_kept() -> None:
    async def run() -> None:
        cache, computation = AnswerCache(100), Computation()
        computation.proceed.set()
        await cache.get_or_compute("a", computation)
        assert (len(cache), cache.size_bytes) == (0, 0)

    asyncio.run(run())


@pytest.fixture(scope="module")
def caching(tiny_models: Path) -> Iterator[RunningServer]:
    with running_server(tiny_models, CACHE_MB=1) as server:
        yield server


def answer_of(client: httpx.Client, clip: bytes, **parameters: Any) -> dict[str, Any]:
    document: dict[str, Any] = (
        client.post("/v1/classify", content=clip, params=parameters).raise_for_status().json()
    )
    return document


def test_service_answers_the_same_clip_from_the_cache(caching: RunningServer) -> None:
    red, blue = colour_clip((255, 0, 0)), colour_clip((0, 0, 255))
    with caching.client() as client:
        first, second = answer_of(client, red), answer_of(client, red, model="tiny")
        others = [answer_of(client, blue), answer_of(client, red, top_k=2)]
    assert (first["cached"], second["cached"]) == (False, True)
    assert [other["cached"] for other in others] == [False, False]
    assert second["predictions"] == first["predictions"]
    assert second["request_id"] != first["request_id"]
    assert second["timing_ms"]["decode"] == 0 < second["timing_ms"]["receive"] <= second["timing_ms"]["total"]
    assert others[0]["predictions"][0]["label"] == "blue"
    assert caching.metric("blvnet_cache_requests_total", result="hit") == 1
    assert caching.metric("blvnet_cache_bytes") > 0


def test_service_computes_concurrent_identical_clips_once(caching: RunningServer) -> None:
    clip = colour_clip((0, 255, 0), frames=400)
    before = caching.metric("blvnet_cache_requests_total", result="miss")
    with caching.client() as client, ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda _: answer_of(client, clip), range(6)))
    assert {answer["predictions"][0]["label"] for answer in answers} == {"green"}
    assert [answer["cached"] for answer in answers].count(False) == 1
    assert caching.metric("blvnet_cache_requests_total", result="miss") == before + 1
