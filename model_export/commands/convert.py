"""`blvnet convert`: the weights of a checkpoint or a package in another file format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.errors import BlvnetError


def convert(
    source: Annotated[
        Path, typer.Argument(help="Checkpoint, safetensors file or package in fp32.", exists=True)
    ],
    out: Annotated[Path, typer.Argument(help="File to write: .safetensors, or .pt for a checkpoint.")],
    arch: Annotated[
        str | None, typer.Option(help="Architecture; our own files contain it.", metavar="ARCH")
    ] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="T, frames of a clip.")] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="File with the labels to keep, of those that the network has.", metavar="FILE"),
    ] = None,
) -> None:
    """Convert weights to safetensors or to a checkpoint; training, evaluation and export read both.

    With --labels, only the outputs of these labels are kept, in the order of the file.

    Example: blvnet convert RUN/best.pt weights.safetensors
    """
    if out.suffix not in (".safetensors", ".pt"):
        raise typer.BadParameter("must end with .safetensors or .pt", param_hint="OUT")
    if out.exists():
        raise BlvnetError(f"{out} exists: choose another name, or remove it")
    from model_export.checkpoints.checkpoint import load_network, save_checkpoint  # torch takes seconds
    from model_export.checkpoints.selection import select_labels
    from model_export.datasets.labels import read_labels

    network, config, checkpoint = load_network(source, arch, frames=frames)
    # Without the mark, training would normalise by statistics that nobody has measured.
    training = checkpoint.training | ({"folded": True} if checkpoint.folded else {})
    weights = network.state_dict()
    if labels is not None:
        config, weights, training = select_labels(config, weights, training, read_labels(labels))
    save_checkpoint(out, config, weights, training)
    parameters = sum(weights[name].numel() for name, _ in network.named_parameters())
    typer.echo(f"{out}: {config.architecture}, {parameters:,} parameters")
