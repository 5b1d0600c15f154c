"""`blvnet timeline`: label a long video window by window, with a server or without."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from blvnet_client import TimelineResult, VideoError, WindowResult
from service.commands.options import ApiKeyOption, JsonOption, ModelOption, ModelsOption, ServerOption
from service.commands.output.progress import reporting
from service.commands.output.segment_formats import as_csv, as_srt, as_table, as_vtt
from service.commands.remote import connected
from service.errors import BadRequest, BlvnetError, InvalidParameter, NotAVideo, OverLimit, Undecodable
from service.http.schemas.timeline import TimelineEnd, TimelineWindow
from service.offline import timeline_of_file
from service.pipeline.classification import MAX_TOP_K
from service.pipeline.timeline import (
    DEFAULT_WINDOW_S,
    LONGEST_S,
    SHORTEST_S,
    TimelineQuery,
    WindowClassification,
)
from service.settings import load_settings

Lines = Iterator[WindowResult | TimelineResult]
VIDEO_ERRORS = (BadRequest, NotAVideo, Undecodable, OverLimit)


class BadVideo(BlvnetError):
    """The video cannot be labelled; the message begins with its name."""


def timeline(
    video: Annotated[Path, typer.Argument(metavar="VIDEO", help="A video file.", show_default=False)],
    server: ServerOption = None,
    models: ModelsOption = None,
    model: ModelOption = None,
    window_s: Annotated[
        float,
        typer.Option(
            "--window", min=SHORTEST_S, max=LONGEST_S, metavar="S", help="Length of a window in seconds."
        ),
    ] = DEFAULT_WINDOW_S,
    stride_s: Annotated[
        float | None,
        typer.Option(
            "--stride",
            min=SHORTEST_S,
            max=LONGEST_S,
            metavar="S",
            help="Seconds between the starts of consecutive windows. Default: the length of a window.",
        ),
    ] = None,
    top_k: Annotated[
        int,
        typer.Option(
            min=1, max=MAX_TOP_K, metavar="K", help="Number of labels for each window, with --json."
        ),
    ] = 5,
    api_key: ApiKeyOption = None,
    as_json: JsonOption = False,
    srt: Annotated[bool, typer.Option("--srt", help="Print SRT subtitles.")] = False,
    vtt: Annotated[bool, typer.Option("--vtt", help="Print WebVTT subtitles.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print the segments as CSV.")] = False,
) -> None:
    """Label a long video window by window.

    Each window is labelled like a clip. The table and the subtitles join consecutive windows with the same
    best label.

    Example: blvnet timeline match.mp4 --window 4 --vtt > match.vtt
    """
    if server is not None and models is not None:
        raise typer.BadParameter("--server and --models cannot be combined: a server has its own models.")
    if as_json + srt + vtt + csv > 1:
        raise typer.BadParameter("--json, --srt, --vtt and --csv cannot be combined.")
    query = TimelineQuery(model, window_s, stride_s, top_k)
    try:
        query.check()
    except InvalidParameter as exc:
        message = exc.message.replace("stride_s", "--stride").replace("window_s", "--window")
        raise typer.BadParameter(message) from exc
    lines = _remote(video, server, api_key, query) if server else _local(video, models, query)
    *windows, end = _with_progress(lines)
    assert isinstance(end, TimelineResult)
    if as_json:
        document = {"clip": str(video), "windows": [window.to_dict() for window in windows]} | end.to_dict()
        del document["request_id"]
        typer.echo(json.dumps(document, ensure_ascii=False))
        return
    write = as_srt if srt else as_vtt if vtt else as_csv if csv else as_table
    typer.echo(write(end.summary.segments), nl=False)


def _remote(video: Path, server: str, api_key: str | None, query: TimelineQuery) -> Lines:
    with connected(server, api_key) as client:
        try:
            yield from client.timeline(video, **asdict(query))
        except VideoError as exc:
            raise BadVideo(f"{video}: {exc.message}") from exc


def _local(video: Path, models: Path | None, query: TimelineQuery) -> Lines:
    config = load_settings({"models": models})
    try:
        for result in timeline_of_file(config, video, query):
            if isinstance(result, WindowClassification):
                window = TimelineWindow.of(result).model_dump(mode="json")
                yield msgspec.convert(window, WindowResult, strict=False)
            else:
                end = TimelineEnd.of(result).model_dump(mode="json")
                yield msgspec.convert(end, TimelineResult, strict=False)
    except VIDEO_ERRORS as exc:
        raise BadVideo(f"{video}: {exc.message}") from exc


def _with_progress(lines: Lines) -> Lines:
    with reporting("labelled", "windows") as report:
        for line in lines:
            if isinstance(line, WindowResult):
                report(line.window + 1, line.windows, "")
            yield line
