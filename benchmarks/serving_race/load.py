"""Load generator: reads a plan (JSON) from standard input and writes the answers to standard output.

    python -m benchmarks.serving_race.load

A plan is `{"url", "clips": [files], "phases": [...]}`. A phase is either a closed loop, `{"callers",
"warm_up_s", "seconds"}`, in which each caller keeps its connection and posts the next clip when it has the
previous answer; or an open loop, `{"arrivals": [seconds], "seconds", "lone_s"}`, in which clips arrive at
fixed times, each over a new connection. After an open loop, a single caller continues to post for `lone_s`.

The load generator shares the server's cores, so it must use little CPU; see
`benchmarks.serving_race.connections`.
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

from benchmarks.serving_race.connections import Connection, Reply, Target

CALLER_TIMEOUT_S = 10.0
REFUSED_PAUSE_S = 0.05  # before a rejected caller posts again
MS = 1e3
OUTCOMES = {200: "answered", 429: "refused", 503: "refused", 408: "timed out", 504: "timed out"}

AnswerKind = Literal["answered", "refused", "timed out", "cut", "failed"]


@dataclass(frozen=True)
class Answer:
    """The outcome of one post.

    Attributes:
        clip: index of the clip.
        began: scheduled start, in seconds of the monotonic clock, which all processes of a machine share.
        took_s: seconds until the answer or the caller's timeout.
        outcome: answered (200), refused (429, 503), timed out (408, 504 or the caller's timeout), cut, or
            failed.
        best: indices and scores of the best labels, best first.
        work_ms: decoding and inference, if the server reports them.
    """

    clip: int
    began: float
    took_s: float
    outcome: AnswerKind
    best: tuple[tuple[int, float], ...] = ()
    work_ms: float | None = None

    @property
    def ended(self) -> float:
        """Time of the answer, on the monotonic clock."""
        return self.began + self.took_s


class Caller:
    """Posts clips in turn, starting with `first`; reuses its connection if `keeps`."""

    def __init__(self, target: Target, clips: Sequence[bytes], first: int = 0, *, keeps: bool) -> None:
        self._target, self._clips, self._next, self._keeps = target, clips, first, keeps
        self._kept: Connection | None = None
        self.answers: list[Answer] = []

    async def post(self, due: float | None = None) -> Answer:
        """Post the next clip, scheduled for `due` (default: now)."""
        clip = self._next % len(self._clips)
        self._next += 1
        due = due or time.monotonic()
        try:
            async with asyncio.timeout_at(due + CALLER_TIMEOUT_S):  # the loop's clock is the monotonic one
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
        """Close the connection if it is open."""
        if self._kept is not None:
            self._kept.close()

    async def post_until(self, stop: asyncio.Event) -> None:
        """Post clips until `stop` is set."""
        while not stop.is_set():
            answer = await self.post()
            if answer.outcome != "answered":
                await asyncio.sleep(REFUSED_PAUSE_S)


async def closed(target: Target, clips: Sequence[bytes], phase: dict[str, Any]) -> dict[str, Any]:
    """Run a closed loop; callers continue until every request of the measured interval is answered."""
    stop = asyncio.Event()
    callers = [Caller(target, clips, number, keeps=True) for number in range(phase["callers"])]
    tasks = [asyncio.create_task(caller.post_until(stop)) for caller in callers]
    await asyncio.sleep(phase["warm_up_s"])
    began = time.monotonic()
    await asyncio.sleep(phase["seconds"])
    ended = time.monotonic()
    await _all_begun_before(ended, callers)
    stop.set()
    await asyncio.gather(*tasks)
    for caller in callers:
        caller.close()
    answers = [answer for caller in callers for answer in caller.answers]
    return {"began": began, "ended": ended, "answers": answers}


async def opened(target: Target, clips: Sequence[bytes], phase: dict[str, Any]) -> dict[str, Any]:
    """Run an open loop, then a single caller while the remaining requests are answered."""
    crowd, lone = Caller(target, clips, keeps=False), Caller(target, clips, keeps=False)
    began = time.monotonic()
    tasks = []
    for arrival in phase["arrivals"]:
        await asyncio.sleep(max(0.0, began + arrival - time.monotonic()))
        tasks.append(asyncio.create_task(crowd.post(began + arrival)))
    await asyncio.sleep(max(0.0, began + phase["seconds"] - time.monotonic()))
    ended, stop = time.monotonic(), asyncio.Event()
    asyncio.get_running_loop().call_later(phase["lone_s"], stop.set)
    await asyncio.gather(lone.post_until(stop), *tasks)
    return {"began": began, "ended": ended, "answers": crowd.answers, "after": lone.answers}


async def run(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Run all phases; each result includes the CPU share of the load generator."""
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
    """Wait until the latest answer of each caller is later than `moment`."""
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
    # Every waiting caller of an overload needs a descriptor.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    json.dump(uvloop.run(run(json.load(sys.stdin))), sys.stdout, default=_plain)
