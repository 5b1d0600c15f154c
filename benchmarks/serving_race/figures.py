"""Rates, latencies and goodput computed from the answers. Pure functions."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.serving_race.load import MS, Answer

DEADLINE_S = 2.0  # later answers do not count for the goodput
NORMAL = 1.2  # latency after an overload counts as normal up to this multiple of the latency before
# The expected answer of each clip: label index -> logarithm of its score.
Expected = Sequence[Mapping[int, float]]


def arrivals(rate: float, seconds: float, seed: int = 1) -> list[float]:
    """Arrival times of a Poisson process; the same sequence for every `rate`, scaled in time."""
    draw = random.Random(seed)
    times: list[float] = []
    now = draw.expovariate(1.0)
    while now / rate < seconds:
        times.append(now / rate)
        now += draw.expovariate(1.0)
    return times


def percentile(values: Iterable[float], share: float) -> float | None:
    """The quantile `share`, interpolated linearly; None for an empty sequence."""
    ranked = sorted(values)
    if not ranked:
        return None
    place = share * (len(ranked) - 1)
    low = int(place)
    high = min(low + 1, len(ranked) - 1)
    return ranked[low] + (place - low) * (ranked[high] - ranked[low])


def is_right(answer: Answer, expected: Expected) -> bool:
    """Whether the top label is the expected one and the scores are closest to those of the same clip.

    The second condition is for networks with random weights, which give many clips the same top label.
    Scalers and engines differ slightly, so scores are not compared with a fixed bound.
    """
    if answer.outcome != "answered":
        return False
    own = expected[answer.clip]
    distances = [distance(answer.best, scores) for scores in expected]
    nearest = min(distances)
    same_label = answer.best[0][0] == max(own, key=own.__getitem__)
    return same_label and nearest == distances[answer.clip] < math.inf


def distance(best: Iterable[tuple[int, float]], expected: Mapping[int, float]) -> float:
    """The largest difference of log scores; infinite for a label without an expected score."""
    return max(abs(math.log(score) - expected.get(index, -math.inf)) for index, score in best)


def rate(answers: Iterable[Answer], began: float, ended: float) -> float:
    """Answers per second between two times; an answer counts by the fraction of its duration between them.

    Counting whole answers would make the rate jump when a batch of them ends at once.
    """
    parts = (
        max(0.0, min(answer.ended, ended) - max(answer.began, began)) / answer.took_s for answer in answers
    )
    return sum(parts) / (ended - began)


def closed_loop(phase: Mapping[str, Any], expected: Expected) -> dict[str, Any]:
    """Figures of a closed loop; latencies are those of requests that started in the measured interval."""
    began, ended = phase["began"], phase["ended"]
    answers = [Answer(**answer) for answer in phase["answers"]]
    within = [answer for answer in answers if began <= answer.began < ended]
    right = [answer for answer in within if is_right(answer, expected)]
    took_ms = [MS * answer.took_s for answer in right]
    reported = [answer for answer in right if answer.work_ms is not None]
    figures = {
        "rate": rate((answer for answer in answers if is_right(answer, expected)), began, ended),
        "p50_ms": percentile(took_ms, 0.5),
        "p99_ms": percentile(took_ms, 0.99),
        "right": len(right),
        "outcomes": outcomes(within),
        "clips_right": len({answer.clip for answer in right}),
        "clips": len(expected),
        "generator_cores": phase["cpu_share"],
        "foreign_cores": phase["foreign_cores"],
    }
    if reported:
        work_ms = [answer.work_ms or 0.0 for answer in reported]
        added_ms = [MS * answer.took_s - work for answer, work in zip(reported, work_ms, strict=True)]
        figures |= {"work_ms": statistics.median(work_ms), "added_ms": statistics.median(added_ms)}
    return figures


def open_loop(
    phase: Mapping[str, Any], warm_up_s: float, expected: Expected, alone_s: float
) -> dict[str, Any]:
    """Figures of an overload; `alone_s` is the latency of a single caller just before it.

    As in a closed loop, the goodput excludes the first `warm_up_s` seconds.
    """
    answers = [Answer(**answer) for answer in phase["answers"]]
    right = [answer for answer in answers if is_right(answer, expected)]
    refused_ms = [MS * answer.took_s for answer in answers if answer.outcome == "refused"]
    began, ended = phase["began"] + warm_up_s, phase["ended"]
    good = [answer for answer in right if answer.took_s <= DEADLINE_S and began <= answer.ended <= ended]
    return {
        "offered": len(answers) / (ended - phase["began"]),
        "goodput": len(good) / (ended - began),
        "right": len(right),
        "outcomes": outcomes(answers),
        "p50_ms": percentile((MS * answer.took_s for answer in right), 0.5),
        "p99_ms": percentile((MS * answer.took_s for answer in right), 0.99),
        "refused_p99_ms": percentile(refused_ms, 0.99) if refused_ms else None,
        "alone_ms": MS * alone_s,
        "normal_after_s": normal_after(
            phase["ended"], [Answer(**answer) for answer in phase["after"]], alone_s
        ),
        "generator_cores": phase["cpu_share"],
        "foreign_cores": phase["foreign_cores"],
    }


def normal_after(ended: float, lone: Iterable[Answer], alone_s: float) -> float | None:
    """Seconds from the end of the load to the first single post with normal latency, or None."""
    usual = (answer for answer in lone if answer.outcome == "answered" and answer.took_s <= NORMAL * alone_s)
    first = next(usual, None)
    return None if first is None else max(0.0, first.began - ended)


def outcomes(answers: Iterable[Answer]) -> dict[str, int]:
    """Number of answers per outcome."""
    counts: dict[str, int] = {}
    for answer in answers:
        counts[answer.outcome] = counts.get(answer.outcome, 0) + 1
    return counts


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, minimum and maximum."""
    return statistics.median(values), min(values), max(values)
