"""The report of `blvnet teach` as text."""

from __future__ import annotations

from collections.abc import Sequence

import typer
from rich import box
from rich.table import Column, Table
from rich.text import Text

from service.commands.options import print_table
from service.teaching.card import learning_outlook, percentages, threshold_effect, validation_result
from service.teaching.report import Report


def print_report(report: Report) -> None:
    """Print the report of a training."""
    curve = ", ".join(f"{point.clips_per_label:.1f}: {100 * point.top1:.0f} %" for point in report.curve)
    lines = [
        f"cross-validated top-1: {percentages(report.accuracy)}",
        f"by clips per label: {curve}. {learning_outlook(report)}",
        f"unsure below a score of {report.threshold.value:.2f}. {threshold_effect(report)}",
    ]
    if report.validation is not None:
        lines.append(validation_result(report.validation))
    lines += [f"warning: {warning}" for warning in report.warnings]
    lines += [
        f"check {suspect.name}: labelled {suspect.label!r}, looks like {suspect.looks_like!r}"
        f" ({suspect.score:.2f})"
        for suspect in report.suspects
    ]
    typer.echo("\n".join(lines))
    _print_confusion(list(report.labels), report.confusion)


def _print_confusion(labels: Sequence[str], confusion: Sequence[Sequence[int]]) -> None:
    """Rows are true labels, columns predictions."""
    columns = [Column(str(number), justify="right") for number in range(1, len(labels) + 1)]
    table = Table("true label", *columns, box=box.SIMPLE_HEAD)
    for number, (label, row) in enumerate(zip(labels, confusion, strict=True)):
        cells = [
            Text(str(count or ""), style="green" if column == number else "red")
            for column, count in enumerate(row)
        ]
        table.add_row(f"{number + 1} {label}", *cells)
    print_table(table)
