"""A file of the corpus, and the small sound clip that most are made of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from tests.clips import numbered_clip

FRAMES = 12
SIZE = (96, 64)


@dataclass(frozen=True)
class Lure:
    """What the files name: an address with a listener, and the path of a secret file."""

    url: str
    path: str


@dataclass(frozen=True)
class Item:
    """A file. A valid one has its true number of frames and its size as coded."""

    category: str
    name: str
    data: bytes
    frames: int | None = None
    size: tuple[int, int] | None = None
    file_name: str | None = None


@cache
def base(container: str = "mp4", codec: str = "libx264", frames: int = FRAMES, **options: str) -> bytes:
    """A small sound clip to spoil."""
    return numbered_clip(frames=frames, container=container, codec=codec, options=options)
