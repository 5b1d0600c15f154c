"""The load generator, a process of its own: reads a plan (JSON) on standard input, writes what came of it.

    python -m benchmarks.race.load

A plan is `{"url", "clips": [files], "phases": [...]}`. A phase is a closed loop, `{"callers", "warm_up_s",
"seconds"}`, where each caller posts its next clip when it has the answer to the last, over a connection that
stays; or an open one, `{"arrivals": [seconds], "seconds", "lone_s"}`, where clips come when they come, each
over a connection of its own as from callers that know nothing of each other, and a lone caller goes on
posting when the load has ended.

It has the cores of the server, so what it takes is missing there; see `benchmarks.race.posts`.
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

import uvloop

from benchmarks.race.posts import Connection, Reply, Target

GIVES_UP_S = 10.0
REFUSED_PAUSE_S = 0.05  # of a caller that was refused, before it comes again
MS = 1e3
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
    """Posts clips in turn, from where `first` says, over a connection that stays if it `keeps` it."""

    def __init__(self, target: Target, clips: Sequence[bytes], first: int = 0, *, keeps: bool) -> None:
        self._target, self._clips, self._next, self._keeps = target, clips, first, keeps
        self._kept: Connection | None = None
        self.answers: list[Answer] = []

    async def post(self, due: float | None = None) -> Answer:
        """The next clip; `due` is when it should have been sent, which is now if not given."""
        clip = self._next % len(self._clips)
        self._next += 1
        due = due or time.monotonic()
        try:
            async with asyncio.timeout_at(due + GIVES_UP_S):  # the loop's clock is the monotonic one
                reply = await self._send(self._clips[clip])
        except TimeoutError:
            answer = Answer(clip, due, time.monotonic() - due, "timed out")
        except OSError:
            answer = Answer(clip, due, time.monotonic() - due, "cut")
        else:
            answer = _read(reply, clip, due, time.monotonic() - due)
        self.answers.append(answer)
        return answer

    async def _send(self, clip: bytes) -> Reply:
        kept, self._kept = self._kept, None
        connection = kept if kept is not None and kept.is_open else await Connection.open(self._target)
        reply = None
        try:
            reply = await connection.post(clip)
        finally:
            if reply is not None and reply.keeps and self._keeps:
                self._kept = connection
            else:
                connection.close()
        return reply

    def close(self) -> None:
        """End the connection that was kept."""
        if self._kept is not None:
            self._kept.close()

    async def post_until(self, enough: asyncio.Event) -> None:
        """One clip after the other."""
        while not enough.is_set():
            answer = await self.post()
            if answer.outcome != "answered":
                await asyncio.sleep(REFUSED_PAUSE_S)


async def closed(target: Target, clips: Sequence[bytes], phase: dict[str, Any]) -> dict[str, Any]:
    """A number of callers at once; they go on until all that was begun in the measured time is answered."""
    enough = asyncio.Event()
    callers = [Caller(target, clips, number, keeps=True) for number in range(phase["callers"])]
    tasks = [asyncio.create_task(caller.post_until(enough)) for caller in callers]
    await asyncio.sleep(phase["warm_up_s"])
    began = time.monotonic()
    await asyncio.sleep(phase["seconds"])
    ended = time.monotonic()
    await _all_begun_before(ended, callers)
    enough.set()
    await asyncio.gather(*tasks)
    for caller in callers:
        caller.close()
    answers = [answer for caller in callers for answer in caller.answers]
    return {"began": began, "ended": ended, "answers": answers}


async def opened(target: Target, clips: Sequence[bytes], phase: dict[str, Any]) -> dict[str, Any]:
    """Posts at their times; when the load ends, a lone caller goes on beside what is still being answered."""
    crowd, lone = Caller(target, clips, keeps=False), Caller(target, clips, keeps=False)
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
    target = Target.of(plan["url"])
    clips = [Path(name).read_bytes() for name in plan["clips"]]
    found = []
    for phase in plan["phases"]:
        cpu_s, wall_s = time.process_time(), time.monotonic()
        result = await (opened if "arrivals" in phase else closed)(target, clips, phase)
        share = (time.process_time() - cpu_s) / (time.monotonic() - wall_s)
        found.append(result | {"cpu_share": share})
    return found


async def _all_begun_before(moment: float, callers: Sequence[Caller]) -> None:
    """Wait until each caller has begun one at `moment` or later, or been at rest between two."""
    while any(not caller.answers or caller.answers[-1].ended < moment for caller in callers):
        await asyncio.sleep(0.01)


def _read(reply: Reply, clip: int, began: float, took_s: float) -> Answer:
    outcome: Any = OUTCOMES.get(reply.status, "failed")
    if outcome != "answered":
        return Answer(clip, began, took_s, outcome)
    document = json.loads(reply.body)
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
    json.dump(uvloop.run(run(json.load(sys.stdin))), sys.stdout, default=_plain)
