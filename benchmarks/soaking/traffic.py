"""The callers of a soak: they post what they are given, and note what each request was answered."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Self

import httpx

from benchmarks.soaking.material import GOOD, HANG_UP, Post

GIVES_UP_S = 60.0
HANGS_UP_WITHIN_S = 0.06  # in mid-upload, while it waits, in mid-clip, or when it has just been answered
CUT, TIMED_OUT, GONE = "connection cut", "no answer", "hung up"


class Traffic:
    """Posts to one service, and a record of the answers; a context that closes its connections.

    Args:
        url: of the service.
        posts: what may be posted, drawn by their shares; the same sequence for every `seed`.
        seed: of what is drawn.
    """

    def __init__(self, url: str, posts: Sequence[Post], seed: int = 1) -> None:
        self._posts = posts
        self._draw = random.Random(seed)
        self._labels: dict[int, int] = {}
        limits = httpx.Limits(max_connections=None)
        self._http = httpx.AsyncClient(base_url=url, timeout=None, limits=limits, verify=False)
        self.answers: Counter[tuple[str, str]] = Counter()  # by kind, and by what was answered
        self.good_s: list[float] = []  # how long answers to good clips took

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def learn(self) -> None:
        """Post each good clip alone, to know its best label from then on."""
        good = next(post for post in self._posts if post.name == GOOD)
        for number in range(len(good.bodies)):
            await self.post(good, number)

    async def closed_loop(self, callers: int, seconds: float) -> float:
        """So many callers, each with one request at a time: requests answered in a second."""
        before, began = self.answers.total(), time.monotonic()

        async def call() -> None:
            while time.monotonic() < began + seconds:
                await self.post(*self._next())

        await asyncio.gather(*(call() for _ in range(callers)))
        return (self.answers.total() - before) / (time.monotonic() - began)

    async def open_loop(self, arrivals: Sequence[float]) -> None:
        """Requests at their times, in seconds from now, whatever has become of those before."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for arrival in arrivals:
                await asyncio.sleep(max(0.0, began + arrival - time.monotonic()))
                group.create_task(self.post(*self._next()))

    async def post(self, post: Post, number: int) -> None:
        """One request."""
        began = time.monotonic()
        patience_s = self._draw.uniform(0, HANGS_UP_WITHIN_S) if post.name == HANG_UP else GIVES_UP_S
        try:
            async with asyncio.timeout(patience_s):
                response = await self._http.post(
                    "/v1/classify", content=post.bodies[number], headers={"Content-Type": post.media_type}
                )
        except TimeoutError:
            told = GONE if post.name == HANG_UP else TIMED_OUT
        except httpx.TransportError:
            told = CUT
        else:
            told = self._told(post, number, response)
            if post.name == GOOD:
                self.good_s.append(time.monotonic() - began)
        self.answers[post.name, told] += 1

    def _next(self) -> tuple[Post, int]:
        (post,) = self._draw.choices(self._posts, [post.share for post in self._posts])
        return post, self._draw.randrange(len(post.bodies))

    def _told(self, post: Post, number: int, response: httpx.Response) -> str:
        """The status and the problem's code; a label that is not the one of the first time is told of."""
        document = response.json()
        if not response.is_success:
            return f"{response.status_code} {document.get('code', '')}".strip()
        best = document["predictions"][0]["index"]
        if post.name == GOOD and self._labels.setdefault(number, best) != best:
            return "200 with another label than before"
        return str(response.status_code)


def undeserved(answers: Counter[tuple[str, str]], posts: Sequence[Post]) -> Iterator[str]:
    """What was answered that should not have been."""
    deserves = {post.name: post.deserves for post in posts}
    for (name, told), count in sorted(answers.items()):
        if told != deserves[name] and not (name == HANG_UP and told in (GONE, "200")):
            yield f"{name}: {count} times {told!r} and not {deserves[name] or GONE!r}"
