"""The videos named by command-line arguments: files, folders, patterns, pipes and standard input."""

from __future__ import annotations

import glob
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from service.clip.decoding.formats import VIDEO_SUFFIXES
from service.errors import BlvnetError

STANDARD_INPUT = "-"


class NoVideos(BlvnetError):
    """An argument names no video."""

    exit_code = 2


@dataclass(frozen=True)
class NamedClip:
    """A video: its name in the output, and its file, which is None for standard input."""

    name: str
    path: Path | None


def find_clips(arguments: Iterable[str]) -> list[NamedClip]:
    """Return the videos for the arguments of a command, each once.

    A folder stands for all files in it, at any depth, with a video suffix. An argument with `*`, `?` or `[`
    that is not itself a file is a pattern, in which `**` stands for any number of folders.

    Raises:
        NoVideos: a folder or a pattern contains none.
    """
    found: dict[str, NamedClip] = {}
    for argument in arguments:
        if argument == STANDARD_INPUT:
            found[argument] = NamedClip("-", None)
            continue
        for path in _expanded(argument):
            found[str(path)] = NamedClip(str(path), path)
    return list(found.values())


def _expanded(argument: str) -> list[Path]:
    path = Path(argument)
    if path.is_dir():
        return _videos_in(path)
    if path.exists() or not glob.has_magic(argument):
        return [path]  # a missing file is reported as the error of this video
    matches = [Path(match) for match in sorted(glob.glob(argument, recursive=True))]  # noqa: PTH207
    files = [match for match in matches if match.is_file()]
    if not files:
        raise NoVideos(f"no file matches {argument!r}")
    return files


def _videos_in(folder: Path) -> list[Path]:
    """Return the videos in a folder, and its subfolders that cannot be read: these also become errors."""
    closed: list[Path] = []
    below = (
        Path(parent, name)
        for parent, _, names in os.walk(folder, onerror=lambda exc: closed.append(Path(exc.filename)))
        for name in names
    )
    found = [
        path
        for path in below
        if path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".") and path.is_file()
    ]
    videos = sorted([*found, *closed])
    if not videos:
        raise NoVideos(f"{folder}: no file in this folder has the suffix of a video, such as .mp4")
    return videos


class Pipes:
    """Copies of pipes in temporary files, because a video is read more than once."""

    def __init__(self) -> None:
        self._copies = ExitStack()

    def file_of(self, clip: NamedClip) -> Path:
        """The file of a video; the content of a pipe or of standard input is read to its end first."""
        if clip.path is not None and not _is_pipe(clip.path):
            return clip.path
        copy = self._copies.enter_context(tempfile.NamedTemporaryFile(prefix="blvnet-"))  # noqa: SIM115
        if clip.path is None:
            shutil.copyfileobj(sys.stdin.buffer, copy)
        else:
            with clip.path.open("rb") as pipe:
                shutil.copyfileobj(pipe, copy)
        copy.flush()
        return Path(copy.name)

    def close(self) -> None:
        """Delete the copies."""
        self._copies.close()


def _is_pipe(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:  # reported as the error of this video when it is opened
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


@contextmanager
def copied_pipes() -> Iterator[Pipes]:
    """A `Pipes` whose copies are deleted at the end of the block."""
    pipes = Pipes()
    try:
        yield pipes
    finally:
        pipes.close()
