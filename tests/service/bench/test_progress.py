"""Progress of a measurement: a bar on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from service.bench.measurement import Step
from service.bench.progress import PLAIN_LINES, show_steps


def shown(steps: int, *, terminal: bool) -> str:
    file = StringIO()
    with show_steps(Console(file=file, force_terminal=terminal, width=100)) as watch:
        for done in range(steps):
            watch(Step(f"step {done}", done, steps))
    return file.getvalue()


def test_long_measurement_prints_few_lines_with_an_estimate() -> None:
    lines = shown(200, terminal=False).splitlines()
    assert len(lines) == PLAIN_LINES
    assert lines[0] == "0 of 200: step 0"
    assert lines[5].startswith("100 of 200, about 0 s left: step 100")


def test_short_measurement_prints_each_step() -> None:
    assert len(shown(3, terminal=False).splitlines()) == 3


def test_terminal_shows_a_bar() -> None:
    text = shown(4, terminal=True)
    assert "\x1b[" in text
    assert "75%" in text
