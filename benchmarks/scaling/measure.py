"""Measures real replicas on this machine: the cost of a clip, and the behaviour of replicas under load."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from benchmarks.common import service_process as serving
from benchmarks.common.processes import pss_bytes
from benchmarks.scaling.simulation import LoadResult, ReplicaSettings, StageCosts
from benchmarks.serving_race.connections import Target
from benchmarks.serving_race.load import MS, Caller

# Each replica decodes with one process and infers with one thread, so that several fit on few cores.
SETTINGS = {"BLVNET_DECODE_WORKERS": "1", "BLVNET_INFERENCE_THREADS": "1"}
REPLICA = ReplicaSettings(decode_workers=1, inference_threads=1)
SINGLE_POSTS = 40
WARM_UP_POSTS = 5


@dataclass(frozen=True)
class ReplicaFacts:
    """One idle replica: its cost of a clip, its start time, and its memory after the clips."""

    times: StageCosts
    start_s: float
    pss_bytes: int
    clip_bytes: int


def single(clip: bytes) -> ReplicaFacts:
    """Post a clip repeatedly to one replica, one request at a time."""
    with serving.service(environment=SETTINGS) as service, serving.client(service.url) as http:
        for _ in range(WARM_UP_POSTS):
            serving.classify(http, clip)
        rows = []
        for _ in range(SINGLE_POSTS):
            began = time.monotonic()
            timing = serving.classify(http, clip)["timing_ms"]
            total_s = time.monotonic() - began
            decode_s, inference_s = timing["decode"] / MS, timing["inference"] / MS
            # The client bears a part of the connection's cost; a load balancer would cost about as much.
            rows.append((max(0.0, total_s - decode_s - inference_s), decode_s, inference_s))
        http_s, decode_s, inference_s = (statistics.median(column) for column in zip(*rows, strict=True))
        totals = [sum(row) for row in rows]
        spread = statistics.pstdev(totals) / statistics.mean(totals)
        times = StageCosts(http_s, decode_s, inference_s, spread)
        return ReplicaFacts(times, service.ready_s, pss_bytes(service.pid), len(clip))


@contextmanager
def replicas(count: int) -> Iterator[list[str]]:
    """Start replicas on this machine and yield their URLs."""
    with ExitStack() as stack:
        yield [stack.enter_context(serving.service(environment=SETTINGS)).url for _ in range(count)]


def load(urls: Sequence[str], clip: bytes, arrivals: Sequence[float], seconds: float) -> LoadResult:
    """Post a clip at these times, to the replicas in turn, each over a new connection."""
    return asyncio.run(_load(urls, clip, arrivals, seconds))


async def _load(urls: Sequence[str], clip: bytes, arrivals: Sequence[float], seconds: float) -> LoadResult:
    callers = [Caller(Target.of(f"{url}/v1/classify"), [clip], keeps=False) for url in urls]
    await asyncio.gather(*(caller.post() for caller in callers for _ in range(2)))
    for caller in callers:
        caller.answers.clear()
    began = time.monotonic()
    tasks = []
    for number, arrival in enumerate(arrivals):
        await asyncio.sleep(max(0.0, began + arrival - time.monotonic()))
        tasks.append(asyncio.create_task(callers[number % len(callers)].post(began + arrival)))
    await asyncio.gather(*tasks)
    outcome = LoadResult(seconds, replicas=[(0.0, len(urls))])
    for answer in (answer for caller in callers for answer in caller.answers):
        if answer.outcome == "answered":
            outcome.latencies_s.append(answer.took_s)
        elif answer.outcome == "refused":
            outcome.refused += 1
        else:
            raise serving.ServiceFailed(f"a valid clip was {answer.outcome}")
    return outcome
