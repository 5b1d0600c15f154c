"""`blvnet evaluate`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from model_export.commands.listings import listing_of
from model_export.datasets import judged_split
from model_export.evaluate import (
    CheckpointScorer,
    Evaluation,
    PackageScorer,
    Scorer,
    evaluate_listing,
    plot_confusion,
)
from model_export.progress import counting

SHOWN_CONFUSIONS = 8


def evaluate(
    dataset: Annotated[str, typer.Option(help="Data set, or layout of the data; see above.")],
    data: Annotated[Path, typer.Option(help="Folder of the data set.", exists=True, file_okay=False)],
    checkpoint: Annotated[Path | None, typer.Option(help="Checkpoint of a training run.")] = None,
    models: Annotated[Path | None, typer.Option(help="Folder of model packages.")] = None,
    model: Annotated[str | None, typer.Option(help="Name of the package.")] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Which split; default test for folder and synthetic, val for the others."),
    ] = None,
    clips: Annotated[int, typer.Option(min=1, max=10, help="Samplings in time that are averaged.")] = 1,
    crops: Annotated[int, typer.Option(help="Places that are averaged: 1, 3, 5 or 10.")] = 1,
    confusion: Annotated[
        Path | None, typer.Option(help="Picture of the confusion matrix; default beside the checkpoint.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Threads that decode.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Top-1, top-5, per class and within reversed pairs, on a split; the clips are read as when served.

    Data sets: something-something-v1 (ssv1), something-something-v2 (ssv2), kinetics-400 (k400),
    moments-in-time (mit). Layouts of data of your own: folder, synthetic, list.
    """
    scorer = _scorer(checkpoint, models, model)
    console = Console(stderr=True)
    split = split or judged_split(dataset)
    listing = listing_of(dataset, data, split, console)
    with counting(f"evaluating {split} clips", len(listing.clips), console) as tick:
        result = evaluate_listing(scorer, listing, clips=clips, crops=crops, jobs=jobs, tick=tick)
    for item in result.unreadable:
        console.print(f"unreadable: {item.path} ({item.reason})", markup=False)
    picture = confusion or (checkpoint.parent / f"confusion-{split}.png" if checkpoint else None)
    if picture is not None:
        plot_confusion(result, picture)
        console.print(f"confusion matrix: {picture}", soft_wrap=True)
    if as_json:
        json.dump(result.to_json(), sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        _print(result, Console())


def _scorer(checkpoint: Path | None, models: Path | None, model: str | None) -> Scorer:
    if checkpoint is not None and models is None and model is None:
        return CheckpointScorer(checkpoint)
    if checkpoint is None and models is not None and model is not None:
        return PackageScorer(models, model)
    raise typer.BadParameter("give either --checkpoint, or --models and --model")


def _print(result: Evaluation, console: Console) -> None:
    table = Table("label", "clips", "top-1")
    totals = result.confusion.sum(axis=1)
    for (label, accuracy), total in zip(result.class_accuracy().items(), totals, strict=True):
        table.add_row(label, str(total), _percent(accuracy))
    console.print(table)
    console.print(f"top-1 {_percent(result.top1_accuracy)}, top-5 {_percent(result.top5_accuracy)}", end="")
    console.print(f" of {result.clips} clips; {len(result.unreadable)} unreadable")
    if result.pairs:
        pairs, swapped = _percent(result.pair_accuracy()), _percent(result.reversed_rate())
        console.print(f"clips of reversed pairs: top-1 {pairs}, given the partner's label {swapped}")
    for true, given, count in result.worst_confusions(SHOWN_CONFUSIONS):
        console.print(f"{count} x {true!r} taken for {given!r}", soft_wrap=True)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
