"""Progress on a terminal, and in plain lines elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from model_export.progress import ProgressReporter, counting


def console(*, terminal: bool) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, force_terminal=terminal, width=100), text


def test_steps_and_messages_are_lines_without_a_terminal() -> None:
    plain, text = console(terminal=False)
    with ProgressReporter(plain) as progress:
        progress.step("reading [one]")
        progress.message("a" * 200)
        progress.message("clip:x:1.mp4")
    assert text.getvalue().splitlines() == ["reading [one]", "a" * 200, "clip:x:1.mp4"]


@pytest.mark.parametrize(("lines", "printed"), [(20, 20), (4, 4), (0, 0)])
def test_counted_work_prints_the_given_number_of_lines(lines: int, printed: int) -> None:
    plain, text = console(terminal=False)
    with ProgressReporter(plain).count("clips", 100, lines=lines) as counter:
        for _ in range(100):
            counter.advance()
    assert len(text.getvalue().splitlines()) == printed
    assert not printed or text.getvalue().endswith("clips: 100 of 100\n")


def test_description_is_a_line_without_a_terminal() -> None:
    plain, text = console(terminal=False)
    with ProgressReporter(plain).count("epoch 1", 10, completed=4, lines=0) as counter:
        counter.describe("epoch 1: loss 0.5")
        counter.advance()
    assert text.getvalue() == "epoch 1: loss 0.5\n"


def test_terminal_shows_a_spinner_and_then_a_bar() -> None:
    rich, text = console(terminal=True)
    with ProgressReporter(rich) as progress:
        progress.step("reading")
        with progress.count("decoding", 3) as counter:  # the spinner ends: rich allows only one live display
            counter.advance(2)
            counter.describe("decoding faster")
        progress.step("writing")
    assert all(shown in text.getvalue() for shown in ("reading", "2/3", "decoding faster", "writing"))


def test_one_task_is_counted_by_a_function() -> None:
    plain, text = console(terminal=False)
    with counting("clips", 2, plain) as advance:
        advance(1)
        advance(1)
    assert text.getvalue() == "clips: 1 of 2\nclips: 2 of 2\n"
