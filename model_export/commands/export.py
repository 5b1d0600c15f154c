"""`blvnet export`: a checkpoint becomes a model package that the service loads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from model_export.config import Stem
from model_export.precision import BOUNDS, Precision
from model_export.progress import Say
from service.clip.spec import Sampling

if TYPE_CHECKING:
    from model_export.export import Exported


def export(
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint: published, or of blvnet train.")],
    out: Annotated[Path, typer.Option(help="Folder of all model packages.", metavar="MODELS")],
    arch: Annotated[
        str | None, typer.Option(help="Architecture; our own checkpoints know theirs.", metavar="ARCH")
    ] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="T, frames of a clip.")] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Label file: text, CSV or JSON; our own checkpoints know theirs.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model; default its architecture.")] = None,
    version: Annotated[int | None, typer.Option(min=1, help="Default the next one.")] = None,
    size: Annotated[int | None, typer.Option(help="Side of the (little) input in pixels.")] = None,
    stem: Annotated[Stem | None, typer.Option(help="Where big and little streams meet.")] = None,
    blending_frames: Annotated[int | None, typer.Option(help="TAM taps, odd.")] = None,
    precision: Annotated[Precision, typer.Option(help="Arithmetic of the graph.")] = Precision.FP32,
    calibration: Annotated[
        Path | None, typer.Option(help="Folder of clips to check the graph with; default made-up ones.")
    ] = None,
    sampling: Annotated[Sampling | None, typer.Option(help="How frames are spread over a clip.")] = None,
    stride: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Distance of frames with --sampling dense.")
    ] = None,
    scale: Annotated[
        int | None, typer.Option(help="Shorter side in pixels before the crop to --size; default --size.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Export a checkpoint to ONNX, prove the graph against PyTorch, and write a model package."""
    _check_usage(precision, sampling, stride)
    from model_export.export import ExportRequest  # torch and the exporter take seconds to import
    from model_export.export import export as export_package

    request = ExportRequest(
        checkpoint=checkpoint,
        models=out,
        architecture=arch,
        frames=frames,
        taps=blending_frames,
        size=size,
        stem=stem,
        labels=labels,
        name=name,
        version=version,
        precision=precision,
        calibration=calibration,
        sampling=sampling,
        stride=stride,
        scale=scale,
    )
    with _steps(Console(stderr=True)) as say:
        exported = export_package(request, say)
    if json_output:
        typer.echo(json.dumps(exported.to_json(), ensure_ascii=False))
    else:
        typer.echo(_summary(exported))


def _check_usage(precision: Precision, sampling: Sampling | None, stride: int | None) -> None:
    if precision not in BOUNDS:
        possible = ", ".join(BOUNDS)
        raise typer.BadParameter(
            f"{precision} cannot be exported yet, only {possible}", param_hint="--precision"
        )
    if stride is not None and sampling is not Sampling.DENSE:
        raise typer.BadParameter("it belongs to --sampling dense", param_hint="--stride")


@contextmanager
def _steps(console: Console) -> Iterator[Say]:
    """Show the step at work: beside a spinner on a terminal, as a line of its own elsewhere."""
    if not console.is_terminal:
        yield lambda text: console.print(text, highlight=False, markup=False, soft_wrap=True)
        return
    with console.status("reading the checkpoint") as status:
        yield lambda text: status.update(text)


def _summary(exported: Exported) -> str:
    parity = exported.manifest.parity
    return (
        f"{exported.folder}: {exported.manifest.architecture}, {exported.manifest.precision}, "
        f"{exported.parameters:,} parameters, {exported.graph_bytes / 1e6:.1f} MB\n"
        f"differs from PyTorch by {parity['logits']:.1e} of the largest logit "
        f"(bound {parity['bound']:.0e}, {parity['clips']} {parity['clip_source']})"
    )
