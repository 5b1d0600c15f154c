"""Performance goals: our figures as ratios to the best peer and to the floor, per round."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.common.verdict import Verdict
from benchmarks.serving_race.servers import LIMITED
from benchmarks.serving_race.videos import LONG, SHORT

MB = 10**6
CUT, TIMED_OUT = "cut", "timed out"

Document = Mapping[str, Any]
Rounds = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Scenario:
    """A closed-loop scenario.

    Attributes:
        title: its name in the tables.
        kind: the kind of videos.
        callers: number of concurrent callers.
        floor: number of processes, and of threads in each, that do the same job without a server.
    """

    title: str
    kind: str
    callers: int
    floor: tuple[int, int]


ALONE, FOUR, SIXTEEN, LONG_FOUR = "alone", "four", "sixteen", "long"
SCENARIOS = {
    ALONE: Scenario("short clips, 1 caller", SHORT, 1, (1, 2)),
    FOUR: Scenario("short clips, 4 callers", SHORT, 4, (2, 1)),
    SIXTEEN: Scenario("short clips, 16 callers", SHORT, 16, (2, 1)),
    LONG_FOUR: Scenario("long clips, 4 callers", LONG, 4, (2, 1)),
}


def goals(document: Document, ours: str) -> list[Verdict]:
    """All goals of one of our configurations."""
    return [*_closed_loops(document, ours), *_overload(document, ours), *_idle(document, ours)]


def best_peer(document: Document, scenario: str, what: str) -> str | None:
    """The peer with the highest median rate or the lowest median latency; None without peers."""
    medians: dict[str, float] = {
        name: statistics.median(figures[what] for figures in rounds)
        for name, rounds in document["closed"].get(scenario, {}).items()
        if not document["servers"][name]["ours"] and rounds and all(figures["right"] for figures in rounds)
    }
    if not medians:
        return None
    best = max if what == "rate" else min
    return best(medians, key=lambda name: medians[name])


def best_limited(document: Document) -> str | None:
    """The peer with a queue limit that has the highest goodput under overload."""
    medians: dict[str, float] = {
        name: statistics.median(figures["goodput"] for figures in rounds)
        for name, rounds in document["overload"].items()
        if document["servers"][name]["limited"] and rounds
    }
    return max(medians, key=lambda name: medians[name]) if medians else None


def best_rate(document: Document, server: str) -> float | None:
    """The highest rate of short clips that a server achieved in a closed loop, with or without a limit."""
    loops = (document["closed"].get(scenario, {}).get(_unlimited(server)) for scenario in (FOUR, SIXTEEN))
    return max(
        (statistics.median(item["rate"] for item in rounds) for rounds in loops if rounds), default=None
    )


def _unlimited(server: str) -> str:
    return server.removesuffix(LIMITED)


def _closed_loops(document: Document, ours: str) -> list[Verdict]:
    def against_peer(what: str, scenario: str, figure: str, limit: float) -> Verdict:
        peer = best_peer(document, scenario, figure)
        mine = document["closed"].get(scenario, {}).get(ours, [])
        theirs = document["closed"][scenario][peer] if peer else []
        return Verdict.of_rounds(
            f"{what} over the best peer's ({peer or 'none'})",
            _ratios(mine, theirs, figure),
            limit,
            figure != "rate",
        )

    def against_floor(scenario: str) -> Verdict:
        mine, floor = document["closed"].get(scenario, {}).get(ours, []), document["floors"].get(scenario, [])
        what = f"{SCENARIOS[scenario].title}: clips/s over those of two processes without a server"
        return Verdict.of_rounds(what, _ratios(mine, floor, "rate"), 1.0)

    titles = {name: scenario.title for name, scenario in SCENARIOS.items()}
    return [
        against_peer(f"{titles[ALONE]}: p50", ALONE, "p50_ms", 0.85),
        _added(document["closed"].get(ALONE, {}).get(ours, [])),
        against_peer(f"{titles[FOUR]}: clips/s", FOUR, "rate", 1.1),
        against_floor(FOUR),
        against_peer(f"{titles[SIXTEEN]}: clips/s", SIXTEEN, "rate", 1.1),
        against_floor(SIXTEEN),
        against_peer(f"{titles[SIXTEEN]}: p99", SIXTEEN, "p99_ms", 0.9),
        against_peer(f"{titles[LONG_FOUR]}: clips/s", LONG_FOUR, "rate", 1.25),
    ]


def _added(rounds: Rounds) -> Verdict:
    """Overhead as a share of 10 ms, or of a tenth of decoding and inference if that is more."""
    shares = tuple(
        figures["added_ms"] / max(10.0, 0.1 * figures["work_ms"]) for figures in rounds if figures["right"]
    )
    what = "alone: overhead over 10 ms or a tenth of decoding and inference"
    return Verdict.of_rounds(what, shares, 1.0, at_most=True)


def _overload(document: Document, ours: str) -> list[Verdict]:
    rounds: Rounds = document["overload"].get(ours, [])
    peer = best_limited(document)

    def each(figure: Callable[[Mapping[str, Any]], float]) -> tuple[float, ...]:
        return tuple(figure(item) for item in rounds)

    refused = tuple(item["refused_p99_ms"] for item in rounds if item["refused_p99_ms"] is not None)
    theirs = document["overload"][peer] if peer else []
    return [
        Verdict.of_rounds(
            "overload: goodput over the rate just before and after",
            each(lambda item: item["goodput"] / item["carried"]),
            0.95,
        ),
        Verdict.of_rounds(
            f"overload: goodput over the best limited peer's ({peer or 'none'})",
            _ratios(rounds, theirs, "goodput"),
            1.1,
        ),
        Verdict.of_rounds("overload: refusals, p99 in ms", refused, 100.0, at_most=True),
        Verdict.of_rounds(
            "overload: time-outs", each(lambda item: item["outcomes"].get(TIMED_OUT, 0)), 0, at_most=True
        ),
        Verdict.of_rounds(
            "overload: cut connections", each(lambda item: item["outcomes"].get(CUT, 0)), 0, at_most=True
        ),
        Verdict.of_rounds(
            "overload: memory after, over before",
            each(lambda item: item["pss_after"] / item["pss_before"]),
            1.25,
            at_most=True,
        ),
        Verdict.of_rounds(
            "overload: normal latency again, s after its end", each(_normal_after), 1.0, at_most=True
        ),
    ]


def _normal_after(item: Mapping[str, Any]) -> float:
    """Infinity if the latency never became normal."""
    return math.inf if item["normal_after_s"] is None else item["normal_after_s"]


def _idle(document: Document, ours: str) -> list[Verdict]:
    rounds: Rounds = document["idle"].get(ours, [])
    return [
        Verdict.of_rounds(
            "idle with the demo package: memory, MB",
            tuple(item["pss_ready"] / MB for item in rounds),
            240.0,
            at_most=True,
        ),
        Verdict.of_rounds(
            "start to ready with the demo package, s",
            tuple(item["ready_s"] for item in rounds),
            2.0,
            at_most=True,
        ),
    ]


def _ratios(mine: Rounds, theirs: Rounds, what: str) -> tuple[float, ...]:
    """Ratios per round; rounds that only one of the two finished do not count."""
    return tuple(
        one[what] / other[what] for one, other in zip(mine, theirs, strict=False) if one[what] and other[what]
    )
