"""Find annotation files and videos on disk.

Each folder is listed once, without a lookup for each video. Listing 800,000 videos on a network file system
then takes seconds instead of minutes.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from model_export.datasets.listing import Example, Listing
from model_export.datasets.symmetry import Symmetry
from service.clip.decoding.formats import VIDEO_SUFFIXES
from service.errors import BlvnetError

# Names of a split in files and folders; the first is the one that commands take.
SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "validation", "validate"),
    "test": ("test", "testing"),
}
ANNOTATION_FOLDERS = ("", "labels", "annotations")

Row = tuple[int, list[str]]
"""Line number, from 1, and the fields of a line."""


def split_names(split: str) -> tuple[str, ...]:
    """Return all names of a split, given one of them.

    Raises:
        BlvnetError: there is no such split.
    """
    for names in SPLITS.values():
        if split in names:
            return names
    raise BlvnetError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")


def look_for(data: Path, names: Sequence[str]) -> Path | None:
    """Return the first of the annotation files `names` in `data`, `data/labels` or `data/annotations`."""
    paths = (data / folder / name for folder in ANNOTATION_FOLDERS for name in names)
    return next((path for path in paths if path.is_file()), None)


def find_file(data: Path, names: Sequence[str]) -> Path:
    """Return the file that `look_for` finds.

    Raises:
        BlvnetError: none of the files exists.
    """
    path = look_for(data, names)
    if path is None:
        raise BlvnetError(
            f"{data} has no {' or '.join(names)} (searched it, its labels/ and its annotations/)"
        )
    return path


def find_folder(data: Path, names: Sequence[str]) -> Path:
    """Return the first of the folders `names` in `data`.

    Raises:
        BlvnetError: none of them exists.
    """
    for name in names:
        if (data / name).is_dir():
            return data / name
    raise BlvnetError(f"{data} has no folder {' or '.join(names)}")


def read_text(path: Path) -> str:
    """Read an annotation file.

    Raises:
        BlvnetError: the file cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as exc:
        raise BlvnetError(f"{path} cannot be read ({exc.strerror})") from exc
    except UnicodeDecodeError as exc:
        raise BlvnetError(f"{path} is not UTF-8 text") from exc


def read_lines(path: Path) -> list[str]:
    """Read the lines of an annotation file.

    `str.splitlines` also splits at other characters, such as U+2028, which occur in texts from web pages.

    Raises:
        BlvnetError: as `read_text`.
    """
    return read_text(path).split("\n")  # `read_text` translates the other ends of lines


def read_json_list(path: Path, of: str) -> list[Any]:
    """Read a JSON file that holds a list; `of` names its entries in a message.

    Raises:
        BlvnetError: the file cannot be read, or holds something else.
    """
    try:
        document = json.loads(read_text(path))
    except (ValueError, RecursionError) as exc:
        raise BlvnetError(f"{path} cannot be read as JSON") from exc
    if not isinstance(document, list):
        raise BlvnetError(f"{path} is not a list of {of}")
    return document


def read_rows(path: Path, delimiter: str, *, strip: bool = True) -> Iterator[Row]:
    """Read the non-empty rows of a delimited file.

    Args:
        path: the file.
        delimiter: what separates the fields.
        strip: whether to remove spaces around each field.

    Raises:
        BlvnetError: the file cannot be read or parsed, or a quote is not closed on its line.
    """
    reader = csv.reader(read_lines(path), delimiter=delimiter)
    before = 0
    try:
        for fields in reader:
            before, first = reader.line_num, before + 1
            if before > first:  # all rows up to the next quote would be lost
                raise BlvnetError(f"{path}, line {first}: a quote is not closed")
            if any(field.strip() for field in fields):
                yield reader.line_num, [field.strip() for field in fields] if strip else fields
    except csv.Error as exc:
        raise BlvnetError(f"{path}, line {reader.line_num}: {exc}") from exc


def visible_entries(folder: Path) -> list[os.DirEntry[str]]:
    """List a folder in order of names, without hidden entries.

    `.ipynb_checkpoints`, `.DS_Store` and the `._NAME.mp4` that macOS writes are not data.

    Raises:
        BlvnetError: the folder cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as exc:
        raise BlvnetError(f"{folder} cannot be listed ({exc.strerror})") from exc
    return sorted(visible, key=lambda entry: entry.name)


def is_hidden(path: Path) -> bool:
    """Whether a file, or a folder on its way, is hidden; see `visible_entries`."""
    return any(part.startswith(".") for part in path.parts)


def is_video(name: str) -> bool:
    """Whether a file has the suffix of a video."""
    return os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES  # noqa: PTH122 - called for every file


def videos_by_stem(*folders: Path) -> dict[str, Path]:
    """Videos in these folders and one level below, by name without suffix; the last of equal names wins.

    Folders that do not exist are skipped.
    """
    videos: dict[str, Path] = {}
    for folder in folders:
        if folder.is_dir():
            own, subfolders = _videos_and_folders(folder)
            videos |= own
            for subfolder in subfolders.values():
                videos |= _videos_and_folders(subfolder)[0]
    return videos


def videos_by_id(folder: Path) -> dict[str, Path]:
    """Videos `ID.*` and picture folders `ID` of a folder, by id."""
    videos, subfolders = _videos_and_folders(folder)
    return videos | subfolders


class PathIndex:
    """Tells whether paths exist; lists each folder once, on first use."""

    def __init__(self) -> None:
        self._names: dict[Path, frozenset[str]] = {}

    def __contains__(self, path: Path) -> bool:
        folder = path.parent
        if folder not in self._names:
            entries = visible_entries(folder) if folder.is_dir() else []
            self._names[folder] = frozenset(entry.name for entry in entries)
        return path.name in self._names[folder]


def make_listing(
    source: Path,
    labels: Sequence[str],
    symmetry: Symmetry,
    annotated: Iterable[tuple[str, Example | None]],
    *,
    multi_label: bool = False,
) -> Listing:
    """Make a listing of the annotated examples that are on disk.

    Args:
        source: the annotation file, for messages.
        labels: names of the classes.
        symmetry: symmetry of the labels.
        annotated: the expected path of each annotated video, and its example, or None if it is missing.
        multi_label: whether a video may have several labels.

    Raises:
        BlvnetError: no annotated video is on disk.
    """
    examples: list[Example] = []
    missing: list[str] = []
    for path, example in annotated:
        if example is None:
            missing.append(path)
        else:
            examples.append(example)
    if not examples and missing:
        raise BlvnetError(f"{source}: none of its {len(missing)} videos exists; the first is {missing[0]}")
    if not examples:
        raise BlvnetError(f"{source} names no videos")
    return Listing(tuple(labels), tuple(examples), symmetry, missing=len(missing), multi_label=multi_label)


def _videos_and_folders(folder: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """The videos of a folder by name without suffix, and its subfolders by name."""
    videos, subfolders = {}, {}
    for entry in visible_entries(folder):
        if is_video(entry.name):
            videos[entry.name.rpartition(".")[0]] = folder / entry.name
        elif entry.is_dir():
            subfolders[entry.name] = folder / entry.name
    return videos, subfolders
