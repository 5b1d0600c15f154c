"""`blvnet classify`: label video files, with a server or without."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from service.clip.geometry import CROP_COUNTS
from service.commands import INTERRUPTED
from service.commands.inputs.videos import NamedClip, Pipes, copied_pipes, find_clips
from service.commands.options import ApiKeyOption, ModelOption, ModelsOption, ServerOption
from service.commands.output.progress import reporting
from service.commands.output.result_writers import (
    BadOutput,
    OutcomeWriter,
    OutputFormat,
    file_writer,
    finished_clips,
    stdout_writer,
)
from service.commands.recognition import ClipError, Outcome, classify_here, classify_on_server
from service.commands.remote import connected
from service.errors import InvalidParameter
from service.pipeline.classification import MAX_CLIPS, MAX_TOP_K, Query
from service.settings import load_settings

FORMATS_BY_SUFFIX = {".jsonl": OutputFormat.JSONL, ".ndjson": OutputFormat.JSONL, ".csv": OutputFormat.CSV}


def classify(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="CLIP",
            help="Video files, folders, patterns such as 'clips/**/*.mp4', or - for standard input.",
            show_default=False,
        ),
    ],
    server: ServerOption = None,
    models: ModelsOption = None,
    model: ModelOption = None,
    top_k: Annotated[
        int, typer.Option(min=1, max=MAX_TOP_K, metavar="K", help="Number of labels for each file.")
    ] = 5,
    clips: Annotated[
        int,
        typer.Option(
            min=1, max=MAX_CLIPS, metavar="N", help="Clips sampled from each file; their scores are averaged."
        ),
    ] = 1,
    crops: Annotated[
        int,
        typer.Option(
            metavar="|".join(map(str, CROP_COUNTS)), help="Crops of each frame; their scores are averaged."
        ),
    ] = 1,
    api_key: ApiKeyOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document at the end.")] = False,
    as_jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Print a line of JSON for each file as soon as it is ready.")
    ] = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print a line of CSV for each file as soon as it is ready.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Append results to this .jsonl or .csv file, and skip the files that it already has.",
        ),
    ] = None,
) -> None:
    """Label video files.

    A file that cannot be labelled does not stop the others; the exit status is then 1. Ctrl-C keeps the
    results that are ready.

    Example: blvnet classify clips/ --out labels.csv
    """
    if server is not None and models is not None:
        raise typer.BadParameter("--server and --models cannot be combined: a server has its own models.")
    query = Query(model, top_k, clips, crops)
    try:
        query.check()
    except InvalidParameter as exc:
        raise typer.BadParameter(exc.message) from exc
    kind = _chosen_format(as_json=as_json, as_jsonl=as_jsonl, as_csv=as_csv, out=out)
    named = find_clips(arguments)
    if out is not None:
        finished = finished_clips(out, kind, top_k)
        named = [clip for clip in named if clip.name not in finished]
        if finished:
            typer.echo(f"{out} has {len(finished)} results; {len(named)} files are left", err=True)
    with ExitStack() as stack:
        if out is None:
            writer = stdout_writer(kind, top_k)
        else:
            writer = stack.enter_context(file_writer(out, kind, top_k))
        if named:
            pipes = stack.enter_context(copied_pipes())
            outcomes = stack.enter_context(_outcomes(named, pipes, query, server, api_key, models))
            status = _write_all(outcomes, len(named), writer, to_file=out is not None)
        else:
            status = 0
            writer.finish()
    if status:
        raise typer.Exit(status)


def _chosen_format(*, as_json: bool, as_jsonl: bool, as_csv: bool, out: Path | None) -> OutputFormat:
    flags = {OutputFormat.JSON: as_json, OutputFormat.JSONL: as_jsonl, OutputFormat.CSV: as_csv}
    asked = [kind for kind, is_set in flags.items() if is_set]
    if len(asked) > 1:
        raise typer.BadParameter("--json, --jsonl and --csv cannot be combined.")
    if out is None:
        return asked[0] if asked else OutputFormat.TEXT
    kind = asked[0] if asked else FORMATS_BY_SUFFIX.get(out.suffix.lower())
    if kind is None or kind is OutputFormat.JSON:
        raise BadOutput(f"{out}: files of results are .jsonl or .csv; results are appended to them")
    return kind


@contextmanager
def _outcomes(
    clips: Sequence[NamedClip],
    pipes: Pipes,
    query: Query,
    server: str | None,
    api_key: str | None,
    models: Path | None,
) -> Iterator[Generator[tuple[NamedClip, Outcome]]]:
    if server is not None:
        with connected(server, api_key) as client:
            yield classify_on_server(client, clips, pipes, query)
    else:
        yield classify_here(load_settings({"models": models}), clips, pipes, query)


def _write_all(
    outcomes: Generator[tuple[NamedClip, Outcome]], total: int, writer: OutcomeWriter, *, to_file: bool
) -> int:
    """Write each result when it is ready; return the exit status."""
    failed = done = 0
    try:
        with closing(outcomes), reporting("classified", "") as report:
            for done, (clip, outcome) in enumerate(outcomes, start=1):
                failed += isinstance(outcome, ClipError)
                if isinstance(outcome, ClipError) and to_file:
                    typer.echo(f"{clip.name}: {outcome.code}: {outcome.detail}", err=True)
                else:
                    writer.write(clip.name, outcome)
                report(done, total, "")
    except KeyboardInterrupt:
        typer.echo(f"blvnet: interrupted; {done} of {total} files are done", err=True)
        return INTERRUPTED
    finally:
        if done:
            writer.finish()
    return 1 if failed else 0
