"""Statistics of the study: a seed is the unit, not a clip.

- Intervals of a mean over seeds are those of Student's t.
- Contrasts (`contrasts.json`, written before the runs) are Welch's t tests over the seeds, and all of them
  are corrected together by Holm's method.
- A second analysis compares two runs of the same seed clip by clip (the exact McNemar test). It says whether
  two trained networks differ, not whether two kinds of network do.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import numpy as np
from scipy import stats

from benchmarks.study.results import Result, top1

CONTRASTS: Final = Path(__file__).with_name("contrasts.json")
CONFIDENCE: Final = 0.95
LEVEL: Final = 1 - CONFIDENCE


class ContrastVerdict(StrEnum):
    """The result of a contrast for the paper's claim."""

    AGREES = "agrees"
    DISAGREES = "disagrees"
    UNDECIDED = "undecided"
    NOT_RUN = "not run yet"


@dataclass(frozen=True)
class Contrast:
    """Two rows to compare.

    Attributes:
        question: question of the paper, or `stem` or `taps`.
        left: the row that the claim is about.
        right: the row that it is compared with.
        paper: what the paper claims or implies: `left` is better, or both are `equal`.
        says: the contrast in words.
    """

    question: str
    left: str
    right: str
    paper: str
    says: str


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval; the bounds are NaN for a single value."""

    mean: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Compared:
    """A contrast with its figures; `p` is corrected by Holm's method, None if a row has too few seeds.

    `per_seed` has the p-values of the paired tests.
    """

    contrast: Contrast
    difference: Interval | None
    p: float | None
    per_seed: tuple[float, ...]
    verdict: ContrastVerdict


def contrasts(path: Path = CONTRASTS) -> list[Contrast]:
    """Read the contrasts."""
    document = json.loads(path.read_text(encoding="utf-8"))
    return [Contrast(**item) for item in document["contrasts"]]


def mean_interval(values: Sequence[float]) -> Interval:
    """The mean of the seeds' values and its interval by Student's t."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, math.nan, math.nan, len(values))
    half = float(stats.sem(values) * stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    return Interval(mean, mean - half, mean + half, len(values))


def difference_interval(left: Sequence[float], right: Sequence[float]) -> tuple[Interval, float]:
    """The difference of two means with Welch's interval, and the p-value of no difference.

    Rows whose seeds all have the same value (networks at chance do) have no variance to test with: then p is
    0 if the means differ, and 1 if they do not.
    """
    mean = float(np.mean(left) - np.mean(right))
    count = min(len(left), len(right))
    if np.ptp(left) == np.ptp(right) == 0:
        return Interval(mean, mean, mean, count), float(mean == 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # nearly equal values lose precision; harmless here
        test = stats.ttest_ind(left, right, equal_var=False)
    bounds = test.confidence_interval(CONFIDENCE)
    return Interval(mean, float(bounds.low), float(bounds.high), count), float(test.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number by Holm's method."""
    order = np.argsort(p_values)
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def paired_p(left: Result, right: Result) -> float | None:
    """The exact McNemar test on the clips of two runs; None if their test clips are not the same."""
    if left["labels"] != right["labels"] or len(left["predictions"]) != len(right["predictions"]):
        return None
    truths = [chr(ord("A") + index % left["labels"]) for index in range(len(left["predictions"]))]
    only_left = only_right = 0
    for truth, one, other in zip(truths, left["predictions"], right["predictions"], strict=True):
        only_left += one == truth != other
        only_right += other == truth != one
    if not only_left + only_right:
        return 1.0
    return float(stats.binomtest(only_left, only_left + only_right).pvalue)


def compare(listed: Sequence[Contrast], judged: dict[str, list[Result]]) -> list[Compared]:
    """Compare the rows of every contrast that has two seeds or more on both sides."""
    ready = [c for c in listed if all(len(judged.get(name, ())) > 1 for name in (c.left, c.right))]
    found = {
        contrast: difference_interval(top1(judged[contrast.left]), top1(judged[contrast.right]))
        for contrast in ready
    }
    # Contrasts that have not been run yet count too, with p = 1, so that a partial study is not corrected
    # less.
    corrected = dict(zip(listed, holm([found[c][1] if c in found else 1.0 for c in listed]), strict=True))
    compared = []
    for contrast in listed:
        if contrast not in found:
            compared.append(Compared(contrast, None, None, (), ContrastVerdict.NOT_RUN))
            continue
        difference, p = found[contrast][0], corrected[contrast]
        by_seed = {result["seed"]: result for result in judged[contrast.right]}
        pairs = [
            paired_p(result, by_seed[result["seed"]])
            for result in judged[contrast.left]
            if result["seed"] in by_seed
        ]
        per_seed = tuple(value for value in pairs if value is not None)
        compared.append(Compared(contrast, difference, p, per_seed, verdict(contrast, difference, p)))
    return compared


def verdict(contrast: Contrast, difference: Interval, p: float) -> ContrastVerdict:
    """Whether a difference agrees with the paper.

    Equality is never shown by a test. So a claim of equality agrees where no difference is shown and the
    interval stays within five points on both sides.
    """
    if contrast.paper == "equal":
        if p < LEVEL:
            return ContrastVerdict.DISAGREES
        return (
            ContrastVerdict.AGREES
            if max(-difference.low, difference.high) < 0.05
            else ContrastVerdict.UNDECIDED
        )
    if p >= LEVEL:
        return ContrastVerdict.UNDECIDED
    return ContrastVerdict.AGREES if difference.mean > 0 else ContrastVerdict.DISAGREES


def steps_to_half(result: Result) -> int | None:
    """The first step whose validation top-1 is halfway from chance to 100 %; None if there is none."""
    chance = 1 / result["labels"]
    return next((step for step, _, value in result["curve"] if value >= (1 + chance) / 2), None)
