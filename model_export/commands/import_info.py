"""`blvnet import-info`: the contents of a checkpoint, before an export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from model_export.checkpoints.checkpoint import Checkpoint

PLAIN = (str, int, float, bool)


def import_info(
    file: Annotated[
        Path, typer.Argument(help="A published checkpoint, or one of blvnet train.", metavar="FILE")
    ],
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show which network a checkpoint holds, as far as its tensors show it.

    Example: blvnet import-info checkpoint.pth.tar
    """
    from model_export.checkpoints.checkpoint import read_checkpoint  # torch takes seconds to import

    facts = describe(read_checkpoint(file))
    if json_output:
        typer.echo(json.dumps(facts))
        return
    table = Table(show_header=False, box=None)
    for key, value in facts.items():
        table.add_row(key.replace("_", " "), _cell(value))
    Console(markup=False, emoji=False).print(table)  # the file's texts may be written like either


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """The contents of a checkpoint, as plain values."""
    weights = checkpoint.weights.values()
    if checkpoint.config is not None:
        network = {"architectures": [checkpoint.config.architecture], **checkpoint.config.to_json()}
    else:
        detected = checkpoint.detected
        assert detected is not None
        network = {
            "architectures": detected.architectures(),
            "depth": detected.depth,
            "classes": detected.classes,
            "taps": detected.taps,
            "alpha": detected.alpha,
            "beta": detected.beta_range(),
            "dropout_head": detected.dropout_head,
            "not_in_the_file": ["frames", "size"],
        }
    return {
        "file": checkpoint.path.name,
        "bytes": checkpoint.path.stat().st_size,
        "layout": checkpoint.naming.layout.value,
        "trained_in_parallel": checkpoint.naming.parallel,
        **network,
        "tensors": len(weights),
        "values": sum(tensor.numel() for tensor in weights),
        "dtypes": sorted({str(tensor.dtype).removeprefix("torch.") for tensor in weights}),
        "training": {key: value for key, value in checkpoint.training.items() if isinstance(value, PLAIN)},
        "optimizer": "optimizer" in checkpoint.training,
    }


def _cell(value: object) -> str:
    """A value as a cell of the table."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(map(str, value)) or "-"
        case dict():
            return ", ".join(f"{key} {entry}" for key, entry in value.items()) or "-"
        case int():
            return f"{value:,}"
        case _:
            return str(value)
