"""Writes the results of benchmarks as `results/NAME.json` and `results/NAME.md`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from service.bench.machine import machine as _machine

RESULTS = Path(__file__).parents[1] / "results"
LIBRARIES = ("av", "numpy", "onnxruntime")


def machine() -> dict[str, Any]:
    """Facts about the machine and the library versions."""
    return _machine(LIBRARIES)


def write(name: str, document: dict[str, Any], text: str, folder: Path = RESULTS) -> None:
    """Write the JSON and Markdown files of a benchmark to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(
        json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    (folder / f"{name}.md").write_text(text, encoding="utf-8")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a Markdown table; all columns but the first are right-aligned."""
    ruler = ["---", *["---:"] * (len(head) - 1)]
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ruler, *rows))


def placed(page: str, text: str, start: str, end: str) -> str:
    """Replace the part of a page between two markers.

    Raises:
        ValueError: a marker is missing.
    """
    before, found_start, rest = page.partition(start)
    _, found_end, after = rest.partition(end)
    if not (found_start and found_end):
        raise ValueError("the page lacks the markers of the generated tables")
    return f"{before}{start}\n{text}\n{end}{after}"


def described_machine(facts: dict[str, Any]) -> str:
    """Describe the machine and the library versions in one line."""
    libraries = ", ".join(f"{name} {facts[name]}" for name in LIBRARIES)
    return f"Measured on {facts['cores']} cores of {facts['cpu']}; Python {facts['python']}, {libraries}."
