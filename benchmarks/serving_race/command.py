"""Compare the service with other model servers on the same package and videos.

    python -m benchmarks.serving_race [--quick] [--only NAME ...]

The peers (`benchmarks/serving_race/peers`) are plain FastAPI with one process and with two, LitServe and
mosec, set up as their documentation advises. Every server is started afresh for every measurement. The
servers take turns, and only one runs at a time. The peers have their own environment, which is made on the
first run like the package and the clips, and kept in the cache folder.
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

from benchmarks.common import report
from benchmarks.common.service_process import ServiceFailed
from benchmarks.serving_race import goals, measure, servers
from benchmarks.serving_race import report as race_report
from benchmarks.serving_race.goals import SCENARIOS
from benchmarks.serving_race.measure import Setup
from benchmarks.serving_race.servers import PeerFailed, Server
from benchmarks.serving_race.videos import KINDS, SHORT, described, made_clips, made_package, package_in
from service.bench.measurement import OnStep, Step
from service.bench.progress import show_steps
from service.errors import BlvnetError
from service.packages.folders import bundled_models

NAME = "serving_race"
PAGE = Path(__file__).parents[2] / "docs" / "serving.md"
START, END = f"<!-- written by python -m benchmarks.{NAME} -->\n", "<!-- end -->\n"
CACHE = Path(tempfile.gettempdir(), "blvnet-serving-race")
OVERLOAD = 2.0  # offered rate as a multiple of the best closed-loop rate
DISTURBED = 0.1  # repeat a measurement if unrelated processes used more cores than this
VERSIONS = ("fastapi", "uvicorn", "litserve", "mosec", "onnxruntime", "av")


@dataclass(frozen=True)
class RaceExtent:
    """The extent of the measurements; see the command's options."""

    rounds: int
    seconds: float
    warm_up_s: float
    overload_rounds: int
    overload_seconds: float
    idle_rounds: int
    rate: float | None = None


FULL = RaceExtent(rounds=3, seconds=6, warm_up_s=1, overload_rounds=3, overload_seconds=30, idle_rounds=3)
QUICK = RaceExtent(rounds=1, seconds=2.5, warm_up_s=0.5, overload_rounds=1, overload_seconds=6, idle_rounds=1)


def main(
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds of closed loops [3].")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Duration of a closed loop [6].")] = None,
    overload_rounds: Annotated[int | None, typer.Option(min=0, help="Rounds of overloads [3].")] = None,
    overload_seconds: Annotated[
        float | None, typer.Option(min=0.1, help="Duration of an overload [30].")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Measure only this server; repeatable.")
    ] = None,
    idle_rounds: Annotated[int | None, typer.Option(min=0, help="Rounds of idle measurements [3].")] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.1, help="Rate of overloads in clips/s; by default twice the best rate of each server."
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="One short round; overloads only for servers with limits.")
    ] = False,
    package: Annotated[
        Path | None, typer.Option(help="Folder with one package; by default one is generated.")
    ] = None,
    queue_limit: Annotated[int, typer.Option(min=1, help="Queue limit of the peers that support one.")] = 6,
    peers_python: Annotated[
        Path | None,
        typer.Option(help="Python with the peers' packages; by default an environment is created."),
    ] = None,
    cache: Annotated[Path, typer.Option(help="Folder for generated files and environments.")] = CACHE,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the results; by default only complete runs write them."),
    ] = None,
    page: Annotated[Path, typer.Option(help="Documentation page that contains the tables.")] = PAGE,
) -> None:
    """Measure closed loops, overloads and idle servers."""
    whole = not (quick or only)
    chosen = choose([*servers.ours(), *servers.peers(queue_limit)], only)
    base = QUICK if quick else FULL
    extent = RaceExtent(
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
        setup = prepare(package, peers_python, cache, lambda text: console.print(text, highlight=False))
        document = header(setup, chosen, extent, queue_limit)
        with show_steps(console) as watch:
            Race(setup, chosen, extent, document, watch).run(all_overloads=not quick)
    except (BlvnetError, PeerFailed, ServiceFailed) as exc:
        console.print(f"cannot measure: {exc}", highlight=False)
        raise typer.Exit(1) from exc
    text = finish(document)
    print(text)
    if whole or out:
        report.write(NAME, document, f"# Serving performance\n\n{text}", out or report.RESULTS)
    if whole:
        page.write_text(report.placed(page.read_text(encoding="utf-8"), text, START, END), encoding="utf-8")


def choose(everybody: Sequence[Server], only: Sequence[str] | None) -> list[Server]:
    """The named servers, with and without their limit; all if no name is given.

    Raises:
        typer.BadParameter: a name is unknown.
    """
    names = [server.name for server in everybody if not server.limited]
    if unknown := sorted(set(only or ()) - set(names)):
        raise typer.BadParameter(f"there is no {'; '.join(unknown)}; there are: {'; '.join(names)}")
    return [server for server in everybody if not only or server.name.removesuffix(servers.LIMITED) in only]


def prepare(package: Path | None, python: Path | None, cache: Path, say: Callable[[str], object]) -> Setup:
    """Create the files that are missing, and get the expected answers from our service."""
    cache.mkdir(parents=True, exist_ok=True)
    folder = package_in(package) if package else made_package(cache, say)
    python = python or servers.environment(cache, say)
    clips = {kind: made_clips(kind, cache) for kind in KINDS}
    expected = {kind: measure.expected_answers(folder, files) for kind, files in clips.items()}
    return Setup(folder, clips, expected, python, cache)


def header(setup: Setup, chosen: Sequence[Server], extent: RaceExtent, queue_limit: int) -> dict[str, Any]:
    """The results document before the first measurement."""
    return {
        "machine": report.machine(),
        "versions": versions(setup.python),
        "package": described(setup.package),
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
    """Add the goals to the document and return the report."""
    document["goals"] = {
        name: [goal.to_json() for goal in found]
        for name, found in race_report.goals_of_ours(document).items()
    }
    return race_report.markdown(document)


def versions(python: Path) -> dict[str, str]:
    """Package versions in the peers' environment."""
    code = "import importlib.metadata as m; print(*(f'{d.name}={d.version}' for d in m.distributions()))"
    done = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
    found = dict(item.split("=", 1) for item in done.stdout.split())
    return {name: found[name] for name in VERSIONS if name in found}


@dataclass
class Race:
    """A complete run, in which the servers take turns; results go into `document`."""

    setup: Setup
    servers: list[Server]
    extent: RaceExtent
    document: dict[str, Any]
    watch: OnStep
    done: int = 0
    total: int = 0

    def run(self, *, all_overloads: bool) -> None:
        """Measure everything. Closed loops come first because they determine the rate of the overloads."""
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
        """Run one round of all closed-loop scenarios."""
        for name, scenario in SCENARIOS.items():

            def closed(server: Server, scenario: goals.Scenario = scenario) -> dict[str, Any]:
                return measure.closed(
                    self.setup,
                    server,
                    scenario.kind,
                    scenario.callers,
                    self.extent.warm_up_s,
                    self.extent.seconds,
                )

            def bare(scenario: goals.Scenario = scenario) -> dict[str, Any]:
                return measure.bare(self.setup, scenario.kind, *scenario.floor, self.extent.seconds)

            for server in turns:
                self.attempt(server, scenario.title, self.document["closed"][name], closed)
            self.step(f"{scenario.title}: no server")
            self.document["floors"][name].append(self.undisturbed(bare))

    def overload(self, server: Server) -> dict[str, Any]:
        """Overload a server with the given rate, or with twice its best closed-loop rate."""
        rate = self.extent.rate
        if rate is None:
            best = goals.best_rate(self.document, server.name)
            if not best:
                raise PeerFailed("no closed loop succeeded, so its capacity is unknown")
            rate = OVERLOAD * best
        return measure.overload(
            self.setup, server, SHORT, rate, self.extent.warm_up_s, self.extent.overload_seconds
        )

    def attempt(
        self,
        server: Server,
        what: str,
        figures: dict[str, list[dict[str, Any]]],
        measured: Callable[[Server], dict[str, Any]],
    ) -> None:
        """Measure a server; if it fails, skip it in later measurements."""
        self.step(f"{what}: {server.name}")
        if server.name in self.document["absent"]:
            return
        try:
            found = self.undisturbed(lambda: measured(server))
            figures.setdefault(server.name, []).append(found)
        except (PeerFailed, ServiceFailed) as exc:
            self.document["absent"][server.name] = str(exc)

    def undisturbed(self, measured: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Measure; repeat once if unrelated processes were busy, and return the less disturbed result."""
        found = measured()
        if found.get("foreign_cores", 0.0) <= DISTURBED:
            return found
        self.document["repeated"] += 1
        return min(found, measured(), key=lambda figures: figures["foreign_cores"])

    def step(self, what: str) -> None:
        """Report the start of a measurement."""
        self.watch(Step(what, self.done, self.total))
        self.done += 1

    def with_demo_package(self) -> Setup:
        """The setup with the bundled package; answers of idle servers are not checked."""
        setup = self.setup
        return Setup(package_in(bundled_models()), setup.clips, setup.expected, setup.python, setup.cache)


def rotated(names: Sequence[Server], number: int) -> list[Server]:
    """Start each round with a different server."""
    start = number % len(names) if names else 0
    return [*names[start:], *names[:start]]
