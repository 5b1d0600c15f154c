"""Folders of labelled clips, `LABEL/*.mp4` or `{train,val}/LABEL/*.mp4`, and the groups of the clips."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from service.clip.decoding.formats import VIDEO_SUFFIXES
from service.errors import BlvnetError

TRAIN, VALIDATION = "train", "val"
MAX_SHOWN = 3


class BadTeachingSet(BlvnetError):
    """The folder or the file of groups cannot be used; the message says why."""

    exit_code = 2


@dataclass(frozen=True)
class TeachingClip:
    """A clip of a folder of labels; `name` is its path below the folder."""

    name: str
    path: Path
    label: str


def find_labelled(data: Path, val: Path | None) -> tuple[list[TeachingClip], list[TeachingClip]]:
    """The clips to learn from and those to validate on.

    Args:
        data: a folder of labels, or of the folders `train` and `val` of labels.
        val: a folder of labels to validate on, instead of `data/val`.

    Raises:
        BadTeachingSet: a folder is missing, or has no clips.
    """
    split = (data / TRAIN).is_dir()
    if val is None and split and (data / VALIDATION).is_dir():
        val = data / VALIDATION
    return _clips_of(data / TRAIN if split else data), [] if val is None else _clips_of(val)


def _clips_of(folder: Path) -> list[TeachingClip]:
    if not folder.is_dir():
        raise BadTeachingSet(f"{folder}: there is no such folder of labels")
    clips = [
        TeachingClip(path.relative_to(folder).as_posix(), path, label.name)
        for label in sorted(folder.iterdir())
        if label.is_dir() and not label.name.startswith(".")
        for path in sorted(label.rglob("*"))
        if path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".") and path.is_file()
    ]
    if not clips:
        raise BadTeachingSet(
            f"{folder}: there are no clips in it; put them into LABEL/*.mp4, one folder a label"
        )
    return clips


def read_groups(file: Path, clips: Sequence[TeachingClip]) -> list[str]:
    """The group of each clip, from a CSV file with the columns `file` (or `clip`) and `group`.

    A file is named as in the folder (`LABEL/name.mp4`) or by its name alone. Without a header the columns are
    the file and its group.

    Raises:
        BadTeachingSet: the file cannot be read, or a clip has no group.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            rows = [row for row in csv.reader(text) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise BadTeachingSet(
            f"{file}: it cannot be read as CSV: {getattr(exc, 'strerror', None) or exc}"
        ) from exc
    groups = _groups_of(file, rows)
    found = [groups.get(clip.name) or groups.get(clip.path.name) for clip in clips]
    missing = [clip.name for clip, group in zip(clips, found, strict=True) if not group]
    if missing:
        shown = ", ".join(missing[:MAX_SHOWN]) + (", ..." if len(missing) > MAX_SHOWN else "")
        raise BadTeachingSet(f"{file}: it has no group for {len(missing)} of {len(clips)} clips: {shown}")
    return [group for group in found if group]


def _groups_of(file: Path, rows: Sequence[Sequence[str]]) -> Mapping[str, str]:
    """File -> group."""
    header = [cell.strip().casefold() for cell in rows[0]] if rows else []
    name, group = 0, 1
    if "group" in header:
        name = next((header.index(column) for column in ("file", "clip") if column in header), 0)
        group = header.index("group")
        rows = rows[1:]
    if any(len(row) <= max(name, group) for row in rows):
        raise BadTeachingSet(f"{file}: every line must have a file and a group, separated by a comma")
    return {row[name].strip().removeprefix(f"{TRAIN}/"): row[group].strip() for row in rows}
