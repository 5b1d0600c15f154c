"""Segments of a timeline as a table, as subtitles and as CSV."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from blvnet_client.results import LabelledSegment
from service.commands.output.result_writers import csv_row

Segments = Sequence[LabelledSegment]


def as_table(segments: Segments) -> str:
    """Format segments as a table."""
    right = [Column(name, justify="right") for name in ("from", "to")]
    table = Table(
        *right, Column("label", overflow="fold"), Column("score", justify="right"), box=box.SIMPLE_HEAD
    )
    for segment in segments:
        times = clock(segment.start_s), clock(segment.end_s)
        table.add_row(*times, Text(segment.label, style="bold"), f"{segment.score:.3f}")
    console = Console()
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def as_csv(segments: Segments) -> str:
    """A header and a line for each segment; times in seconds."""
    rows = [["start_s", "end_s", "label", "score"]]
    rows += [[f"{s.start_s:.6f}", f"{s.end_s:.6f}", s.label, f"{s.score:.6f}"] for s in segments]
    return "".join(map(csv_row, rows))


def as_srt(segments: Segments) -> str:
    """SubRip subtitles."""
    cues = enumerate(_cues(segments), start=1)
    return "".join(
        f"{number}\n{_stamp(start_s, ',')} --> {_stamp(end_s, ',')}\n{label}\n\n"
        for number, (start_s, end_s, label) in cues
    )


def as_vtt(segments: Segments) -> str:
    """WebVTT subtitles."""
    cues = "".join(
        f"{_stamp(start_s, '.')} --> {_stamp(end_s, '.')}\n{html.escape(label, quote=False)}\n\n"
        for start_s, end_s, label in _cues(segments)
    )
    return f"WEBVTT\n\n{cues}"


def clock(seconds: float) -> str:
    """Format as 1:02:03.4, or 2:03.4 below an hour."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    shown = f"{rest // 10:02d}.{rest % 10}"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{shown}" if hours else f"{minutes}:{shown}"


def _cues(segments: Segments) -> Iterator[tuple[float, float, str]]:
    """Start, end and label; an overlapping segment ends where the next one starts, as players show one."""
    following = [segment.start_s for segment in segments[1:]]
    ends = [min(s.end_s, start_s) for s, start_s in zip(segments, following, strict=False)]
    ends += [segment.end_s for segment in segments[-1:]]
    for segment, end_s in zip(segments, ends, strict=True):
        yield segment.start_s, end_s, " ".join(segment.label.split())


def _stamp(seconds: float, point: str) -> str:
    """Time as HH:MM:SS.mmm."""
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"
