"""`blvnet profile`: the costs of a network, before anyone trains or downloads it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from model_export.networks.config import Stem

if TYPE_CHECKING:
    from model_export.profile import Costs

MEGA = 1e6


def profile(
    arch: Annotated[str, typer.Option(help="Architecture, as in blvnet-tam-50-a2-b4-f8x2.", metavar="ARCH")],
    frames: Annotated[int | None, typer.Option(min=1, help="T, where the name does not have it.")] = None,
    size: Annotated[int | None, typer.Option(help="Side of the (little) input in pixels.")] = None,
    num_classes: Annotated[int, typer.Option(min=1, help="Outputs of the classifier.")] = 174,
    blending_frames: Annotated[int | None, typer.Option(help="TAM taps, odd; default 3.")] = None,
    stem: Annotated[
        Stem | None, typer.Option(help="Where little and big inputs meet; default that of the name.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Count parameters, multiply-accumulates and activation memory of a network, stage by stage.

    Example: blvnet profile --arch blvnet-tam-50 --frames 16
    """
    from model_export.networks.registry import parse_architecture  # torch takes seconds to import
    from model_export.profile import profile_network

    config = parse_architecture(
        arch, num_classes=num_classes, frames=frames, taps=blending_frames, stem=stem, size=size
    )
    measured = profile_network(config)
    if json_output:
        typer.echo(json.dumps(measured.to_json()))
        return
    table = Table(
        title=f"{config.architecture}: one clip of {config.frames} frames at {config.size} pixels, "
        f"{config.num_classes} classes, float32",
        caption="GMACs: 10^9 multiply-accumulates, in total and of convolutions, TAM and the rest. "
        "Inference: most MB of activations alive at once. Training: MB that a stage keeps for the backward "
        "pass; in total, the peak.",
        box=SIMPLE,
    )
    table.add_column("stage")
    for heading in ("parameters", "GMACs", "conv", "TAM", "rest", "inference", "training"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, costs in measured.stages.items():
        table.add_row(name, *_cells(costs))
    table.add_section()
    table.add_row("total", *_cells(measured.total))
    Console().print(table)


def _cells(costs: Costs) -> list[str]:
    macs = (costs.gmacs, costs.convolution_gmacs, costs.tam_gmacs, costs.rest_gmacs)
    megabytes = (costs.activation_bytes / MEGA, costs.training_activation_bytes / MEGA)
    return [f"{costs.parameters:,}", *(f"{gmacs:.3f}" for gmacs in macs), *(f"{mb:.1f}" for mb in megabytes)]
