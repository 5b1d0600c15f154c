"""`blvnet timeline`: what happens in this video, and when? Asks a server, or does without one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from service.client import Client
from service.errors import InvalidParameter
from service.http.timeline_schemas import TimelineEnd, TimelineWindow
from service.offline import timeline_of_file
from service.pipeline.timeline import DEFAULT_WINDOW_S, TimelineQuery, WindowRecognition
from service.settings import load_settings

Lines = Iterator[TimelineWindow | TimelineEnd]
PLAIN_LINES = 10  # that a timeline prints on the way where there is no terminal


def timeline(
    video: Annotated[Path, typer.Argument(metavar="VIDEO", help="A video file.", show_default=False)],
    server: Annotated[
        str | None, typer.Option(metavar="URL", help="Ask this server; if not given, no server is needed.")
    ] = None,
    models: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of packages; if not given, the bundled ones.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Which model.")] = None,
    window_s: Annotated[
        float, typer.Option("--window", min=0.1, max=3600, metavar="S", help="Length of a window in seconds.")
    ] = DEFAULT_WINDOW_S,
    stride_s: Annotated[
        float | None,
        typer.Option(
            "--stride",
            min=0.1,
            max=3600,
            metavar="S",
            help="Seconds from one window to the next; the length of a window if not given.",
        ),
    ] = None,
    top_k: Annotated[
        int, typer.Option(min=1, max=100, metavar="K", help="Labels for each window, with --json.")
    ] = 5,
    api_key: Annotated[
        str | None, typer.Option(metavar="KEY", envvar="BLVNET_API_KEY", help="For a server that wants one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Label a long video: what happens in it, and when?

    The video is cut into windows, each is labelled as a clip, and neighbours with the same best label are
    shown as one.
    """
    if server is not None and models is not None:
        raise typer.BadParameter("--server and --models exclude each other: a server has models of its own.")
    query = TimelineQuery(model, window_s, stride_s, top_k)
    try:
        query.check()
    except InvalidParameter as exc:
        raise typer.BadParameter(exc.message) from exc
    lines = _remote(video, server, api_key, query) if server else _local(video, models, query)
    *windows, end = _watched(lines)
    assert isinstance(end, TimelineEnd)
    if as_json:
        document = {"clip": str(video), "windows": [window.model_dump() for window in windows]}
        typer.echo(json.dumps(document | end.model_dump(exclude={"request_id"}), ensure_ascii=False))
    else:
        _print_table(end)


def _remote(video: Path, server: str, api_key: str | None, query: TimelineQuery) -> Lines:
    """Ask a server."""
    with Client(server, api_key) as client:
        yield from client.timeline(video, **asdict(query))


def _local(video: Path, models: Path | None, query: TimelineQuery) -> Lines:
    """Do in this process what a server does."""
    config = load_settings({"models": models}).core_config()
    for found in timeline_of_file(config, video, query):
        if isinstance(found, WindowRecognition):
            yield TimelineWindow.of(found)
        else:
            timing = found.timing
            total_ms = timing.decode_ms + timing.queue_ms + timing.inference_ms
            yield TimelineEnd.of(found, receive_ms=0.0, total_ms=total_ms, request_id="")


def _watched(lines: Lines) -> Lines:
    """Show on standard error how far it is: a bar on a terminal, a plain line now and then elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield from _with_plain_lines(lines, console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("labelling", total=None)
        for line in lines:
            if isinstance(line, TimelineWindow):
                progress.update(task, completed=line.window + 1, total=line.windows)
            yield line


def _with_plain_lines(lines: Lines, console: Console) -> Lines:
    shown = 0
    for line in lines:
        if isinstance(line, TimelineWindow):
            done = line.window + 1
            before, shown = shown, PLAIN_LINES * done // line.windows
            if shown > before:
                console.print(f"labelled {done} of {line.windows} windows", highlight=False)
        yield line


def _print_table(end: TimelineEnd) -> None:
    right = [Column(name, justify="right") for name in ("from", "to")]
    table = Table(*right, "label", Column("score", justify="right"), box=box.SIMPLE_HEAD)
    for segment in end.summary.segments:
        times = _clock(segment.start_s), _clock(segment.end_s)
        table.add_row(*times, Text(segment.label, style="bold"), f"{segment.score:.3f}")
    Console().print(table)


def _clock(seconds: float) -> str:
    """1:02:03.4, without the hours where there are none."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    shown = f"{rest // 10:02d}.{rest % 10}"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{shown}" if hours else f"{minutes}:{shown}"
