"""What a soak found: what was wrong with it, and the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import report
from benchmarks.race.figures import percentile
from benchmarks.soaking.figures import Slope, slope
from benchmarks.soaking.material import HANG_UP, Post
from benchmarks.soaking.traffic import undeserved
from benchmarks.soaking.watch import KILLED, Held, Watch

MB = 1e6
WARM_UP = 0.2  # of the time: allocators and workers take what they need
GROWTH_MB = 0.5  # a minute that is surely exceeded is no steady state
RECOVERY_S = 1.0


@dataclass(frozen=True)
class Soak:
    """What was seen: the closed-loop rate, answers and their times, memory, and what was held."""

    rate: float
    answers: Counter[tuple[str, str]]
    good_s: Sequence[float]
    seen: Watch
    before: Held
    after: Held
    restarts: dict[str, float]


def document_of(soak: Soak, posts: Sequence[Post], faults: Sequence[str] = ()) -> dict[str, Any]:
    """All figures; `faults` are those that were known already."""
    memory_mb, growth = steady_memory(soak.seen)
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
        "memory_mb": memory_mb,
        "growth_mb_per_minute": {"slope": growth.per_minute, "standard_error": growth.error},
        "held_before": soak.before.to_json(),
        "held_after": soak.after.to_json(),
        "faults": [*undeserved(soak.answers, posts), *_faults(soak, growth), *faults],
    }


def _answers(soak: Soak, post: Post) -> dict[str, int]:
    return {told: count for (name, told), count in sorted(soak.answers.items()) if name == post.name}


def steady_memory(seen: Watch) -> tuple[dict[str, float], Slope]:
    """Memory after the warm-up, in MB, and its growth."""
    first = int(WARM_UP * len(seen.pss))
    megabytes = [value / MB for value in seen.pss[first:]]
    found = {"first": megabytes[0], "least": min(megabytes), "most": max(megabytes), "last": megabytes[-1]}
    blocks = min(15, len(megabytes))
    return found | {"samples": len(megabytes)}, slope(seen.times_s[first:], megabytes, blocks)


def _faults(soak: Soak, growth: Slope) -> Iterator[str]:
    if growth.surely > GROWTH_MB:
        yield f"memory grows by {growth.per_minute:.2f} +- {growth.error:.2f} MB a minute"
    if soak.after != soak.before:
        yield f"held at the end: {soak.after}, and at the start: {soak.before}"
    if soak.restarts.get(KILLED, 0) != soak.seen.kills:
        yield f"{soak.seen.kills} workers were killed, the service counted {soak.restarts.get(KILLED, 0):.0f}"
    if (slowest := max(soak.seen.recovered_s, default=0.0)) > RECOVERY_S:
        yield f"{slowest:.2f} s until a killed worker was replaced"


def as_text(document: dict[str, Any]) -> str:
    """The report as Markdown."""
    total = sum(sum(kind["answers"].values()) for kind in document["answers"].values())
    growth, memory = document["growth_mb_per_minute"], document["memory_mb"]
    before, after = document["held_before"], document["held_after"]
    held = [(name.replace("_", " "), str(before[name]), str(after[name])) for name in before]
    faults = "".join(f"- {fault}\n" for fault in document["faults"]) or "Nothing was wrong.\n"
    return f"""# A soak

{document["minutes"]:g} minutes at {100 * document["load"]:.0f} % of the {document["rate_per_s"]:.1f} requests
a second that a closed loop got; {total} requests: `python -m benchmarks.soak`.
{report.described_machine(document["machine"])}

{report.table(("posted", "deserves", "requests", "answers"), _rows(document["answers"]))}
Good clips were answered in {document["good_p50_ms"]:.0f} ms (p50), {document["good_p99_ms"]:.0f} ms (p99).
{_kills(document)}

Memory of all processes (proportional set size), after the first fifth of the time: {memory["first"]:.0f} MB
at first, {memory["last"]:.0f} MB at last, from {memory["least"]:.0f} to {memory["most"]:.0f} MB. It grew by
{growth["slope"]:+.2f} MB a minute, with a standard error of {growth["standard_error"]:.2f}.

{report.table(("held when idle", "before", "after"), held)}
{faults}"""


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
