"""`blvnet evaluate`."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from model_export.commands.options.common import check_folder, read_split, select_device
from model_export.datasets import evaluation_split
from model_export.evaluation.accuracy import (
    TOP,
    Evaluation,
    MultiLabelEvaluation,
    evaluate_multi_label,
    evaluate_predictions,
)
from model_export.evaluation.plots import check_picture_name, plot_confusion
from model_export.evaluation.predictions import (
    BATCH_VIEWS,
    GPU_BATCH_VIEWS,
    check_predictions_name,
    combine,
    predict_listing,
)
from model_export.evaluation.scorers import CheckpointScorer, PackageScorer, Scorer
from model_export.progress import ProgressReporter
from service.clip.geometry import CROP_COUNTS
from service.errors import BlvnetError

SHOWN_CONFUSIONS = 8


def evaluate(
    dataset: Annotated[str, typer.Option(help="Data set, or layout of your own data; see above.")],
    data: Annotated[Path, typer.Option(help="Folder of the data set.", exists=True, file_okay=False)],
    checkpoint: Annotated[
        list[Path] | None, typer.Option(help="Checkpoint of a training run; several make an ensemble.")
    ] = None,
    models: Annotated[Path | None, typer.Option(help="Folder of model packages.")] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Name of a package; several make an ensemble.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Split; by default test for folder and synthetic, val for the others."),
    ] = None,
    clips: Annotated[int, typer.Option(min=1, max=10, help="Temporal positions to average over.")] = 1,
    crops: Annotated[int, typer.Option(help="Crops to average over: 1, 3, 5 or 10.")] = 1,
    top_k: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Also print the top-k accuracy; may be given several times."),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(help="Parquet or npz file for the logits of every video.", metavar="FILE"),
    ] = None,
    confusion: Annotated[
        Path | None,
        typer.Option(help="Picture of the confusion matrix; by default beside a single checkpoint."),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1, help=f"Views at a time; by default {BATCH_VIEWS} on a CPU, {GPU_BATCH_VIEWS} on a GPU."
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Decoding threads.")] = 2,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure the accuracy on a split, with videos read as the service reads them.

    Data sets: something-something-v1 (ssv1), something-something-v2 (ssv2), kinetics-400 (k400),
    moments-in-time (mit), ucf101, hmdb51 (splits ucf101-1 to -3), jester, diving48, charades. Layouts of your
    own data: folder, synthetic, list.

    Example: blvnet evaluate --checkpoint best.pt --dataset folder --data DATA
    """
    if crops not in CROP_COUNTS:
        raise typer.BadParameter(f"must be one of {', '.join(map(str, CROP_COUNTS))}", param_hint="--crops")
    if not (checkpoint or model) or (models is None) != (not model):
        raise typer.BadParameter("give --checkpoint, or --models and --model, or both for an ensemble")
    if predictions is not None:
        check_predictions_name(predictions)
        check_folder(predictions)
    if confusion is not None:
        check_picture_name(confusion)
        check_folder(confusion)
    place = select_device(device)
    scorers: list[Scorer] = [CheckpointScorer(path, place) for path in checkpoint or ()]
    if models is not None:
        scorers += [PackageScorer(models, name, place) for name in model or ()]
    size = batch_size or (GPU_BATCH_VIEWS if place.type == "cuda" else BATCH_VIEWS)
    split = split or evaluation_split(dataset)
    started = time.monotonic()
    with ProgressReporter() as reporter:
        listing = read_split(dataset, data, split, reporter)
        for option, value in (("--top-k", top_k), ("--confusion", confusion)):
            if listing.multi_label and value:
                raise BlvnetError(
                    f"{option} needs videos with one label each, and these have several: omit it"
                )
        members = []
        with reporter.count(f"evaluating {split} clips", len(scorers) * len(listing.examples)) as counter:
            for scorer in scorers:
                member = predict_listing(
                    scorer,
                    listing,
                    clips=clips,
                    crops=crops,
                    jobs=jobs,
                    advance=counter.advance,
                    batch_views=size,
                )
                members.append(member)
        scored = members[0] if len(members) == 1 else combine(members)
        for item in scored.unreadable:
            reporter.message(f"unreadable: {item.path} ({item.reason})")
        if predictions is not None:
            scored.save(predictions)
        result = (
            evaluate_multi_label(scored)
            if scored.multi_label
            else evaluate_predictions(scored, listing.symmetry.reversed_pairs())
        )
        run = checkpoint[0].parent if checkpoint and len(scorers) == 1 and checkpoint[0].is_file() else None
        picture = confusion or (run / f"confusion-{split}.png" if run else None)
        if picture is not None and isinstance(result, Evaluation):
            plot_confusion(result, picture)
            reporter.message(f"confusion matrix: {picture}")
    cost = {
        "seconds": round(time.monotonic() - started, 3),
        "peak_memory_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }
    if as_json:
        document: dict[str, Any] = result.to_json() | cost
        if isinstance(result, Evaluation):
            document |= {f"top{k}": result.top_accuracy(k) for k in top_k or ()}
        json.dump(document, sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    console = Console(markup=False, emoji=False)  # a label may be written like either
    if isinstance(result, Evaluation):
        _print(result, top_k or (), console)
    else:
        _print_multi_label(result, console)
    console.print(f"{cost['seconds']:.1f} s, peak memory {cost['peak_memory_bytes'] / 1e9:.2f} GB")


def _print(result: Evaluation, more: list[int] | tuple[int, ...], console: Console) -> None:
    table = Table("label", "clips", "top-1")
    totals = result.confusion.sum(axis=1)
    for (label, accuracy), total in zip(result.class_accuracy().items(), totals, strict=True):
        table.add_row(label, str(total), _percent(accuracy))
    console.print(table)
    if result.groups:
        groups = Table("group", "clips", "top-1")
        for group, (right, total) in result.groups.items():
            groups.add_row(group, str(total), _percent(right / total))
        console.print(groups)
    low, high = (100 * bound for bound in result.top1_interval)
    tops = "".join(f", top-{k} {_percent(result.top_accuracy(k))}" for k in (*more, TOP))
    console.print(
        f"top-1 {_percent(result.top1_accuracy)} (95 %: {low:.1f} to {high:.1f}), mean of classes "
        f"{_percent(result.mean_class_accuracy)}{tops} of {result.examples} clips; "
        f"{len(result.unreadable)} unreadable",
        soft_wrap=True,
    )
    if result.pairs:
        pairs, swapped = _percent(result.pair_accuracy()), _percent(result.reversed_rate())
        console.print(f"reversed pairs: top-1 {pairs}, given the reversed label {swapped}", soft_wrap=True)
    for true, given, count in result.worst_confusions(SHOWN_CONFUSIONS):
        console.print(f"{count} x {true!r} taken for {given!r}", soft_wrap=True)


def _print_multi_label(result: MultiLabelEvaluation, console: Console) -> None:
    table = Table("label", "average precision")
    for label, precision in result.class_precision().items():
        table.add_row(label, _percent(precision))
    console.print(table)
    console.print(
        f"mean average precision {_percent(result.mean_average_precision)}, best label right "
        f"{_percent(result.hits / result.examples)} of {result.examples} clips; "
        f"{len(result.unreadable)} unreadable",
        soft_wrap=True,
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
