"""Posts requests and records the answers."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Self

import httpx

from benchmarks.soak.requests import DISCONNECT, VALID, Post

CALLER_TIMEOUT_S = 60.0
DISCONNECT_WITHIN_S = 0.06  # during the upload, while waiting, during decoding or after the answer
CUT, TIMED_OUT, GONE = "connection cut", "no answer", "disconnected"


class Traffic:
    """Posts random requests to a service and counts the answers; a context manager for its connections.

    Args:
        url: address of the service.
        posts: kinds of requests, drawn according to their shares.
        seed: seed of the random sequence.
        query: query parameters of every request.
        keep_alive: whether connections are reused.
    """

    def __init__(
        self,
        url: str,
        posts: Sequence[Post],
        seed: int = 1,
        query: Mapping[str, str] | None = None,
        *,
        keep_alive: bool = True,
    ) -> None:
        self._posts = posts
        self._query = dict(query or {})
        self._draw = random.Random(seed)
        self._labels: dict[int, int] = {}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None if keep_alive else 0)
        self._http = httpx.AsyncClient(base_url=url, timeout=None, limits=limits, verify=False)
        self.answers: Counter[tuple[str, str]] = Counter()  # (kind, answer)
        self.good_s: list[float] = []  # latencies of valid clips

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def learn(self) -> None:
        """Post each valid clip once and remember its top label."""
        good = next(post for post in self._posts if post.name == VALID)
        for number in range(len(good.bodies)):
            await self.post(good, number)

    async def closed_loop(self, callers: int, seconds: float) -> float:
        """Run callers with one request at a time each; return the answers per second."""
        before, began = self.answers.total(), time.monotonic()

        async def call() -> None:
            while time.monotonic() < began + seconds:
                await self.post(*self._next())

        await asyncio.gather(*(call() for _ in range(callers)))
        return (self.answers.total() - before) / (time.monotonic() - began)

    async def open_loop(self, arrivals: Sequence[float]) -> None:
        """Post requests at the given times, in seconds from now, without waiting for earlier answers."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for arrival in arrivals:
                await asyncio.sleep(max(0.0, began + arrival - time.monotonic()))
                group.create_task(self.post(*self._next()))

    async def post(self, post: Post, number: int) -> None:
        """Post one request and count its answer."""
        began = time.monotonic()
        timeout_s = (
            self._draw.uniform(0, DISCONNECT_WITHIN_S) if post.name == DISCONNECT else CALLER_TIMEOUT_S
        )
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._http.post(
                    "/v1/classify",
                    params=self._query,
                    content=post.bodies[number],
                    headers={"Content-Type": post.media_type},
                )
        except TimeoutError:
            outcome = GONE if post.name == DISCONNECT else TIMED_OUT
        except httpx.TransportError:
            outcome = CUT
        else:
            outcome = self._outcome(post, number, response)
            if post.name == VALID:
                self.good_s.append(time.monotonic() - began)
        self.answers[post.name, outcome] += 1

    def _next(self) -> tuple[Post, int]:
        (post,) = self._draw.choices(self._posts, [post.share for post in self._posts])
        return post, self._draw.randrange(len(post.bodies))

    def _outcome(self, post: Post, number: int, response: httpx.Response) -> str:
        """The status and problem code; also reports a top label that differs from the first answer."""
        document = response.json()
        if not response.is_success:
            return f"{response.status_code} {document.get('code', '')}".strip()
        best = document["predictions"][0]["index"]
        if post.name == VALID and self._labels.setdefault(number, best) != best:
            return "200 with another label than before"
        return str(response.status_code)


def unexpected(answers: Counter[tuple[str, str]], posts: Sequence[Post]) -> Iterator[str]:
    """Describe the answers that differ from the expected ones."""
    expected = {post.name: post.expected for post in posts}
    for (name, outcome), count in sorted(answers.items()):
        if outcome != expected[name] and not (name == DISCONNECT and outcome in (GONE, "200")):
            yield f"{name}: {count} times {outcome!r} instead of {expected[name] or GONE!r}"
