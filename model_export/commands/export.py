"""`blvnet export`: make a model package from a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from model_export.export.precision import CALIBRATION_CLIPS, LIMITS, AccuracyLimits, Precision
from model_export.networks.config import Stem
from model_export.progress import ProgressReporter
from service.clip.spec import Sampling


def export(
    checkpoint: Annotated[Path, typer.Option(help="A published checkpoint, or one of blvnet train.")],
    out: Annotated[Path, typer.Option(help="Folder of all model packages.", metavar="MODELS")],
    arch: Annotated[
        str | None,
        typer.Option(help="Architecture; our own checkpoints contain it.", metavar="ARCH"),
    ] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="T, frames of a clip.")] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Label file: text, CSV or JSON; our own checkpoints contain them.")
    ] = None,
    symmetry: Annotated[
        Path | None,
        typer.Option(
            help="JSON file with the label of each label's mirror image; default that of the training data.",
            metavar="FILE",
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model; default its architecture.")] = None,
    version: Annotated[int | None, typer.Option(min=1, help="Default the next one.")] = None,
    size: Annotated[int | None, typer.Option(help="Side of the (little) input in pixels.")] = None,
    stem: Annotated[
        Stem | None, typer.Option(help="Where little and big inputs meet; default that of the name.")
    ] = None,
    blending_frames: Annotated[int | None, typer.Option(help="TAM taps, odd.")] = None,
    precision: Annotated[Precision, typer.Option(help="Arithmetic of the graph.")] = Precision.FP32,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="Folder of videos on which the graphs are compared with PyTorch, and whose activations set "
            "the ranges of int8; default synthetic clips, except for int8."
        ),
    ] = None,
    calibration_dataset: Annotated[
        str | None,
        typer.Option(
            help="The data set in --calibration DIR, as for blvnet evaluate: its training split calibrates, "
            "its validation split is for the accuracy gate of int8.",
            metavar="NAME",
        ),
    ] = None,
    calibration_clips: Annotated[
        int, typer.Option(min=1, help="Most clips to calibrate int8 with.")
    ] = CALIBRATION_CLIPS,
    validation: Annotated[
        Path | None,
        typer.Option(
            help="Folder of videos for the accuracy gate of int8, in folders named after their labels; "
            "default --calibration, or the validation split of --calibration-dataset."
        ),
    ] = None,
    max_drop: Annotated[
        float,
        typer.Option(min=0, max=100, help="Points of top-1 that int8 may lose, with 95 % confidence."),
    ] = LIMITS.max_drop,
    min_agreement: Annotated[
        float,
        typer.Option(min=0, max=100, help="Percent of clips with the same label in int8 and in float."),
    ] = LIMITS.min_agreement,
    evaluation: Annotated[
        Path | None,
        typer.Option(help="Output of blvnet evaluate --json, for the model card.", metavar="FILE"),
    ] = None,
    notes: Annotated[
        Path | None,
        typer.Option(help="Markdown for the model card, such as its intended use.", metavar="FILE"),
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
    """Export a checkpoint to ONNX, compare the graphs with PyTorch, and write a model package.

    Example: blvnet export --checkpoint RUN/best.pt --out models --name mine
    """
    gated = precision is Precision.INT8
    if gated and calibration is None:
        raise typer.BadParameter(
            "int8 needs clips to measure ranges with: add --calibration DIR", param_hint="--precision"
        )
    if calibration_dataset is not None and calibration is None:
        raise typer.BadParameter(
            "add --calibration DIR, the folder of the data set", param_hint="--calibration-dataset"
        )
    if validation is not None and not gated:
        raise typer.BadParameter("it applies to --precision int8 alone", param_hint="--validation")
    if stride is not None and sampling is not Sampling.DENSE:
        raise typer.BadParameter("it applies to --sampling dense alone", param_hint="--stride")

    # torch and the exporter take seconds to import.
    from model_export.export.pipeline import export as export_package
    from model_export.export.plan import ExportRequest

    request = ExportRequest(
        checkpoint=checkpoint,
        models=out,
        architecture=arch,
        frames=frames,
        taps=blending_frames,
        size=size,
        stem=stem,
        labels=labels,
        symmetry=symmetry,
        name=name,
        version=version,
        precision=precision,
        calibration=calibration,
        calibration_dataset=calibration_dataset,
        calibration_clips=calibration_clips,
        validation=validation,
        limits=AccuracyLimits(max_drop, min_agreement),
        sampling=sampling,
        stride=stride,
        scale=scale,
        evaluation=evaluation,
        notes=notes,
    )
    with ProgressReporter() as progress:
        exported = export_package(request, progress)
    if json_output:
        typer.echo(json.dumps(exported.to_json(), ensure_ascii=False))
        return
    parity = exported.manifest.parity
    typer.echo(
        f"{exported.folder}: {exported.manifest.architecture}, {exported.manifest.precision}, "
        f"{exported.parameters:,} parameters, {exported.graph_bytes / 1e6:.1f} MB\n"
        f"differs from PyTorch by {parity['logits']:.1e} of the largest logit "
        f"(bound {parity['bound']:.0e}, {parity['clips']} {parity['clip_source']})"
    )
