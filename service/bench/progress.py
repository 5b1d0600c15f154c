"""How far a race is: a bar with an estimate on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from service.bench.race import Step, Watch

PLAIN_LINES = 10  # that a race prints where there is no terminal


@contextmanager
def watching(console: Console) -> Iterator[Watch]:
    """Show the steps of a race that are told to what this yields."""
    if not console.is_terminal:
        yield _lines(console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting", total=None)
        yield lambda step: progress.update(task, description=step.what, completed=step.done, total=step.total)


def _lines(console: Console) -> Watch:
    begin, shown = 0.0, -1

    def watch(step: Step) -> None:
        nonlocal begin, shown
        begin = begin or time.monotonic()
        before, shown = shown, PLAIN_LINES * step.done // step.total
        if shown > before:
            left = _left(time.monotonic() - begin, step)
            console.print(f"{step.done} of {step.total}{left}: {step.what}", highlight=False, soft_wrap=True)

    return watch


def _left(gone_s: float, step: Step) -> str:
    """An estimate, if the steps to come are like those before."""
    if not step.done:
        return ""
    return f", about {gone_s * (step.total - step.done) / step.done:.0f} s left"
