"""The file of a batch: JSON lines that are appended, or Parquet that is written at the end.

Rows are appended to a journal, one line each; for JSON lines the journal is the file itself. A killed run
leaves complete lines and perhaps an incomplete one, which the next run removes. Parquet files cannot be
appended to, so the journal is a hidden file next to the Parquet file, which is converted and removed when all
videos are done.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from service.errors import BlvnetError
from service.packages.files import atomic_write

JSONL_SUFFIXES = (".jsonl", ".ndjson")
PARQUET_SUFFIX = ".parquet"
ROWS_PER_GROUP = 1000
ROW_START = '{"clip": '

Row = dict[str, Any]

_PREDICTION = pa.struct([("label", pa.string()), ("index", pa.int64()), ("score", pa.float64())])
_RESULT = pa.struct(
    [
        ("model", pa.string()),
        ("version", pa.int64()),
        ("unsure", pa.bool_()),
        ("predictions", pa.list_(_PREDICTION)),
    ]
)
SCHEMA = pa.schema(
    [
        ("clip", pa.string()),
        ("error", pa.struct([("code", pa.string()), ("detail", pa.string())])),
        ("duration_s", pa.float64()),
        ("results", pa.list_(_RESULT)),
    ]
)


class OutputError(BlvnetError):
    """The file of a batch cannot be used."""


class BatchFile:
    """The rows of a batch.

    Args:
        path: `.jsonl` or `.parquet`.
    """

    def __init__(self, path: Path, journal: TextIO) -> None:
        self._path = path
        self._journal = journal
        self._finished = set(_clips_of_parquet(path))
        self._journal_rows = 0
        for row in _complete_rows(journal):
            self._finished.add(_as_text(row["clip"]))
            self._journal_rows += 1

    def __contains__(self, address: str) -> bool:
        """Return whether a video has a row."""
        return _as_text(address) in self._finished

    def write(self, row: Row) -> bool:
        """Append a row; return False if its video already has one."""
        if row["clip"] in self:
            return False
        self._journal.write(json.dumps(row, ensure_ascii=False) + "\n")
        self._journal.flush()
        self._finished.add(_as_text(row["clip"]))
        self._journal_rows += 1
        return True

    def finish(self) -> None:
        """Convert the journal if the file is Parquet; rows of an earlier conversion stay."""
        if self._path.suffix != PARQUET_SUFFIX or not self._journal_rows:
            return
        self._journal.seek(0)
        with atomic_write(self._path) as file, pq.ParquetWriter(file, SCHEMA) as writer:
            for rows in _groups(_all_rows(self._path, self._journal)):
                writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
        Path(self._journal.name).unlink()


@contextmanager
def opened_file(path: Path) -> Iterator[BatchFile]:
    """Open the file of a batch, new or to be continued; only one process at a time may write it.

    Raises:
        OutputError: the suffix is unknown, another run is writing the file, or it has other contents.
    """
    if path.suffix not in (*JSONL_SUFFIXES, PARQUET_SUFFIX):
        raise OutputError(f"{path}: the file of a batch is .jsonl or .parquet")
    journal_path = path.with_name(f".{path.name}.journal.jsonl") if path.suffix == PARQUET_SUFFIX else path
    is_new = not journal_path.exists()
    with journal_path.open("a+", encoding="utf-8", errors="surrogateescape", newline="\n") as journal:
        try:
            fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(f"{path}: another run writes this file") from None
        try:
            file = BatchFile(path, journal)
        except (ValueError, KeyError, TypeError, pa.ArrowInvalid) as exc:
            raise OutputError(f"{path} is not the file of a batch: {exc}") from exc
        try:
            yield file
        finally:
            if is_new and not os.fstat(journal.fileno()).st_size:  # no row was written
                journal_path.unlink(missing_ok=True)


def _complete_rows(journal: TextIO) -> Iterator[Row]:
    """Yield the rows of a journal; remove an incomplete last line.

    Raises:
        ValueError: a line is no row; the journal is unchanged.
    """
    journal.seek(0)
    position = 0
    while line := journal.readline():
        if not line.endswith("\n"):
            if not (line.startswith(ROW_START) or ROW_START.startswith(line)):
                raise ValueError("its last line is no row")
            journal.seek(position)
            journal.truncate()
            break
        position = journal.tell()
        yield json.loads(line)
    journal.seek(0, 2)


def _clips_of_parquet(path: Path) -> list[str]:
    if path.suffix != PARQUET_SUFFIX or not path.exists():
        return []
    if (names := pq.read_schema(path).names) != SCHEMA.names:
        raise ValueError(f"it has the columns {', '.join(names)}")
    clips: list[str] = pq.read_table(path, columns=["clip"]).column("clip").to_pylist()
    return clips


def _all_rows(path: Path, journal: TextIO) -> Iterator[Row]:
    if path.exists():
        for batch in pq.ParquetFile(path).iter_batches(ROWS_PER_GROUP):
            yield from batch.to_pylist()
    for line in journal:
        row = json.loads(line)
        error = row["error"] and {name: _as_text(text) for name, text in row["error"].items()}
        yield row | {"clip": _as_text(row["clip"]), "error": error}


def _as_text(name: str) -> str:
    """Return a file name as Parquet can store it: bytes that are not UTF-8 become escapes."""
    return name.encode(errors="backslashreplace").decode()


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    iterator = iter(rows)
    while group := list(islice(iterator, ROWS_PER_GROUP)):
        yield group
