"""`blvnet classify`: what is happening in these clips? Asks a server, or does without one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Column, Table
from rich.text import Text

from service.errors import RequestError

if TYPE_CHECKING:
    from service.http.schemas import Classification

CROPS = (1, 3, 5, 10)


def classify(
    paths: Annotated[list[Path], typer.Argument(metavar="CLIP", help="Video files.", show_default=False)],
    server: Annotated[
        str | None, typer.Option(metavar="URL", help="Ask this server; if not given, no server is needed.")
    ] = None,
    models: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of packages; if not given, the bundled ones.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Which model.")] = None,
    top_k: Annotated[int, typer.Option(min=1, max=100, metavar="K", help="Labels for each clip.")] = 5,
    clips: Annotated[int, typer.Option(min=1, max=10, metavar="N", help="Samplings in time, averaged.")] = 1,
    crops: Annotated[int, typer.Option(metavar="1|3|5|10", help="Crops of each frame, averaged.")] = 1,
    api_key: Annotated[
        str | None, typer.Option(metavar="KEY", envvar="BLVNET_API_KEY", help="For a server that wants one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Label clips: what is happening in them?

    A clip that cannot be labelled does not stop the others; the exit status is then 1.
    """
    if server is not None and models is not None:
        raise typer.BadParameter("--server and --models exclude each other: a server has models of its own.")
    if crops not in CROPS:
        raise typer.BadParameter(f"--crops must be one of {', '.join(map(str, CROPS))}, it is {crops}.")
    query = {"model": model, "top_k": top_k, "clips": clips, "crops": crops}
    answers = _remote(paths, server, api_key, query) if server else _local(paths, models, query)
    results = list(_watched(answers, len(paths)))
    if as_json:
        typer.echo(json.dumps({"results": [_document(*result) for result in results]}, ensure_ascii=False))
    else:
        _print_table(results)
    if any(isinstance(answer, RequestError) for _, answer in results):
        raise typer.Exit(1)


Answer = tuple[Path, "Classification | RequestError"]


def _remote(
    paths: Iterable[Path], server: str, api_key: str | None, query: dict[str, Any]
) -> Iterator[Answer]:
    """Ask a server, one clip after the other."""
    from service.client import Client

    with Client(server, api_key) as client:
        for path in paths:
            try:
                yield path, client.classify(path, **query)
            except RequestError as exc:
                yield path, exc


def _local(paths: Iterable[Path], models: Path | None, query: dict[str, Any]) -> Iterator[Answer]:
    """Do in this process what a server does."""
    from service.http.schemas import Classification
    from service.offline import recognize_files
    from service.pipeline.recognition import Query
    from service.settings import load_settings

    config = load_settings({"models": models}).core_config()
    for path, answer in recognize_files(config, paths, Query(**query)):
        if isinstance(answer, RequestError):
            yield path, answer
        else:
            timing = answer.timing
            total_ms = timing.queue_ms + timing.decode_ms + timing.inference_ms
            yield path, Classification.of(answer, receive_ms=0.0, total_ms=total_ms)


def _watched(answers: Iterator[Answer], total: int) -> Iterator[Answer]:
    """Show on standard error how far it is: a bar on a terminal, plain lines elsewhere."""
    console = Console(stderr=True)
    if console.is_terminal:
        yield from track(answers, "classifying", total, console=console, transient=True)
        return
    for done, answer in enumerate(answers, start=1):
        if total > 1:
            console.print(f"classified {done} of {total}", highlight=False)
        yield answer


def _document(path: Path, answer: Classification | RequestError) -> dict[str, Any]:
    if isinstance(answer, RequestError):
        return {"clip": str(path), "error": {"code": answer.code, "detail": answer.message}}
    return {"clip": str(path)} | answer.model_dump(exclude={"request_id"})


def _print_table(results: list[Answer]) -> None:
    table = Table(
        "clip", "label", Column("score", justify="right"), Column("ms", justify="right"), box=box.SIMPLE_HEAD
    )
    for path, answer in results:
        name = Text(str(path))
        if isinstance(answer, RequestError):
            table.add_row(name, Text(f"{answer.code}: {answer.message}", style="red"), end_section=True)
            continue
        total = f"{answer.timing_ms.total:.0f}"
        for rank, prediction in enumerate(answer.predictions):
            first = rank == 0
            label = Text(prediction.label, style="bold" if first else "")
            table.add_row(name if first else "", label, f"{prediction.score:.3f}", total if first else "")
        table.add_section()
    Console().print(table)
