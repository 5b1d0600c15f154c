"""`blvnet compare`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from model_export.evaluation.comparison import Comparison, compare
from model_export.evaluation.predictions import load_predictions

TITLES = {"top1": "top-1", "mean_class": "mean of classes", "map": "mean average precision"}


def compare_predictions(
    first: Annotated[Path, typer.Argument(help="File of blvnet evaluate --predictions.")],
    second: Annotated[Path, typer.Argument(help="Such a file of the other network.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Compare two networks by their predictions for the same videos, with 95 % intervals.

    Example: blvnet compare a.parquet b.parquet
    """
    result = compare(load_predictions(first), load_predictions(second))
    if as_json:
        typer.echo(json.dumps(result.to_json()))
        return
    _print(result, Console())


def _print(result: Comparison, console: Console) -> None:
    table = Table("", "first", "second", "difference", "95 % interval")
    for measure in result.measures:
        low, high = (100 * bound for bound in measure.interval)
        table.add_row(
            TITLES[measure.name],
            f"{100 * measure.first:.1f} %",
            f"{100 * measure.second:.1f} %",
            f"{100 * (measure.second - measure.first):+.1f}",
            f"{low:+.1f} to {high:+.1f}",
        )
    console.print(table)
    unpaired = result.only_in_first + result.only_in_second
    console.print(
        f"{result.clips} clips in both files, {unpaired} in one alone; same best label for "
        f"{100 * result.agreement:.1f} %",
        soft_wrap=True,
    )
    if result.p_value is not None:
        console.print(
            f"{result.losses} clips only the first labels right, {result.gains} only the second; "
            f"McNemar's exact test p = {result.p_value:.3g}",
            soft_wrap=True,
        )
