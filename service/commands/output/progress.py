"""Progress of commands on standard error: a bar on a terminal, plain lines without one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

PLAIN_LINES = 20  # number of lines printed in total without a terminal

# Called with the number of finished items, the total, and a short text.
Report = Callable[[int, int, str], None]


@contextmanager
def reporting(verb: str, noun: str) -> Iterator[Report]:
    """Yield a function that reports `verb 3 of 10 noun`.

    Nothing is shown if results appear on the same terminal, because they show the progress themselves.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_lines(console, verb, noun)
    elif sys.stdout.isatty():
        yield lambda _done, _total, _text: None
    else:
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True, redirect_stdout=False) as progress:
            task = progress.add_task(verb, total=None)
            yield lambda done, total, text: progress.update(
                task, description=f"{verb} {text}".rstrip(), completed=done, total=total
            )


def _plain_lines(console: Console, verb: str, noun: str) -> Report:
    printed = 0

    def report(done: int, total: int, text: str) -> None:
        nonlocal printed
        due = min(PLAIN_LINES, total) * done // max(total, 1)
        if total > 1 and due > printed:
            line = " ".join(word for word in (verb, f"{done} of {total}", noun, text) if word)
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        printed = due

    return report
