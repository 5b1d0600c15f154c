"""The measurements of the race: one server and one load at a time."""

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

from benchmarks import serving
from benchmarks.race import figures
from benchmarks.race.figures import Expected
from benchmarks.race.goals import SCENARIOS, SIXTEEN
from benchmarks.race.load import MS
from benchmarks.race.posts import HEADERS
from benchmarks.race.processes import Foreign, pss_bytes, watched
from benchmarks.race.servers import PeerFailed, Running, Server, peer_environment, running

ALONE_POSTS_S = 1.5  # of a lone caller before an overload
LONE_S = 3.0  # of a lone caller after it
SETTLED_S = 1.0  # after which memory is read
WARM_CALLERS = 4
CARRIED_S = 6.0  # of a closed loop beside an overload
TOP = 100  # labels that an expected answer names


@dataclass(frozen=True)
class Course:
    """What all measurements share.

    Attributes:
        package: what is served.
        clips: kind -> files.
        expected: kind -> what should come out.
        python: of the peers.
        cache: of the race.
    """

    package: Path
    clips: dict[str, list[Path]]
    expected: dict[str, Expected]
    python: Path
    cache: Path

    def running(self, server: Server) -> Any:
        """The server, started with the package."""
        return running(server, self.package, self.python, self.cache)


def expected_answers(package: Path, clips: Sequence[Path]) -> Expected:
    """Our own answers to clips that come alone, by onnxruntime."""
    with (
        serving.service(package.parents[1], {"BLVNET_PROVIDER": "cpu"}) as service,
        serving.client(service.url) as http,
    ):
        answers = [serving.classify(http, clip.read_bytes(), top_k=TOP) for clip in clips]
    return [
        {label["index"]: math.log(label["score"]) for label in answer["predictions"]} for answer in answers
    ]


def closed(
    course: Course, server: Server, kind: str, callers: int, warm_up_s: float, seconds: float
) -> dict[str, Any]:
    """A freshly started server under so many callers that wait for their answers."""
    with course.running(server) as target:
        phase = {"callers": callers, "warm_up_s": warm_up_s, "seconds": seconds}
        (result,) = load(target, server, course.clips[kind], [phase])
    return figures.closed_loop(result, course.expected[kind])


def overload(
    course: Course, server: Server, kind: str, rate: float, warm_up_s: float, seconds: float
) -> dict[str, Any]:
    """A freshly started and warmed server under too much load; its memory before, meanwhile and after.

    Just before and after the load it is measured what ours carries, as a machine that others share carries
    more in one minute than in the next.
    """
    clips, expected = course.clips[kind], course.expected[kind]
    warm = {"callers": WARM_CALLERS, "warm_up_s": 0.0, "seconds": ALONE_POSTS_S}
    alone = {"callers": 1, "warm_up_s": 0.0, "seconds": ALONE_POSTS_S}
    carries = {"callers": SCENARIOS[SIXTEEN].callers, "warm_up_s": warm_up_s, "seconds": CARRIED_S}
    beside = [carries] if server.ours else []
    lasts_s = warm_up_s + seconds
    flood = {"arrivals": figures.arrivals(rate, lasts_s), "seconds": lasts_s, "lone_s": LONE_S}
    with course.running(server) as target:
        load(target, server, clips, [warm])
        time.sleep(SETTLED_S)
        before = pss_bytes(target.pid)
        with watched(target.pid) as samples:
            carried = _rates(load(target, server, clips, beside), expected)
            lone, flooded = load(target, server, clips, [alone, flood])
            carried += _rates(load(target, server, clips, beside), expected)
        time.sleep(SETTLED_S)
        after = pss_bytes(target.pid)
    alone_ms = figures.closed_loop(lone, expected)["p50_ms"]
    if alone_ms is None:
        raise PeerFailed(f"{server.name} gave no right answer to a lone caller")
    memory = {"pss_before": before, "pss_peak": max(before, *samples, after), "pss_after": after}
    found = figures.open_loop(flooded, warm_up_s, expected, alone_ms / MS)
    return found | memory | {"carried": statistics.mean(carried) if carried else None}


def _rates(phases: Sequence[dict[str, Any]], expected: Expected) -> list[float]:
    return [figures.closed_loop(phase, expected)["rate"] for phase in phases]


def idle(course: Course, server: Server, kind: str) -> dict[str, Any]:
    """Time from the start of the process to ready and to the first answer; memory before and after that."""
    with course.running(server) as target:
        time.sleep(SETTLED_S)
        pss = pss_bytes(target.pid)
    with course.running(server) as target, serving.client(target.url) as http:
        answer = http.post(server.route, content=course.clips[kind][0].read_bytes(), headers=HEADERS)
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


def bare(course: Course, kind: str, processes: int, threads: int, seconds: float) -> dict[str, float]:
    """The job in a loop without a server, in so many processes at once."""
    with ExitStack() as stack:
        loops = [stack.enter_context(_loop(course, kind, threads)) for _ in range(processes)]
        _wait_until_ready(loops)
        foreign = Foreign(*(loop.pid for loop in loops))
        took = _work(loops, seconds)
        foreign_cores = foreign.cores()
    return {"foreign_cores": foreign_cores} | side_by_side(took)


def side_by_side(took: Sequence[Sequence[float]]) -> dict[str, float]:
    """What loops did that ran at the same time, of the seconds that each round of each took."""
    return {
        "rate": sum(len(times) / sum(times) for times in took),
        "p50_ms": MS * statistics.median(value for times in took for value in times),
    }


def load(
    target: Running, server: Server, clips: Sequence[Path], phases: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """What the load generator, in a process of its own, saw in each phase."""
    plan = {"url": target.url + server.route, "clips": [str(clip) for clip in clips], "phases": list(phases)}
    foreign = Foreign(target.pid)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.race.load"],
        input=json.dumps(plan),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return [phase | {"foreign_cores": foreign.cores()} for phase in found]


def _wait_until_ready(loops: Sequence[subprocess.Popen[str]]) -> None:
    for loop in loops:
        assert loop.stdout
        if loop.stdout.readline() != "ready\n":
            raise PeerFailed("the job without a server did not start")


def _work(loops: Sequence[subprocess.Popen[str]], seconds: float) -> list[list[float]]:
    for loop in loops:
        assert loop.stdin
        loop.stdin.write(f"{seconds}\n")
        loop.stdin.flush()
    return [json.loads(loop.stdout.readline()) for loop in loops if loop.stdout]


@contextmanager
def _loop(course: Course, kind: str, threads: int) -> Iterator[subprocess.Popen[str]]:
    command = [str(course.python), "-m", "benchmarks.peers.bare", *map(str, course.clips[kind])]
    with subprocess.Popen(
        command,
        env=peer_environment(course.package, threads),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()
