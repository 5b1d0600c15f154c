"""`blvnet export`: a checkpoint becomes a model package that the service loads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from model_export.config import Stem
from model_export.precision import CALIBRATION_CLIPS, MAX_DROP, Precision
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
        Path | None,
        typer.Option(
            help="Folder of clips to check the graphs with, and to measure ranges with for int8; default "
            "made-up ones, but not for int8."
        ),
    ] = None,
    calibration_dataset: Annotated[
        str | None,
        typer.Option(
            help="Data set, as for blvnet evaluate, that --calibration DIR holds: its training split proves "
            "the graphs and measures ranges, its validation split judges int8.",
            metavar="NAME",
        ),
    ] = None,
    calibration_clips: Annotated[
        int, typer.Option(min=1, help="Most clips to measure ranges with, for int8.")
    ] = CALIBRATION_CLIPS,
    validation: Annotated[
        Path | None,
        typer.Option(
            help="Folder of clips to judge int8 by, in folders named after their labels; default "
            "--calibration, or the validation split of --calibration-dataset."
        ),
    ] = None,
    max_drop: Annotated[
        float, typer.Option(min=0, max=100, help="Points of top-1 that int8 may lose.")
    ] = MAX_DROP,
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
    _check_usage(precision, calibration, calibration_dataset, validation, sampling, stride)
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
        calibration_dataset=calibration_dataset,
        calibration_clips=calibration_clips,
        validation=validation,
        max_drop=max_drop,
        sampling=sampling,
        stride=stride,
        scale=scale,
    )
    console = Console(stderr=True)
    with _steps(console) as say:
        exported = export_package(request, say, partial(_print_line, console))
    if json_output:
        typer.echo(json.dumps(exported.to_json(), ensure_ascii=False))
    else:
        typer.echo(_summary(exported))


def _check_usage(
    precision: Precision,
    calibration: Path | None,
    calibration_dataset: str | None,
    validation: Path | None,
    sampling: Sampling | None,
    stride: int | None,
) -> None:
    if precision is Precision.INT8 and calibration is None:
        raise typer.BadParameter(
            "int8 needs clips to measure ranges with: add --calibration DIR", param_hint="--precision"
        )
    if calibration_dataset is not None and calibration is None:
        raise typer.BadParameter("add --calibration DIR, where it is", param_hint="--calibration-dataset")
    if precision is not Precision.INT8 and validation is not None:
        raise typer.BadParameter("it belongs to --precision int8", param_hint="--validation")
    if stride is not None and sampling is not Sampling.DENSE:
        raise typer.BadParameter("it belongs to --sampling dense", param_hint="--stride")


@contextmanager
def _steps(console: Console) -> Iterator[Say]:
    """Show the step at work: beside a spinner on a terminal, as a line of its own elsewhere."""
    if not console.is_terminal:
        yield partial(_print_line, console)
        return
    with console.status("reading the checkpoint") as status:
        yield lambda text: status.update(text)


def _print_line(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _summary(exported: Exported) -> str:
    parity = exported.manifest.parity
    return (
        f"{exported.folder}: {exported.manifest.architecture}, {exported.manifest.precision}, "
        f"{exported.parameters:,} parameters, {exported.graph_bytes / 1e6:.1f} MB\n"
        f"differs from PyTorch by {parity['logits']:.1e} of the largest logit "
        f"(bound {parity['bound']:.0e}, {parity['clips']} {parity['clip_source']})"
    )
