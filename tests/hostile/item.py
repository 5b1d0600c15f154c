"""A file of the corpus, and the small valid video that most files are derived from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from tests.support.clips import numbered_clip

FRAMES = 12
SIZE = (96, 64)


@dataclass(frozen=True)
class Lure:
    """Targets of the references in files: the address of a listener and the path of a secret."""

    url: str
    path: str


@dataclass(frozen=True)
class Item:
    """A file; valid files have the expected number of frames and coded size."""

    category: str
    name: str
    data: bytes
    frames: int | None = None
    size: tuple[int, int] | None = None
    file_name: str | None = None


@cache
def base(container: str = "mp4", codec: str = "libx264", frames: int = FRAMES, **options: str) -> bytes:
    """A small valid video."""
    return numbered_clip(frames=frames, container=container, codec=codec, options=options)
