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
ALL, OWN = "all processes", "the service's own"
MEMORY_HEAD = ("memory of", "at first", "at last", "least", "most", "growth a minute", "standard error")


@dataclass(frozen=True)
class Soak:
    """What was seen: the closed-loop rate, answers and their times, memory, what was held, others' load."""

    rate: float
    answers: Counter[tuple[str, str]]
    good_s: Sequence[float]
    seen: Watch
    before: Held
    after: Held
    restarts: dict[str, float]
    others_cores: float


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
        "rate_per_s": soak.rate,
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
        "others_cores": soak.others_cores,
        "held_before": soak.before.to_json(),
        "held_after": soak.after.to_json(),
        "faults": [*undeserved(soak.answers, posts), *_faults(soak, memory), *faults],
    }


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
    return f"""# A soak

{document["minutes"]:g} minutes at {100 * document["load"]:.0f} % of the {document["rate_per_s"]:.1f} requests
a second that a closed loop got; {total} requests: `python -m benchmarks.soak`.
{report.described_machine(document["machine"])}
Others kept {document["others_cores"]:.1f} of the cores busy meanwhile.

{report.table(("posted", "deserves", "requests", "answers"), _rows(document["answers"]))}
Good clips were answered in {document["good_p50_ms"]:.0f} ms (p50), {document["good_p99_ms"]:.0f} ms (p99).
{_kills(document)}

Memory (proportional set size), in MB, from a fifth of the time on:

{report.table(MEMORY_HEAD, _memory(document["memory_mb"]))}
{report.table(("held when idle", "before", "after"), held)}
{faults}"""


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
