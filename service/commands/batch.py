"""`blvnet batch`: label many videos into one file, in this process or on a Ray cluster."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from service.batch.classifier import BatchClassifier
from service.batch.output import BatchFile, Row, opened_file
from service.batch.source import list_videos
from service.commands import INTERRUPTED
from service.commands.options import ModelsOption
from service.commands.output.progress import reporting
from service.errors import InvalidParameter
from service.pipeline.classification import MAX_CLIPS, MAX_TOP_K, Query
from service.settings import Settings, load_settings


def batch(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder, a pattern, a listing (.txt), or an address such as s3://bucket/folder.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="File of the rows, .parquet or .jsonl; it is continued.")
    ],
    models: ModelsOption = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="NAME", help="Name of a model; repeatable, for several in one pass."),
    ] = None,
    top_k: Annotated[
        int, typer.Option(min=1, max=MAX_TOP_K, metavar="K", help="Number of labels of each model.")
    ] = 5,
    clips: Annotated[
        int, typer.Option(min=1, max=MAX_CLIPS, metavar="N", help="Clips sampled from each video.")
    ] = 1,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Ray cluster, such as auto or ray://HOST:10001, to run on."),
    ] = None,
) -> None:
    """Label many videos into one file, with one row for each.

    A video that cannot be labelled has a row with the error. A run that was interrupted or killed is
    continued by the same command: videos with a row are not classified again.

    Example: blvnet batch s3://bucket/videos --out labels.parquet
    """
    query = Query(top_k=top_k, clips=clips)
    try:
        query.check()
    except InvalidParameter as exc:
        raise typer.BadParameter(exc.message) from exc
    settings = load_settings({"models": models})
    videos = list_videos(source)
    with opened_file(out) as file:
        left = [video for video in videos if video not in file]
        if len(left) < len(videos):
            typer.echo(f"{out} has {len(videos) - len(left)} of {len(videos)} rows", err=True)
        try:
            failed = _write_rows(file, left, settings, model or [], query, ray)
        except KeyboardInterrupt:
            typer.echo(f"blvnet: interrupted; run the same command to continue {out}", err=True)
            raise typer.Exit(INTERRUPTED) from None
        file.finish()
    if failed:
        typer.echo(f"{failed} of {len(left)} videos have an error in their row", err=True)


def _write_rows(
    file: BatchFile,
    videos: Sequence[str],
    settings: Settings,
    models: Sequence[str],
    query: Query,
    ray: str | None,
) -> int:
    """Classify videos and write their rows; return the number of errors."""
    if not videos:
        return 0
    failed = done = 0
    began = time.monotonic()
    with _rows(videos, settings, models, query, ray) as rows, reporting("classified", "videos") as report:
        for row in rows:
            if file.write(row):
                done += 1
                failed += row["error"] is not None
                report(done, len(videos), f"({done / (time.monotonic() - began):.1f}/s)")
    return failed


@contextmanager
def _rows(
    videos: Sequence[str], settings: Settings, models: Sequence[str], query: Query, ray: str | None
) -> Iterator[Iterator[Row]]:
    if ray is None:
        with BatchClassifier(settings, models, query) as classifier:
            yield classifier.rows(videos)
    else:
        from service.batch.ray_rows import rows_of_cluster

        yield rows_of_cluster(ray, videos, settings, models, query)
