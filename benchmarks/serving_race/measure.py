"""The measurements: one server and one load at a time."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import service_process as serving
from benchmarks.common.processes import UnrelatedLoad, pss_bytes, sample_pss
from benchmarks.serving_race import figures
from benchmarks.serving_race.connections import HEADERS
from benchmarks.serving_race.figures import Expected
from benchmarks.serving_race.goals import SCENARIOS, SIXTEEN
from benchmarks.serving_race.load import MS
from benchmarks.serving_race.servers import PeerFailed, Running, Server, peer_environment, running

ALONE_POSTS_S = 1.5  # duration of a single caller's posts before an overload
LONE_S = 3.0  # duration of a single caller's posts after an overload
SETTLED_S = 1.0  # before memory is read
WARM_CALLERS = 4
CARRIED_S = 6.0  # duration of the closed loops before and after an overload
TOP = 100  # labels of an expected answer


@dataclass(frozen=True)
class Setup:
    """What all measurements share.

    Attributes:
        package: folder of the served package.
        clips: kind -> video files.
        expected: kind -> expected answers.
        python: interpreter of the peers' environment.
        cache: folder of everything that is generated once.
    """

    package: Path
    clips: dict[str, list[Path]]
    expected: dict[str, Expected]
    python: Path
    cache: Path

    def running(self, server: Server) -> Any:
        """Start a server with the package."""
        return running(server, self.package, self.python, self.cache)


def expected_answers(package: Path, clips: Sequence[Path]) -> Expected:
    """Answers of our service with onnxruntime, one clip at a time."""
    with (
        serving.service(package.parents[1], {"BLVNET_PROVIDER": "cpu"}) as service,
        serving.client(service.url) as http,
    ):
        answers = [serving.classify(http, clip.read_bytes(), top_k=TOP) for clip in clips]
    return [
        {label["index"]: math.log(label["score"]) for label in answer["predictions"]} for answer in answers
    ]


def closed(
    setup: Setup, server: Server, kind: str, callers: int, warm_up_s: float, seconds: float
) -> dict[str, Any]:
    """Measure a new server in a closed loop of `callers`."""
    with setup.running(server) as target:
        phase = {"callers": callers, "warm_up_s": warm_up_s, "seconds": seconds}
        (result,) = load(target, server, setup.clips[kind], [phase])
    return figures.closed_loop(result, setup.expected[kind])


def overload(
    setup: Setup, server: Server, kind: str, rate: float, warm_up_s: float, seconds: float
) -> dict[str, Any]:
    """Measure a new, warmed-up server under overload, with its memory before, during and after.

    For our service, the rate of a closed loop is measured immediately before and after the overload, because
    the capacity of a shared machine changes from minute to minute.
    """
    clips, expected = setup.clips[kind], setup.expected[kind]
    warm = {"callers": WARM_CALLERS, "warm_up_s": 0.0, "seconds": ALONE_POSTS_S}
    alone = {"callers": 1, "warm_up_s": 0.0, "seconds": ALONE_POSTS_S}
    carries = {"callers": SCENARIOS[SIXTEEN].callers, "warm_up_s": warm_up_s, "seconds": CARRIED_S}
    beside = [carries] if server.ours else []
    lasts_s = warm_up_s + seconds
    flood = {"arrivals": figures.arrivals(rate, lasts_s), "seconds": lasts_s, "lone_s": LONE_S}
    with setup.running(server) as target:
        load(target, server, clips, [warm])
        time.sleep(SETTLED_S)
        before = pss_bytes(target.pid)
        with sample_pss(target.pid) as samples:
            carried = _rates(load(target, server, clips, beside), expected)
            lone, flooded = load(target, server, clips, [alone, flood])
            carried += _rates(load(target, server, clips, beside), expected)
        time.sleep(SETTLED_S)
        after = pss_bytes(target.pid)
    alone_ms = figures.closed_loop(lone, expected)["p50_ms"]
    if alone_ms is None:
        raise PeerFailed(f"{server.name} gave no correct answer to a single caller")
    memory = {"pss_before": before, "pss_peak": max(before, *samples, after), "pss_after": after}
    found = figures.open_loop(flooded, warm_up_s, expected, alone_ms / MS)
    return found | memory | {"carried": statistics.mean(carried) if carried else None}


def _rates(phases: Sequence[dict[str, Any]], expected: Expected) -> list[float]:
    return [figures.closed_loop(phase, expected)["rate"] for phase in phases]


def idle(setup: Setup, server: Server, kind: str) -> dict[str, Any]:
    """Measure the times from process start to ready and to the first answer, and the memory."""
    with setup.running(server) as target:
        time.sleep(SETTLED_S)
        pss = pss_bytes(target.pid)
    with setup.running(server) as target, serving.client(target.url) as http:
        answer = http.post(server.route, content=setup.clips[kind][0].read_bytes(), headers=HEADERS)
        if not answer.is_success:
            raise PeerFailed(f"{server.name} answered {answer.status_code}")
        first_answer_s = time.monotonic() - target.started
        time.sleep(SETTLED_S)
        answered = pss_bytes(target.pid)
    return {
        "ready_s": target.ready_s,
        "first_answer_s": first_answer_s,
        "pss_ready": pss,
        "pss_answered": answered,
    }


def bare(setup: Setup, kind: str, processes: int, threads: int, seconds: float) -> dict[str, float]:
    """Run the job in a loop without a server, in several processes."""
    with ExitStack() as stack:
        loops = [stack.enter_context(_loop(setup, kind, threads)) for _ in range(processes)]
        _wait_until_ready(loops)
        unrelated = UnrelatedLoad(*(loop.pid for loop in loops))
        durations_s = _work(loops, seconds)
        foreign_cores = unrelated.cores()
    return {"foreign_cores": foreign_cores} | combined(durations_s)


def combined(durations_s: Sequence[Sequence[float]]) -> dict[str, float]:
    """Total rate and median duration of concurrent loops, from the durations of their iterations."""
    return {
        "rate": sum(len(times) / sum(times) for times in durations_s),
        "p50_ms": MS * statistics.median(value for times in durations_s for value in times),
    }


def load(
    target: Running, server: Server, clips: Sequence[Path], phases: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Run the load generator in a separate process and return the result of each phase."""
    plan = {"url": target.url + server.route, "clips": [str(clip) for clip in clips], "phases": list(phases)}
    unrelated = UnrelatedLoad(target.pid)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.serving_race.load"],
        input=json.dumps(plan),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return [phase | {"foreign_cores": unrelated.cores()} for phase in found]


def _wait_until_ready(loops: Sequence[subprocess.Popen[str]]) -> None:
    for loop in loops:
        assert loop.stdout
        if loop.stdout.readline() != "ready\n":
            raise PeerFailed("the loop without a server did not start")


def _work(loops: Sequence[subprocess.Popen[str]], seconds: float) -> list[list[float]]:
    for loop in loops:
        assert loop.stdin
        loop.stdin.write(f"{seconds}\n")
        loop.stdin.flush()
    return [json.loads(loop.stdout.readline()) for loop in loops if loop.stdout]


@contextmanager
def _loop(setup: Setup, kind: str, threads: int) -> Iterator[subprocess.Popen[str]]:
    command = [str(setup.python), "-m", "benchmarks.serving_race.peers.bare", *map(str, setup.clips[kind])]
    with subprocess.Popen(
        command,
        env=peer_environment(setup.package, threads),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()
