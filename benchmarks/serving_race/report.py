"""Markdown tables of the comparison."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.common import report
from benchmarks.common.verdict import Verdict
from benchmarks.serving_race.figures import DEADLINE_S, NORMAL, spread
from benchmarks.serving_race.goals import CUT, MB, SCENARIOS, TIMED_OUT, Document, Rounds, goals
from benchmarks.serving_race.load import CALLER_TIMEOUT_S

NOT_MEASURED = "-"


def markdown(document: Document) -> str:
    """All tables with their explanations."""
    return "\n".join(
        [
            _introduction(document),
            "### Closed loops\n",
            *(_closed(document, name) for name in SCENARIOS if document["closed"].get(name)),
            "### Overload\n",
            _overload(document),
            "### Idle, with the demo package\n",
            _idle(document),
            "### Goals\n",
            *(_goals(document, name) for name, server in document["servers"].items() if server["ours"]),
        ]
    )


def goals_of_ours(document: Document) -> dict[str, list[Verdict]]:
    """The goals of each of our configurations."""
    return {name: goals(document, name) for name, server in document["servers"].items() if server["ours"]}


def _introduction(document: Document) -> str:
    package = document["package"]
    peers = ", ".join(f"{name} {found}" for name, found in document["versions"].items())
    absent = "".join(f" Not measured: {name} ({reason})." for name, reason in document["absent"].items())
    return f"""{package["architecture"]}, {package["precision"]}. Servers take turns, and each measurement
starts a new one. Rounds: {document["rounds"]} closed loops of {document["seconds"]:g} s and
{document["overload_rounds"]} overloads of {document["overload_seconds"]:g} s. Figures are medians
(minimum to maximum of the rounds).
Peer environment: {peers}.{absent}
{report.described_machine(document["machine"])}
{_disturbance(document)}
"""


def _disturbance(document: Document) -> str:
    """CPU use of the load generator and of unrelated processes."""
    found = list(_all_figures(document))
    if not found:
        return ""
    generator, foreign = ([item[f"{who}_cores"] for item in found] for who in ("generator", "foreign"))
    return (
        f"Busy cores: load generator at most {max(generator):.2f}, unrelated processes "
        f"{statistics.median(foreign):.2f} (median), {max(foreign):.2f} (maximum); "
        f"measurements repeated for this reason: {document['repeated']}."
    )


def _closed(document: Document, scenario: str) -> str:
    rows = [
        (
            name,
            _spread(rounds, "rate", 2),
            _spread(rounds, "p50_ms"),
            _spread(rounds, "p99_ms"),
            *_right(rounds),
        )
        for name, rounds in document["closed"][scenario].items()
        if rounds
    ]
    processes, threads = SCENARIOS[scenario].floor
    if floor := document["floors"].get(scenario):
        name = f"no server: {_counted(processes, 'process', 'es')}, {_counted(threads, 'thread')} each"
        rows.append(
            (
                name,
                _spread(floor, "rate", 2),
                _spread(floor, "p50_ms"),
                NOT_MEASURED,
                NOT_MEASURED,
                NOT_MEASURED,
            )
        )
    head = (SCENARIOS[scenario].title, "clips/s", "p50 ms", "p99 ms", "clips correct", "failed")
    return report.table(head, rows)


def _overload(document: Document) -> str:
    rows = [
        (
            name,
            _spread(rounds, "offered", 1),
            _spread(rounds, "goodput", 2),
            _optional(rounds, "carried", 2),
            _spread(rounds, "p99_ms"),
            f"{_outcome(rounds, 'refused')}, {_optional(rounds, 'refused_p99_ms', 0)}",
            _outcome(rounds, TIMED_OUT),
            _outcome(rounds, CUT),
            " / ".join(_megabytes(rounds, f"pss_{moment}") for moment in ("before", "peak", "after")),
            _optional(rounds, "normal_after_s", 1),
        )
        for name, rounds in document["overload"].items()
        if rounds
    ]
    head = (
        "",
        "offered/s",
        "goodput/s",
        "closed loop/s",
        "p99 ms",
        "rejected, p99 ms",
        "timed out",
        "cut",
        "MB before / peak / after",
        "normal after s",
    )
    rate = document["overload_rate"]
    offered = "twice its best closed-loop rate" if rate is None else f"{rate:g} per second"
    return f"""Clips arrive at random times (Poisson process) at {offered}; callers time out
after {CALLER_TIMEOUT_S:g} s. Goodput counts correct answers within {DEADLINE_S:g} s, starting one second
after the start of the load. The closed-loop rate is that of 16 callers just before and after the overload
(our service only). Memory is the proportional set size of all processes. The last column is the time from the
end of the load until a single caller sees at most {NORMAL:g} times its latency before the load. "limit" is
the peer's own queue limit, {document["queue_limit"]} (`--limit-concurrency` of uvicorn, `--capacity` of
mosec; LitServe has none).

{report.table(head, rows)}"""


def _idle(document: Document) -> str:
    rows = [
        (
            name,
            _spread(rounds, "ready_s", 2),
            _spread(rounds, "first_answer_s", 2),
            _megabytes(rounds, "pss_ready"),
            _megabytes(rounds, "pss_answered"),
        )
        for name, rounds in document["idle"].items()
        if rounds
    ]
    return report.table(
        ("", "ready after s", "first answer after s", "MB when ready", "MB after an answer"), rows
    )


def _goals(document: Document, ours: str) -> str:
    words = {True: "holds", False: "does not hold", None: "not measured"}
    rows = [goal.row(_goal_value(goal), words) for goal in goals(document, ours)]
    return report.table((ours, "measured", "goal", ""), rows)


def _goal_value(goal: Verdict) -> str:
    if not goal.rounds:
        return NOT_MEASURED
    middle, least, greatest = spread(goal.rounds)
    return f"{middle:.3g}" if least == greatest else f"{middle:.3g} ({least:.3g} to {greatest:.3g})"


def _all_figures(document: Document) -> Iterable[Mapping[str, Any]]:
    for servers in (*document["closed"].values(), document["overload"]):
        for rounds in servers.values():
            yield from rounds


def _right(rounds: Rounds) -> tuple[str, str]:
    """Number of clips with at least one correct answer, and number of posts without a correct answer."""
    clips = min(item["clips_right"] for item in rounds), max(item["clips"] for item in rounds)
    lost = sum(sum(item["outcomes"].values()) - item["right"] for item in rounds)
    return f"{clips[0]} of {clips[1]}", str(lost)


def _spread(rounds: Rounds, what: str, digits: int = 0) -> str:
    values = [item[what] for item in rounds]
    if None in values:
        return NOT_MEASURED
    middle, least, greatest = (f"{value:.{digits}f}" for value in spread(values))
    return middle if len(rounds) == 1 else f"{middle} ({least} to {greatest})"


def _optional(rounds: Rounds, what: str, digits: int) -> str:
    values = [item[what] for item in rounds]
    return NOT_MEASURED if None in values else f"{statistics.median(values):.{digits}f}"


def _outcome(rounds: Rounds, name: str) -> str:
    return str(sum(item["outcomes"].get(name, 0) for item in rounds))


def _megabytes(rounds: Rounds, what: str) -> str:
    return f"{statistics.median(item[what] for item in rounds) / MB:.0f}"


def _counted(number: int, noun: str, plural: str = "s") -> str:
    return f"{number} {noun}{plural if number != 1 else ''}"
