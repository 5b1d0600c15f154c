"""Evaluation of a soak: the faults that were found, and the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.common import report
from benchmarks.serving_race.figures import percentile
from benchmarks.soak.figures import BLOCKS, Slope, slope
from benchmarks.soak.requests import DISCONNECT, Post
from benchmarks.soak.traffic import unexpected
from benchmarks.soak.watch import KILLED, Held, Watch

MB = 1e6
WARM_UP = 0.2  # share of the run in which allocators and workers reach their working size
GROWTH_MB = 0.5  # maximum growth per minute, judged by the lower bound of the slope
RECOVERY_S = 1.0
# Cores used by unrelated processes within ten seconds; a quiet machine stays far below.
QUIET_CORES = 0.2
FULL = 1.0  # load at the capacity of the service
ALL, OWN = "all processes", "main process"
MEMORY_HEAD = ("memory of", "first", "last", "minimum", "maximum", "growth per minute", "standard error")


@dataclass(frozen=True)
class Rates:
    """Closed-loop rates in requests/s before and after the soak; `load` is the offered share of `before`."""

    before: float
    after: float
    load: float

    @property
    def load_after(self) -> float:
        """The offered load as a share of the rate at the end."""
        return self.load * self.before / self.after

    def to_json(self) -> dict[str, float]:
        """Values for the report."""
        return {"before": self.before, "after": self.after, "load": self.load, "load_after": self.load_after}


@dataclass(frozen=True)
class Soak:
    """All observations of a soak."""

    rates: Rates
    answers: Counter[tuple[str, str]]
    good_s: Sequence[float]
    seen: Watch
    before: Held
    after: Held
    restarts: dict[str, float]


@dataclass(frozen=True)
class Memory:
    """Memory over time in megabytes, and its growth per minute."""

    megabytes: Sequence[float]
    growth: Slope

    def to_json(self) -> dict[str, float]:
        """Values for the report."""
        return {
            "first": self.megabytes[0],
            "least": min(self.megabytes),
            "most": max(self.megabytes),
            "last": self.megabytes[-1],
            "samples": len(self.megabytes),
            "growth_per_minute": self.growth.per_minute,
            "standard_error": self.growth.error,
        }


def document_of(soak: Soak, posts: Sequence[Post], faults: Sequence[str] = ()) -> dict[str, Any]:
    """All figures; `faults` are those found by the caller."""
    memory = {
        ALL: steady(soak.seen.times_s, soak.seen.pss),
        OWN: steady(soak.seen.times_s, soak.seen.own_pss),
    }
    return {
        "rates_per_s": soak.rates.to_json(),
        "answers": {
            post.name: {
                "deserves": post.expected,
                "answers": _answers(soak, post),
            }
            for post in posts
        },
        "good_p50_ms": _ms(percentile(soak.good_s, 0.5)),
        "good_p99_ms": _ms(percentile(soak.good_s, 0.99)),
        "kills": soak.seen.kills,
        "recovered_s": {
            "median": percentile(soak.seen.recovered_s, 0.5),
            "most": percentile(soak.seen.recovered_s, 1),
        },
        "restarts": soak.restarts,
        "memory_mb": {name: found.to_json() for name, found in memory.items()},
        "others_cores": {
            "mean": mean(soak.seen.others_cores),
            "most": max(soak.seen.others_cores, default=0.0),
        },
        "not_quiet": not_quiet(soak),
        "held_before": soak.before.to_json(),
        "held_after": soak.after.to_json(),
        "faults": [*unexpected(soak.answers, posts), *_faults(soak, memory), *faults],
    }


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean; 0 for an empty sequence."""
    return sum(values) / len(values) if values else 0.0


def not_quiet(soak: Soak) -> str | None:
    """Why rejections and slow answers may be caused by other work on the machine; None if it was quiet."""
    most, load = max(soak.seen.others_cores, default=0.0), soak.rates.load_after
    if load >= FULL:
        return f"the load was {100 * load:.0f} % of the capacity at the end"
    if most > QUIET_CORES:
        return f"unrelated processes kept up to {most:.1f} cores busy"
    return None


def _answers(soak: Soak, post: Post) -> dict[str, int]:
    return {answer: count for (name, answer), count in sorted(soak.answers.items()) if name == post.name}


def steady(times_s: Sequence[float], pss: Sequence[int]) -> Memory:
    """Memory samples after the warm-up."""
    first = int(WARM_UP * len(pss))
    megabytes = [value / MB for value in pss[first:]]
    return Memory(megabytes, slope(times_s[first:], megabytes, min(BLOCKS, len(megabytes))))


def _faults(soak: Soak, memory: Mapping[str, Memory]) -> Iterator[str]:
    for name, found in memory.items():
        if found.growth.lower_bound > GROWTH_MB:
            growth = f"{found.growth.per_minute:.2f} +- {found.growth.error:.2f} MB"
            yield f"memory of {name} grows by {growth} per minute"
    if soak.after != soak.before:
        yield f"resources at the end: {soak.after}; at the start: {soak.before}"
    if (counted := soak.restarts.get(KILLED, 0)) != soak.seen.kills:
        yield f"{soak.seen.kills} workers were killed, but the service counted {counted:.0f}"
    if (slowest := max(soak.seen.recovered_s, default=0.0)) > RECOVERY_S:
        yield f"{slowest:.2f} s until a killed worker was replaced"


def as_text(document: dict[str, Any]) -> str:
    """The report as Markdown."""
    total = sum(sum(kind["answers"].values()) for kind in document["answers"].values())
    before, after = document["held_before"], document["held_after"]
    held = [(name.replace("_", " "), str(before[name]), str(after[name])) for name in before]
    faults = "".join(f"- {fault}\n" for fault in document["faults"]) or "No faults.\n"
    rates, others = document["rates_per_s"], document["others_cores"]
    return f"""# Soak test

{document["minutes"]:g} minutes at {100 * rates["load"]:.0f} % of the closed-loop rate, which was
{rates["before"]:.1f} requests per second before and {rates["after"]:.1f} after the run. {total} requests.
Command: `python -m benchmarks.soak`. {report.described_machine(document["machine"])} Unrelated processes kept
{others["mean"]:.1f} cores busy on average, {others["most"]:.1f} in the worst ten seconds.

{report.table(("request", "expected", "count", "answers"), _rows(document["answers"]))}
Latency of valid clips: {document["good_p50_ms"]:.0f} ms (p50), {document["good_p99_ms"]:.0f} ms (p99).
{_kills(document)}

Memory (proportional set size) in MB, after the first fifth of the run:

{report.table(MEMORY_HEAD, _memory(document["memory_mb"]))}
{report.table(("idle resources", "before", "after"), held)}
{_caution(document)}{faults}"""


def _caution(document: dict[str, Any]) -> str:
    if document["not_quiet"] is None or not document["faults"]:
        return ""
    return (
        f"The machine was not quiet: {document['not_quiet']}. Rejections (503) and latencies may be\n"
        "caused by that; repeat the run on an idle machine.\n\n"
    )


def _memory(memory: dict[str, dict[str, float]]) -> Iterator[tuple[str, ...]]:
    for name, found in memory.items():
        growth = f"{found['growth_per_minute']:+.2f}"
        sizes = (f"{found[what]:.0f}" for what in ("first", "last", "least", "most"))
        yield name, *sizes, growth, f"{found['standard_error']:.2f}"


def _kills(document: dict[str, Any]) -> str:
    recovered = document["recovered_s"]
    if not document["kills"]:
        return "No decode worker was killed."
    return (
        f"{document['kills']} decode workers were killed, preferably while decoding. They were replaced\n"
        f"after {1e3 * recovered['median']:.0f} ms (median) and at most {1e3 * recovered['most']:.0f} ms."
    )


def _rows(answers: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    for name, kind in answers.items():
        found = ", ".join(f"{count} x {what}" for what, count in kind["answers"].items())
        expected = "any" if name == DISCONNECT else kind["deserves"]
        yield name, expected, str(sum(kind["answers"].values())), found


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1e3 * seconds
