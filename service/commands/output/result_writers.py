"""Output of `blvnet classify`: as text, JSON, JSON lines or CSV, on standard output or in a file."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.text import Text

from service.commands.recognition import ClipError, Outcome
from service.errors import BlvnetError

JSON_START = b'{"clip": '  # of each line


class OutputFormat(StrEnum):
    """Format of the results."""

    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"


class BadOutput(BlvnetError):
    """The results cannot be written to the chosen file."""

    exit_code = 2


class OutcomeWriter(Protocol):
    """Writes results one by one."""

    def write(self, name: str, outcome: Outcome) -> None:
        """Write the result of a video."""

    def finish(self) -> None:
        """Write the text after the last result; also called after an interruption."""


def document_of(name: str, outcome: Outcome) -> dict[str, Any]:
    """The JSON document of a result."""
    if isinstance(outcome, ClipError):
        return {"clip": name, "error": {"code": outcome.code, "detail": outcome.detail}}
    document = {"clip": name} | outcome.to_dict()
    document.pop("request_id", None)
    return document


class TextWriter:
    """Labels below the name of each video, with scores."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)

    def write(self, name: str, outcome: Outcome) -> None:
        """Print the result of a video."""
        if isinstance(outcome, ClipError):
            self._console.print(
                Text(name), Text(f"{outcome.code}: {outcome.detail}", style="red"), sep="\n  "
            )
            return
        self._console.print(Text(name), Text(f"({outcome.timing_ms.total:.0f} ms)", style="dim"))
        for rank, prediction in enumerate(outcome.predictions):
            label = Text(prediction.label, style="" if rank else "bold")
            if outcome.unsure and not rank:
                label.append(" (unsure)", style="yellow")
            self._console.print(Text(f"  {prediction.score:.3f} "), label)

    def finish(self) -> None:
        """Print nothing."""


class JsonWriter:
    """One document with all results, printed at the end."""

    def __init__(self) -> None:
        self._results: list[dict[str, Any]] = []

    def write(self, name: str, outcome: Outcome) -> None:
        """Keep the result of a video."""
        self._results.append(document_of(name, outcome))

    def finish(self) -> None:
        """Print the document."""
        print(json.dumps({"results": self._results}, ensure_ascii=False), flush=True)  # noqa: T201


class LineWriter:
    """A line for each video, written completely before the next one.

    Args:
        put: writes a text immediately.
        line_of: the line of a result, with its line break.
    """

    def __init__(self, put: Callable[[str], None], line_of: Callable[[str, Outcome], str]) -> None:
        self._put = put
        self._line_of = line_of

    def write(self, name: str, outcome: Outcome) -> None:
        """Write the line of a video."""
        self._put(self._line_of(name, outcome))

    def finish(self) -> None:
        """Write nothing."""


def json_line(name: str, outcome: Outcome) -> str:
    """A result as a line of JSON."""
    return json.dumps(document_of(name, outcome), ensure_ascii=False) + "\n"


def csv_header(top_k: int) -> list[str]:
    """Columns of the CSV output; labels are best first."""
    labels = [f"{field}{rank}" for rank in range(1, top_k + 1) for field in ("label", "score")]
    return ["clip", "error", *labels]


def csv_line(name: str, outcome: Outcome, top_k: int) -> str:
    """A result as a line of CSV, with as many cells as the header."""
    error, scores = "", []
    if isinstance(outcome, ClipError):
        error = f"{outcome.code}: {outcome.detail}"
    else:
        scores = [value for item in outcome.predictions for value in (item.label, f"{item.score:.6f}")]
    return csv_row([name, error, *scores, *[""] * (2 * top_k - len(scores))])


def csv_row(cells: Sequence[str]) -> str:
    """Cells as a line of CSV."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def stdout_writer(kind: OutputFormat, top_k: int) -> OutcomeWriter:
    """A writer to standard output."""
    if kind is OutputFormat.TEXT:
        return TextWriter()
    if kind is OutputFormat.JSON:
        return JsonWriter()
    if kind is OutputFormat.JSONL:
        return LineWriter(_print_at_once, json_line)
    _print_at_once(csv_row(csv_header(top_k)))
    return LineWriter(_print_at_once, partial(csv_line, top_k=top_k))


def _print_at_once(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def finished_clips(path: Path, kind: OutputFormat, top_k: int) -> set[str]:
    """Return the names of the videos in a file of results; remove an incomplete last line from it.

    Raises:
        BadOutput: the file is not of this format; it is unchanged.
    """
    if not path.is_file():  # the file is new, or a device or pipe, which has no end
        return set()
    content = path.read_bytes()
    complete = content[: content.rfind(b"\n") + 1]
    try:
        names = _names_in(complete.decode("utf-8", "surrogateescape"), kind, top_k)
    except (ValueError, KeyError, TypeError, IndexError) as exc:
        raise BadOutput(f"{path} is not a file of results in the format {kind}: {exc}") from exc
    if rest := content[len(complete) :]:
        if kind is OutputFormat.JSONL:
            is_result = rest.startswith(JSON_START) or JSON_START.startswith(rest)
        else:
            is_result = bool(complete) or csv_row(csv_header(top_k)).encode().startswith(rest)
        if not is_result:
            raise BadOutput(f"{path} is not a file of results in the format {kind}: see its last line")
        with path.open("rb+") as file:
            file.truncate(len(complete))
    return names


def _names_in(text: str, kind: OutputFormat, top_k: int) -> set[str]:
    if kind is OutputFormat.JSONL:
        return {json.loads(line)["clip"] for line in text.split("\n")[:-1]}
    rows = list(csv.reader(io.StringIO(text, newline="")))
    if rows and rows[0] != csv_header(top_k):
        raise ValueError("it has other columns; choose another file, or the same --top-k")
    return {row[0] for row in rows[1:]}


@contextmanager
def file_writer(path: Path, kind: OutputFormat, top_k: int) -> Iterator[OutcomeWriter]:
    """A writer that appends to a file, line by line; videos without labels are not written."""
    with path.open("a", encoding="utf-8", errors="surrogateescape", newline="") as file:

        def put(text: str) -> None:
            file.write(text)
            file.flush()

        if kind is OutputFormat.CSV and file.tell() == 0:
            put(csv_row(csv_header(top_k)))
        yield LineWriter(put, partial(csv_line, top_k=top_k) if kind is OutputFormat.CSV else json_line)
