"""Finding annotations and clips on the disk. A folder is listed once; no clip's file is asked for by itself.

Listing 800,000 clips takes seconds so, where asking for each takes minutes on a network's disk.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from model_export.datasets.listing import Clip, Listing, Symmetry
from service.errors import BlvnetError

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm"})

# A split's names, in files and folders; the first is ours.
SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "validation", "validate"),
    "test": ("test", "testing"),
}
# Where annotations are, below the data's folder.
PLACES = ("", "labels", "annotations")

Row = tuple[int, list[str]]
"""The number of a line, from 1, and its fields."""


def split_names(split: str) -> tuple[str, ...]:
    """All names of a split, given one of them.

    Raises:
        BlvnetError: there is no such split.
    """
    for names in SPLITS.values():
        if split in names:
            return names
    raise BlvnetError(f"no split {split!r}; there are {', '.join(SPLITS)}")


def look_for(data: Path, names: Sequence[str]) -> Path | None:
    """The first of the annotation files `names` that is in `data`, or in its folder labels or annotations."""
    places = (data / place / name for place in PLACES for name in names)
    return next((path for path in places if path.is_file()), None)


def find_file(data: Path, names: Sequence[str]) -> Path:
    """As `look_for`.

    Raises:
        BlvnetError: there is none; the message says which names were looked for.
    """
    found = look_for(data, names)
    if found is None:
        inner = " and ".join(f"{place}/" for place in PLACES if place)
        raise BlvnetError(f"{data} has no {' or '.join(names)} (looked for in it, {inner})")
    return found


def find_folder(data: Path, names: Sequence[str]) -> Path:
    """The first of the folders `names` that is in `data`.

    Raises:
        BlvnetError: there is none; the message says which names were looked for.
    """
    for name in names:
        if (data / name).is_dir():
            return data / name
    raise BlvnetError(f"{data}: no folder {' or '.join(names)}")


def read_text(path: Path) -> str:
    """The text of an annotation file.

    Raises:
        BlvnetError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as exc:
        raise BlvnetError(f"{path} cannot be read ({exc.strerror})") from exc
    except UnicodeDecodeError as exc:
        raise BlvnetError(f"{path} is not UTF-8 text") from exc


def read_rows(path: Path, delimiter: str) -> Iterator[Row]:
    """The fields of each line that has any.

    Raises:
        BlvnetError: the file cannot be read, or is no such table.
    """
    reader = csv.reader(read_text(path).splitlines(), delimiter=delimiter)
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                yield reader.line_num, [field.strip() for field in fields]
    except csv.Error as exc:
        raise BlvnetError(f"{path}, line {reader.line_num}: {exc}") from exc


def clips_by_stem(*folders: Path) -> dict[str, Path]:
    """Videos of these folders and of the folders in them, by name without suffix; the last of one name wins.

    A folder that is not there holds nothing.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        if folder.is_dir():
            videos, inner = _contents(folder)
            found |= videos
            for place in inner.values():
                found |= _contents(place)[0]
    return found


def clips_by_id(folder: Path) -> dict[str, Path]:
    """What a folder holds of clips, by id: videos `ID.*`, and folders `ID` of pictures."""
    videos, inner = _contents(folder)
    return videos | inner


class Shelves:
    """Which files and folders there are, by their paths; each folder is listed when it is first asked for."""

    def __init__(self) -> None:
        self._names: dict[Path, frozenset[str]] = {}

    def hold(self, path: Path) -> bool:
        """Whether `path` exists."""
        folder = path.parent
        if folder not in self._names:
            entries = _sorted_entries(folder) if folder.is_dir() else []
            self._names[folder] = frozenset(entry.name for entry in entries)
        return path.name in self._names[folder]


def collect(
    source: Path, labels: Sequence[str], symmetry: Symmetry, wanted: Iterable[tuple[str, Clip | None]]
) -> Listing:
    """A listing of the clips that are there.

    Args:
        source: the annotation file, for messages.
        labels: names of the classes.
        symmetry: what they turn into.
        wanted: for each clip that is annotated where it should be, and the clip, or None if it is missing.

    Raises:
        BlvnetError: there is none at all.
    """
    clips = []
    lost: list[str] = []
    for name, clip in wanted:
        if clip is None:
            lost.append(name)
        else:
            clips.append(clip)
    if not clips:
        if not lost:
            raise BlvnetError(f"{source} names no clips")
        raise BlvnetError(f"{source}: none of its {len(lost)} clips is there; the first is {lost[0]}")
    return Listing(tuple(labels), tuple(clips), symmetry, missing=len(lost))


def _contents(folder: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """The videos of a folder by name without suffix, and its folders by name."""
    videos, inner = {}, {}
    for entry in _sorted_entries(folder):
        stem, dot, suffix = entry.name.rpartition(".")
        if dot + suffix.lower() in VIDEO_SUFFIXES:
            videos[stem] = folder / entry.name
        elif entry.is_dir():
            inner[entry.name] = folder / entry.name
    return videos, inner


def _sorted_entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as exc:
        raise BlvnetError(f"{folder} cannot be listed ({exc.strerror})") from exc
