"""Progress of a measurement: a bar on a terminal, a few plain lines without one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from service.bench.measurement import OnStep, Step

PLAIN_LINES = 10  # number of lines printed in total without a terminal


@contextmanager
def show_steps(console: Console) -> Iterator[OnStep]:
    """Yield a callback that shows each step on `console`."""
    if not console.is_terminal:
        yield _print_lines(console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting", total=None)
        yield lambda step: progress.update(
            task, description=step.description, completed=step.done, total=step.total
        )


def _print_lines(console: Console) -> OnStep:
    begin, printed = 0.0, -1

    def on_step(step: Step) -> None:
        nonlocal begin, printed
        begin = begin or time.monotonic()
        due = PLAIN_LINES * step.done // step.total
        if due <= printed:
            return
        printed = due
        estimate = ""
        if step.done:
            left_s = (time.monotonic() - begin) * (step.total - step.done) / step.done
            estimate = f", about {left_s:.0f} s left"
        line = f"{step.done} of {step.total}{estimate}: {step.description}"
        console.print(line, highlight=False, soft_wrap=True)

    return on_step
