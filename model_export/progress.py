"""Progress of long commands on standard error: a spinner and bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.status import Status

PLAIN_LINES = 20  # lines that one counted task prints without a terminal


class ProgressReporter:
    """Reports steps, counted work and messages.

    On a terminal, the current step is a spinner and counted work is a bar; both disappear when they end.
    Elsewhere each step is a line, and counted work prints a line from time to time. A message is a line that
    stays in both cases. Use it as a context manager, so that the spinner ends with the command.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._spinner: Status | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop_spinner()

    def step(self, text: str) -> None:
        """Show the command's current step."""
        if not self.console.is_terminal:
            self.message(text)
        elif self._spinner is None:
            self._spinner = self.console.status(text)
            self._spinner.start()
        else:
            self._spinner.update(text)

    def message(self, text: str) -> None:
        """Print a line that stays on the screen."""
        self.console.print(text, highlight=False, markup=False, emoji=False, soft_wrap=True)

    @contextmanager
    def count(
        self, description: str, total: int, *, completed: int = 0, lines: int = PLAIN_LINES
    ) -> Iterator[Counter]:
        """Show the progress of a task until the block ends.

        Args:
            description: what is counted, such as `decoding clips`.
            total: number of items.
            completed: number of items that are done already.
            lines: approximate number of lines that the whole task prints without a terminal; 0 prints none.
        """
        if not self.console.is_terminal:
            yield PlainCounter(self, description, total, completed, lines)
            return
        self._stop_spinner()  # rich shows one live display at a time
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self.console) as bars:
            yield BarCounter(bars, bars.add_task(description, total=total, completed=completed))

    def _stop_spinner(self) -> None:
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None


class PlainCounter:
    """Counts a task in plain lines."""

    def __init__(
        self, reporter: ProgressReporter, description: str, total: int, completed: int, lines: int
    ) -> None:
        self._reporter = reporter
        self._description = description
        self._total = total
        self._completed = completed
        self._interval = max(1, total // lines) if lines else None

    def advance(self, count: int = 1) -> None:
        """Add to the number of completed items."""
        before, self._completed = self._completed, self._completed + count
        if self._interval is None or not count:
            return
        if self._completed // self._interval > before // self._interval or self._completed == self._total:
            self._reporter.message(f"{self._description}: {self._completed} of {self._total}")

    def describe(self, text: str) -> None:
        """Show the state of the task, such as its loss, next to the bar or on a line."""
        self._reporter.message(text)


class BarCounter:
    """Counts a task as a bar; see `PlainCounter`."""

    def __init__(self, bars: Progress, task: TaskID) -> None:
        self._bars = bars
        self._task = task

    def advance(self, count: int = 1) -> None:
        """Add to the number of completed items."""
        self._bars.advance(self._task, count)

    def describe(self, text: str) -> None:
        """Show the state of the task next to the bar."""
        self._bars.update(self._task, description=text)


Counter = PlainCounter | BarCounter


@contextmanager
def counting(description: str, total: int, console: Console | None = None) -> Iterator[Callable[[int], None]]:
    """Count one task and nothing else; call the yielded function with each advance."""
    with ProgressReporter(console).count(description, total) as counter:
        yield counter.advance
