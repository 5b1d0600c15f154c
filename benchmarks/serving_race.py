"""Our service beside other model servers that do the same job on the same package and clips.

    python -m benchmarks.serving_race [--quick] [--only NAME ...]

The peers (`benchmarks/peers`) are plain FastAPI with one process and with two, LitServe and mosec, set up as
their documentation advises. Every server is started afresh for every measurement, they take turns, and only
one is alive at a time. The peers get an environment of their own, made on the first run like the package and
the clips, and kept in the cache folder.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks import report
from benchmarks.race import goals, measure, servers
from benchmarks.race import report as race_report
from benchmarks.race.goals import SCENARIOS
from benchmarks.race.material import KINDS, SHORT, described, made_clips, made_package, package_in
from benchmarks.race.measure import Course
from benchmarks.race.servers import PeerFailed, Server
from benchmarks.serving import ServiceFailed
from service.bench.progress import watching
from service.bench.race import Step, Watch
from service.errors import BlvnetError
from service.settings import bundled_models

NAME = "serving_race"
PAGE = Path(__file__).parents[1] / "docs" / "serving.md"
START, END = f"<!-- written by python -m benchmarks.{NAME} -->\n", "<!-- end -->\n"
CACHE = Path(tempfile.gettempdir(), "blvnet-serving-race")
OVERLOAD = 2.0  # times the best rate
DISTURBED = 0.1  # cores that others took: more than that, and it is measured again
VERSIONS = ("fastapi", "uvicorn", "litserve", "mosec", "onnxruntime", "av")


@dataclass(frozen=True)
class Extent:
    """How much is measured; see the options."""

    rounds: int
    seconds: float
    warm_up_s: float
    overload_rounds: int
    overload_seconds: float
    idle_rounds: int
    rate: float | None = None


FULL = Extent(rounds=3, seconds=6, warm_up_s=1, overload_rounds=3, overload_seconds=30, idle_rounds=3)
QUICK = Extent(rounds=1, seconds=2.5, warm_up_s=0.5, overload_rounds=1, overload_seconds=6, idle_rounds=1)


def main(
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds of closed loops [3].")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Of one closed loop [6].")] = None,
    overload_rounds: Annotated[int | None, typer.Option(min=0, help="Rounds of overloads [3].")] = None,
    overload_seconds: Annotated[float | None, typer.Option(min=0.1, help="Of one overload [30].")] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this server; can be repeated.")
    ] = None,
    idle_rounds: Annotated[int | None, typer.Option(min=0, help="Rounds of idling [3].")] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.1, help="Clips a second of an overload, for all; twice its own best rate if not given."
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="One short round, overloads only with limits; for development.")
    ] = False,
    package: Annotated[
        Path | None, typer.Option(help="Folder MODELS with one package; a made one otherwise.")
    ] = None,
    queue_limit: Annotated[int, typer.Option(min=1, help="Of peers that can have one.")] = 6,
    peers_python: Annotated[
        Path | None, typer.Option(help="A Python that has the peers' packages; made if not given.")
    ] = None,
    cache: Annotated[Path, typer.Option(help="Folder for all that is made once.")] = CACHE,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the result; else only whole runs write one, and the page."),
    ] = None,
    page: Annotated[Path, typer.Option(help="Page with the place for the tables.")] = PAGE,
) -> None:
    """Measure closed loops, overloads and idling of our service and of its peers."""
    whole = not (quick or only)
    chosen = choose([*servers.ours(), *servers.peers(queue_limit)], only)
    base = QUICK if quick else FULL
    extent = Extent(
        rounds=rounds or base.rounds,
        seconds=seconds or base.seconds,
        warm_up_s=base.warm_up_s,
        overload_rounds=base.overload_rounds if overload_rounds is None else overload_rounds,
        overload_seconds=overload_seconds or base.overload_seconds,
        idle_rounds=base.idle_rounds if idle_rounds is None else idle_rounds,
        rate=rate,
    )
    console = Console(stderr=True)
    try:
        course = prepare(package, peers_python, cache, lambda text: console.print(text, highlight=False))
        document = header(course, chosen, extent, queue_limit)
        with watching(console) as watch:
            Race(course, chosen, extent, document, watch).run(all_overloads=not quick)
    except (BlvnetError, PeerFailed, ServiceFailed) as exc:
        console.print(f"cannot measure: {exc}", highlight=False)
        raise typer.Exit(1) from exc
    text = finish(document)
    print(text)
    if whole or out:
        report.write(NAME, document, f"# Serving, beside other servers\n\n{text}", out or report.RESULTS)
    if whole:
        page.write_text(report.placed(page.read_text(encoding="utf-8"), text, START, END), encoding="utf-8")


def choose(everybody: Sequence[Server], only: Sequence[str] | None) -> list[Server]:
    """Those that are named, with and without their limit; all if none is.

    Raises:
        typer.BadParameter: there is no server of a name.
    """
    names = [server.name for server in everybody if not server.limited]
    if unknown := sorted(set(only or ()) - set(names)):
        raise typer.BadParameter(f"there is no {'; '.join(unknown)}; there are: {'; '.join(names)}")
    return [server for server in everybody if not only or server.name.removesuffix(servers.LIMITED) in only]


def prepare(package: Path | None, python: Path | None, cache: Path, say: Callable[[str], object]) -> Course:
    """Make what is not there yet, and ask our service what should come out."""
    cache.mkdir(parents=True, exist_ok=True)
    folder = package_in(package) if package else made_package(cache, say)
    python = python or servers.environment(cache, say)
    clips = {kind: made_clips(kind, cache) for kind in KINDS}
    expected = {kind: measure.expected_answers(folder, files) for kind, files in clips.items()}
    return Course(folder, clips, expected, python, cache)


def header(course: Course, chosen: Sequence[Server], extent: Extent, queue_limit: int) -> dict[str, Any]:
    """The document before anything is measured."""
    return {
        "machine": report.machine(),
        "versions": versions(course.python),
        "package": described(course.package),
        "rounds": extent.rounds,
        "seconds": extent.seconds,
        "overload_rounds": extent.overload_rounds,
        "overload_seconds": extent.overload_seconds,
        "overload_rate": extent.rate,
        "queue_limit": queue_limit,
        "servers": {server.name: {"ours": server.ours, "limited": server.limited} for server in chosen},
        "absent": {},
        "repeated": 0,
        "closed": {name: {} for name in SCENARIOS},
        "floors": {name: [] for name in SCENARIOS},
        "overload": {},
        "idle": {},
    }


def finish(document: dict[str, Any]) -> str:
    """Add the goals to the document; the report."""
    document["goals"] = {
        name: [goal.to_json() for goal in found]
        for name, found in race_report.goals_of_ours(document).items()
    }
    return race_report.markdown(document)


def versions(python: Path) -> dict[str, str]:
    """What the peers' environment has."""
    code = "import importlib.metadata as m; print(*(f'{d.name}={d.version}' for d in m.distributions()))"
    done = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
    found = dict(item.split("=", 1) for item in done.stdout.split())
    return {name: found[name] for name in VERSIONS if name in found}


@dataclass
class Race:
    """One run: who takes part in what, in turns; figures go into the document."""

    course: Course
    servers: list[Server]
    extent: Extent
    document: dict[str, Any]
    watch: Watch
    done: int = 0
    total: int = 0

    def run(self, *, all_overloads: bool) -> None:
        """Everything: closed loops first, as they say how much an overload is."""
        free = [server for server in self.servers if not server.limited]
        flooded = [server for server in self.servers if all_overloads or server.limited or server.ours]
        self.total = self.extent.rounds * len(SCENARIOS) * (len(free) + 1)
        self.total += self.extent.overload_rounds * len(flooded) + self.extent.idle_rounds * len(free)
        for number in range(self.extent.rounds):
            self.closed_loops(rotated(free, number))
        for number in range(self.extent.overload_rounds):
            for server in rotated(flooded, number):
                self.attempt(server, "overload", self.document["overload"], self.overload)
        demo = self.with_demo_package()
        for number in range(self.extent.idle_rounds):
            for server in rotated(free, number):
                self.attempt(
                    server, "idle", self.document["idle"], lambda server: measure.idle(demo, server, SHORT)
                )

    def closed_loops(self, turns: Sequence[Server]) -> None:
        """One round."""
        for name, scenario in SCENARIOS.items():

            def closed(server: Server, scenario: goals.Scenario = scenario) -> dict[str, Any]:
                return measure.closed(
                    self.course,
                    server,
                    scenario.kind,
                    scenario.callers,
                    self.extent.warm_up_s,
                    self.extent.seconds,
                )

            def bare(scenario: goals.Scenario = scenario) -> dict[str, Any]:
                return measure.bare(self.course, scenario.kind, *scenario.floor, self.extent.seconds)

            for server in turns:
                self.attempt(server, scenario.title, self.document["closed"][name], closed)
            self.step(f"{scenario.title}: no server")
            self.document["floors"][name].append(self.undisturbed(bare))

    def overload(self, server: Server) -> dict[str, Any]:
        """The rate that was asked for, or twice what the server carried in the closed loops."""
        rate = self.extent.rate
        if rate is None:
            best = goals.best_rate(self.document, server.name)
            if not best:
                raise PeerFailed("no closed loop says how much it can carry")
            rate = OVERLOAD * best
        return measure.overload(
            self.course, server, SHORT, rate, self.extent.warm_up_s, self.extent.overload_seconds
        )

    def attempt(
        self,
        server: Server,
        what: str,
        figures: dict[str, list[dict[str, Any]]],
        measured: Callable[[Server], dict[str, Any]],
    ) -> None:
        """Measure one server; one that fails is absent from then on."""
        self.step(f"{what}: {server.name}")
        if server.name in self.document["absent"]:
            return
        try:
            found = self.undisturbed(lambda: measured(server))
            figures.setdefault(server.name, []).append(found)
        except (PeerFailed, ServiceFailed) as exc:
            self.document["absent"][server.name] = str(exc)

    def undisturbed(self, measured: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Measure once more if other processes took part of the machine; the less disturbed of the two."""
        found = measured()
        if found.get("foreign_cores", 0.0) <= DISTURBED:
            return found
        self.document["repeated"] += 1
        return min(found, measured(), key=lambda figures: figures["foreign_cores"])

    def step(self, what: str) -> None:
        """Say what begins."""
        self.watch(Step(what, self.done, self.total))
        self.done += 1

    def with_demo_package(self) -> Course:
        """The same with the bundled package; nobody asks whether its answers are right."""
        course = self.course
        return Course(
            package_in(bundled_models()), course.clips, course.expected, course.python, course.cache
        )


def rotated(names: Sequence[Server], number: int) -> list[Server]:
    """In each round another one begins."""
    start = number % len(names) if names else 0
    return [*names[start:], *names[:start]]


if __name__ == "__main__":
    typer.run(main)
