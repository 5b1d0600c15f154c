"""Results on disk: one JSON line for each run, in one file for each row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.study.plan import Row

Result = dict[str, Any]


@dataclass(frozen=True)
class RunKey:
    """The values that distinguish the runs of a row."""

    seed: int
    rate: float

    @property
    def name(self) -> str:
        """The folder of the run."""
        return f"seed{self.seed}-lr{self.rate:g}"


class Results:
    """The results of rows below a folder, which are read again at every call.

    Args:
        folder: one file for each row.
        rows: all rows, in which a row finds the one that it starts from.
    """

    def __init__(self, folder: Path, rows: Sequence[Row]) -> None:
        self.folder = folder
        self.rows = {row.name: row for row in rows}

    def of(self, row: Row) -> list[Result]:
        """All finished runs of a row."""
        path = self._path(row)
        if not path.exists():
            return []
        # A crash may have cut off the last line; `add` removes the part, and the run is missing.
        *lines, _part = path.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines]

    def add(self, row: Row, result: Result) -> None:
        """Append one run."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._path(row).open("ab+") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
            file.write(json.dumps(result).encode() + b"\n")

    def rates(self, row: Row) -> tuple[float, ...]:
        """The learning rates of a row's first seed; none while the row that has to choose it has not."""
        source = row.rate_from or row.starts_from
        if source is None:
            return row.rates
        inherited = self.chosen_rate(self.rows[source])
        return () if inherited is None else (inherited,)

    def chosen_rate(self, row: Row) -> float | None:
        """The learning rate with the best validation of the first seed; None while a rate is missing."""
        rates = self.rates(row)
        first = {
            result["rate"]: float(result["curve"][-1][2]) for result in self.of(row) if not result["seed"]
        }
        if not rates or not set(rates) <= first.keys():
            return None
        return max(rates, key=first.__getitem__)

    def judged(self, row: Row) -> list[Result]:
        """The runs that count, one for each seed: those at the chosen learning rate."""
        rate = self.chosen_rate(row)
        found = [result for result in self.of(row) if result["rate"] == rate]
        return sorted(found, key=lambda result: int(result["seed"]))

    def missing(self, row: Row) -> list[RunKey]:
        """The runs that can start now: the first seed at every rate, then the others at the chosen one."""
        done = {RunKey(result["seed"], result["rate"]) for result in self.of(row)}
        rate = self.chosen_rate(row)
        wanted = (
            [RunKey(0, each) for each in self.rates(row)]
            if rate is None
            else [RunKey(seed, rate) for seed in range(1, row.seeds)]
        )
        return [key for key in wanted if key not in done]

    def _path(self, row: Row) -> Path:
        return self.folder / f"{row.name.replace('/', '--')}.jsonl"


def top1(results: Sequence[Result]) -> list[float]:
    """Test top-1 of each run."""
    return [float(result["top1"]) for result in results]
