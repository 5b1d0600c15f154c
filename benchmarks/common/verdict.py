"""Compares a measured figure with its goal."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """A figure and its goal.

    Attributes:
        what: name of the figure.
        value: the measured value; None if it was not measured.
        limit: the goal.
        at_most: whether the goal is a maximum instead of a minimum.
        rounds: the values that `value` is the median of; None for single measurements.
    """

    what: str
    value: float | None
    limit: float
    at_most: bool = False
    rounds: tuple[float, ...] | None = None

    @classmethod
    def of_rounds(cls, what: str, rounds: tuple[float, ...], limit: float, at_most: bool = False) -> Verdict:
        """Create a verdict on the median of several rounds."""
        return cls(what, statistics.median(rounds) if rounds else None, limit, at_most, rounds)

    @property
    def holds(self) -> bool | None:
        """Whether the goal is reached; None if it was not measured."""
        if self.value is None:
            return None
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def to_json(self) -> dict[str, Any]:
        """The verdict as JSON."""
        rounds = {} if self.rounds is None else {"rounds": [_finite(value) for value in self.rounds]}
        kind = "at_most" if self.at_most else "at_least"
        return {
            "what": self.what,
            "value": _finite(self.value),
            **rounds,
            kind: self.limit,
            "holds": self.holds,
        }

    def row(self, value: str, words: Mapping[bool | None, str]) -> tuple[str, str, str, str]:
        """A table row: the name, the formatted value, the goal, and the word for `holds`."""
        kind = "at most" if self.at_most else "at least"
        return self.what, value, f"{kind} {self.limit:g}", words[self.holds]


def _finite(value: float | None) -> float | None:
    """Replace infinity, which JSON cannot represent, by None."""
    return None if value is None or math.isinf(value) else value
