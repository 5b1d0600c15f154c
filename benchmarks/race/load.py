"""The load generator, a process of its own: reads a plan (JSON) on standard input, writes what came of it.

    python -m benchmarks.race.load

A plan is `{"url", "clips": [files], "phases": [...]}`. A phase is a closed loop, `{"callers", "warm_up_s",
"seconds"}`, where each caller posts its next clip when it has the answer to the last, over a connection that
stays; or an open one, `{"arrivals": [seconds], "seconds", "lone_s"}`, where clips come when they come, each
over a connection of its own as from callers that know nothing of each other, and a lone caller goes on
posting when the load has ended.

It has the cores of the server, so what it takes is missing there: aiohttp takes a third of httpx.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import aiohttp

GIVES_UP_S = 10.0
REFUSED_PAUSE_S = 0.05  # of a caller that was refused, before it comes again
MS = 1e3
HEADERS = {"Content-Type": "application/octet-stream"}
OUTCOMES = {200: "answered", 429: "refused", 503: "refused", 408: "timed out", 504: "timed out"}

Outcome = Literal["answered", "refused", "timed out", "cut", "failed"]


@dataclass(frozen=True)
class Answer:
    """What came of one post.

    Attributes:
        clip: which one.
        began: when it was due, in seconds of the monotonic clock, which all processes of the machine share.
        took_s: until the answer was there, or the caller gave up.
        outcome: answered (200), refused (429, 503), timed out (408, 504, the caller gave up), cut, or failed.
        best: indices of the best labels and their scores, best first.
        work_ms: decoding and inference, where the server tells.
    """

    clip: int
    began: float
    took_s: float
    outcome: Outcome
    best: tuple[tuple[int, float], ...] = ()
    work_ms: float | None = None

    @property
    def ended(self) -> float:
        """When the answer was there."""
        return self.began + self.took_s


class Caller:
    """Posts clips in turn, from where `first` says."""

    def __init__(self, http: aiohttp.ClientSession, url: str, clips: Sequence[bytes], first: int = 0) -> None:
        self._http, self._url, self._clips, self._next = http, url, clips, first
        self.answers: list[Answer] = []

    async def post(self, due: float | None = None) -> Answer:
        """The next clip; `due` is when it should have been sent, which is now if not given."""
        clip = self._next % len(self._clips)
        self._next += 1
        due = due or time.monotonic()
        try:
            async with asyncio.timeout_at(due + GIVES_UP_S):  # the loop's clock is the monotonic one
                async with self._http.post(self._url, data=self._clips[clip], headers=HEADERS) as response:
                    status, body = response.status, await response.read()
        except TimeoutError:
            answer = Answer(clip, due, time.monotonic() - due, "timed out")
        except aiohttp.ClientError:
            answer = Answer(clip, due, time.monotonic() - due, "cut")
        else:
            answer = _read(status, body, clip, due, time.monotonic() - due)
        self.answers.append(answer)
        return answer

    async def post_until(self, enough: asyncio.Event) -> None:
        """One clip after the other."""
        while not enough.is_set():
            answer = await self.post()
            if answer.outcome != "answered":
                await asyncio.sleep(REFUSED_PAUSE_S)


async def closed(url: str, clips: Sequence[bytes], phase: dict[str, Any]) -> dict[str, Any]:
    """A number of callers at once; they go on until all that was begun in the measured time is answered."""
    enough = asyncio.Event()
    async with _client(keep=True) as http:
        callers = [Caller(http, url, clips, number) for number in range(phase["callers"])]
        tasks = [asyncio.create_task(caller.post_until(enough)) for caller in callers]
        await asyncio.sleep(phase["warm_up_s"])
        began = time.monotonic()
        await asyncio.sleep(phase["seconds"])
        ended = time.monotonic()
        await _all_begun_before(ended, callers)
        enough.set()
        await asyncio.gather(*tasks)
    answers = [answer for caller in callers for answer in caller.answers]
    return {"began": began, "ended": ended, "answers": answers}


async def opened(url: str, clips: Sequence[bytes], phase: dict[str, Any]) -> dict[str, Any]:
    """Posts at their times; when the load ends, a lone caller goes on beside what is still being answered."""
    async with _client(keep=False) as http:
        crowd, lone = Caller(http, url, clips), Caller(http, url, clips)
        began = time.monotonic()
        tasks = []
        for arrival in phase["arrivals"]:
            await asyncio.sleep(max(0.0, began + arrival - time.monotonic()))
            tasks.append(asyncio.create_task(crowd.post(began + arrival)))
        await asyncio.sleep(max(0.0, began + phase["seconds"] - time.monotonic()))
        ended, enough = time.monotonic(), asyncio.Event()
        asyncio.get_running_loop().call_later(phase["lone_s"], enough.set)
        await asyncio.gather(lone.post_until(enough), *tasks)
    return {"began": began, "ended": ended, "answers": crowd.answers, "after": lone.answers}


async def run(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """All phases; each with its share of one core."""
    clips = [Path(name).read_bytes() for name in plan["clips"]]
    found = []
    for phase in plan["phases"]:
        cpu_s, wall_s = time.process_time(), time.monotonic()
        result = await (opened if "arrivals" in phase else closed)(plan["url"], clips, phase)
        share = (time.process_time() - cpu_s) / (time.monotonic() - wall_s)
        found.append(result | {"cpu_share": share})
    return found


async def _all_begun_before(moment: float, callers: Sequence[Caller]) -> None:
    """Wait until each caller has begun one at `moment` or later, or been at rest between two."""
    while any(not caller.answers or caller.answers[-1].ended < moment for caller in callers):
        await asyncio.sleep(0.01)


def _client(*, keep: bool) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=0, force_close=not keep)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout())


def _read(status: int, body: bytes, clip: int, began: float, took_s: float) -> Answer:
    outcome: Any = OUTCOMES.get(status, "failed")
    if outcome != "answered":
        return Answer(clip, began, took_s, outcome)
    document = json.loads(body)
    timing = document.get("timing_ms")
    work_ms = timing["decode"] + timing["inference"] if timing else None
    best = tuple((label["index"], label["score"]) for label in document["predictions"])
    return Answer(clip, began, took_s, outcome, best, work_ms)


def _plain(value: Any) -> Any:
    return asdict(value)


if __name__ == "__main__":
    # A refused connection needs a descriptor for each caller that waits.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    json.dump(asyncio.run(run(json.load(sys.stdin))), sys.stdout, default=_plain)
