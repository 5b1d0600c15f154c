"""How long work shows itself: a bar on a terminal, a plain line now and then elsewhere, on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

PLAIN_LINES = 20  # how many lines a whole piece of work prints where there is no terminal

Tick = Callable[[int], None]
Say = Callable[[str], None]


@contextmanager
def counting(description: str, total: int, console: Console | None = None) -> Iterator[Tick]:
    """Show `description` and how many of `total` are done; call the yielded function with each advance."""
    console = console or Console(stderr=True)
    if console.is_terminal:
        with progress_bar(console) as progress:
            task = progress.add_task(description, total=total)
            yield lambda count: progress.advance(task, count)
    else:
        yield _plain_counter(description, total, console)


def progress_bar(console: Console) -> Progress:
    """A bar with counts and times."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)


def _plain_counter(description: str, total: int, console: Console) -> Tick:
    done = 0
    step = max(1, total // PLAIN_LINES)

    def tick(count: int) -> None:
        nonlocal done
        before, done = done, done + count
        if done // step > before // step or done == total:
            console.print(f"{description}: {done} of {total}", highlight=False, soft_wrap=True)

    return tick
