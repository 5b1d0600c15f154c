"""A measured figure against a floor or a ceiling: does it hold? As JSON, and as the row of a table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """A figure that is to reach a floor, or to stay below a ceiling.

    Attributes:
        what: the figure's name.
        value: None where it was not measured.
        limit: the floor or ceiling.
        at_most: it is a ceiling.
        rounds: what `value` is the median of; None where the figure comes as one number.
    """

    what: str
    value: float | None
    limit: float
    at_most: bool = False
    rounds: tuple[float, ...] | None = None

    @classmethod
    def of_rounds(cls, what: str, rounds: tuple[float, ...], limit: float, at_most: bool = False) -> Verdict:
        """On the median of the rounds."""
        return cls(what, statistics.median(rounds) if rounds else None, limit, at_most, rounds)

    @property
    def holds(self) -> bool | None:
        """Whether it does; None where it was not measured."""
        if self.value is None:
            return None
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def to_json(self) -> dict[str, Any]:
        """With the limit by its kind."""
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
        """Of a table: the name, `value` as it is to be shown, the limit, and the word for `holds`."""
        kind = "at most" if self.at_most else "at least"
        return self.what, value, f"{kind} {self.limit:g}", words[self.holds]


def _finite(value: float | None) -> float | None:
    """JSON has no infinity."""
    return None if value is None or math.isinf(value) else value
