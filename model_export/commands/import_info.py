"""`blvnet import-info`: what a checkpoint holds, before anyone exports it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from model_export.checkpoint import Checkpoint

SIMPLE = (str, int, float, bool)


def import_info(
    file: Annotated[
        Path, typer.Argument(help="A checkpoint: published, or of blvnet train.", metavar="FILE")
    ],
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Say which network a checkpoint holds, as far as its tensors tell."""
    from model_export.checkpoint import read_checkpoint  # torch takes seconds to import

    facts = describe(read_checkpoint(file))
    if json_output:
        typer.echo(json.dumps(facts))
        return
    table = Table(show_header=False, box=None)
    for key, value in facts.items():
        table.add_row(key.replace("_", " "), _readable(value))
    Console().print(table)


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """The facts, as plain values."""
    weights = checkpoint.weights.values()
    return {
        "file": checkpoint.path.name,
        "bytes": checkpoint.path.stat().st_size,
        "layout": checkpoint.naming.layout.value,
        "trained_in_parallel": checkpoint.naming.parallel,
        **_network(checkpoint),
        "tensors": len(weights),
        "values": sum(tensor.numel() for tensor in weights),
        "dtypes": sorted({str(tensor.dtype).removeprefix("torch.") for tensor in weights}),
        "training": {key: value for key, value in checkpoint.training.items() if isinstance(value, SIMPLE)},
        "optimizer": "optimizer" in checkpoint.training,
    }


def _network(checkpoint: Checkpoint) -> dict[str, Any]:
    if checkpoint.config is not None:
        return {"architectures": [checkpoint.config.architecture], **checkpoint.config.to_json()}
    found = checkpoint.found
    assert found is not None
    return {
        "architectures": found.architectures(),
        "depth": found.depth,
        "classes": found.classes,
        "taps": found.taps,
        "alpha": found.alpha,
        "beta": found.beta_range(),
        "dropout_head": found.dropout_head,
        "not_in_the_file": ["frames", "size"],
    }


def _readable(value: object) -> str:
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
