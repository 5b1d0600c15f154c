"""Options and output that several commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from service.settings import CLIENT_KEY

ServerOption = Annotated[
    str | None, typer.Option("--server", metavar="URL", help="Use this server. Default: run in this process.")
]
ModelsOption = Annotated[
    Path | None,
    typer.Option("--models", metavar="DIR", help="Folder of packages. Default: the bundled models."),
]
ModelOption = Annotated[str | None, typer.Option("--model", metavar="NAME", help="Name of the model.")]
ApiKeyOption = Annotated[
    str | None,
    typer.Option("--api-key", metavar="KEY", envvar=CLIENT_KEY, help="API key for the server."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]

# Without a terminal, rows are not wrapped, so that `grep` and `cut` see one line per row.
PLAIN_WIDTH = 1000


def print_table(table: Table) -> None:
    """Print a table, as wide as the terminal or COLUMNS, or as it needs elsewhere, without outer padding."""
    console = Console()
    if console.is_terminal or "COLUMNS" in os.environ:
        console.print(table)
        return
    console = Console(width=PLAIN_WIDTH)
    with console.capture() as capture:
        console.print(table)
    lines = [line.rstrip() for line in capture.get().splitlines()]
    typer.echo("\n".join(line for line in lines if line))
