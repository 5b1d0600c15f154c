"""What a soak found: what was wrong with it, and the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import report
from benchmarks.race.figures import percentile
from benchmarks.soaking.figures import BLOCKS, Slope, slope
from benchmarks.soaking.material import HANG_UP, Post
from benchmarks.soaking.traffic import undeserved
from benchmarks.soaking.watch import KILLED, Held, Watch

MB = 1e6
WARM_UP = 0.2  # of the time: allocators and workers take what they need
GROWTH_MB = 0.5  # a minute that is surely exceeded is no steady state
RECOVERY_S = 1.0
# Of the cores, taken by others in ten seconds: a quiet machine's own services stay far below.
QUIET_CORES = 0.2
FULL = 1.0  # what a service carries
ALL, OWN = "all processes", "the service's own"
MEMORY_HEAD = ("memory of", "at first", "at last", "least", "most", "growth a minute", "standard error")


@dataclass(frozen=True)
class Rates:
    """Requests a second of a closed loop, before the soak and after it; `load` was soaked at, of `before`."""

    before: float
    after: float
    load: float

    @property
    def load_after(self) -> float:
        """What the load was of what the machine carried in the end."""
        return self.load * self.before / self.after

    def to_json(self) -> dict[str, float]:
        """For the report."""
        return {"before": self.before, "after": self.after, "load": self.load, "load_after": self.load_after}


@dataclass(frozen=True)
class Soak:
    """What was seen: the closed-loop rates, answers and their times, memory, others' load, what was held."""

    rates: Rates
    answers: Counter[tuple[str, str]]
    good_s: Sequence[float]
    seen: Watch
    before: Held
    after: Held
    restarts: dict[str, float]


@dataclass(frozen=True)
class Memory:
    """Megabytes over time, and how they grow in a minute."""

    megabytes: Sequence[float]
    growth: Slope

    def to_json(self) -> dict[str, float]:
        """For the report."""
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
    """All figures; `faults` are those that were known already."""
    memory = {
        ALL: steady(soak.seen.times_s, soak.seen.pss),
        OWN: steady(soak.seen.times_s, soak.seen.own_pss),
    }
    return {
        "rates_per_s": soak.rates.to_json(),
        "answers": {
            post.name: {
                "deserves": post.deserves,
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
        "faults": [*undeserved(soak.answers, posts), *_faults(soak, memory), *faults],
    }


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean; 0 of none."""
    return sum(values) / len(values) if values else 0.0


def not_quiet(soak: Soak) -> str | None:
    """Why refusals and slow answers may be those of a machine that had other things to do; None if not."""
    most, load = max(soak.seen.others_cores, default=0.0), soak.rates.load_after
    if load >= FULL:
        return f"the load was {100 * load:.0f} % of what the machine carried at the end"
    if most > QUIET_CORES:
        return f"others kept up to {most:.1f} cores busy"
    return None


def _answers(soak: Soak, post: Post) -> dict[str, int]:
    return {told: count for (name, told), count in sorted(soak.answers.items()) if name == post.name}


def steady(times_s: Sequence[float], pss: Sequence[int]) -> Memory:
    """Memory after the warm-up."""
    first = int(WARM_UP * len(pss))
    megabytes = [value / MB for value in pss[first:]]
    return Memory(megabytes, slope(times_s[first:], megabytes, min(BLOCKS, len(megabytes))))


def _faults(soak: Soak, memory: Mapping[str, Memory]) -> Iterator[str]:
    for name, found in memory.items():
        if found.growth.surely > GROWTH_MB:
            growth = f"{found.growth.per_minute:.2f} +- {found.growth.error:.2f} MB"
            yield f"memory of {name} grows by {growth} a minute"
    if soak.after != soak.before:
        yield f"held at the end: {soak.after}, and at the start: {soak.before}"
    if soak.restarts.get(KILLED, 0) != soak.seen.kills:
        yield f"{soak.seen.kills} workers were killed, the service counted {soak.restarts.get(KILLED, 0):.0f}"
    if (slowest := max(soak.seen.recovered_s, default=0.0)) > RECOVERY_S:
        yield f"{slowest:.2f} s until a killed worker was replaced"


def as_text(document: dict[str, Any]) -> str:
    """The report as Markdown."""
    total = sum(sum(kind["answers"].values()) for kind in document["answers"].values())
    before, after = document["held_before"], document["held_after"]
    held = [(name.replace("_", " "), str(before[name]), str(after[name])) for name in before]
    faults = "".join(f"- {fault}\n" for fault in document["faults"]) or "Nothing was wrong.\n"
    rates, others = document["rates_per_s"], document["others_cores"]
    return f"""# A soak

{document["minutes"]:g} minutes at {100 * rates["load"]:.0f} % of the {rates["before"]:.1f} requests
a second that a closed loop got; it got {rates["after"]:.1f} at the end. {total} requests:
`python -m benchmarks.soak`.
{report.described_machine(document["machine"])}
Others kept {others["mean"]:.1f} of the cores busy meanwhile, {others["most"]:.1f} in the worst ten seconds.

{report.table(("posted", "deserves", "requests", "answers"), _rows(document["answers"]))}
Good clips were answered in {document["good_p50_ms"]:.0f} ms (p50), {document["good_p99_ms"]:.0f} ms (p99).
{_kills(document)}

Memory (proportional set size), in MB, from a fifth of the time on:

{report.table(MEMORY_HEAD, _memory(document["memory_mb"]))}
{report.table(("held when idle", "before", "after"), held)}
{_caution(document)}{faults}"""


def _caution(document: dict[str, Any]) -> str:
    if document["not_quiet"] is None or not document["faults"]:
        return ""
    return (
        f"The machine was not quiet: {document['not_quiet']}. Refusals (503) and times below\n"
        "say little of the service; run it again when nothing else runs.\n\n"
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
        f"{document['kills']} decode workers were killed, in mid-clip where one was decoding; another was\n"
        f"there after {1e3 * recovered['median']:.0f} ms, at most {1e3 * recovered['most']:.0f} ms."
    )


def _rows(answers: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    for name, kind in answers.items():
        told = ", ".join(f"{count} x {what}" for what, count in kind["answers"].items())
        deserves = "anything" if name == HANG_UP else kind["deserves"]
        yield name, deserves, str(sum(kind["answers"].values())), told


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1e3 * seconds
