"""Damaged versions of valid videos."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import suppress

import av

from tests.hostile.boxes import boxes
from tests.hostile.item import FRAMES, Item, base
from tests.hostile.sound import with_flags
from tests.support.clips import remuxed

SPOILT = (("mp4", "libx264"), ("mkv", "libx264"), ("webm", "libvpx-vp9"), ("avi", "mpeg4"), ("ts", "libx264"),
          ("flv", "libx264"), ("mp4", "libx265"), ("mkv", "libsvtav1"), ("webm", "libvpx"))  # fmt: skip


def truncated() -> Iterator[Item]:
    """Truncated at every box of an mp4, and at several offsets of other containers."""
    data = base(bf="2")
    for start, end, kind in boxes(data):
        name = kind.decode("latin-1")
        yield Item("truncated", f"mp4-in-{name}-{start}", data[: (start + end) // 2])
        yield Item("truncated", f"mp4-behind-{name}-{end}", data[:end])
    for container, codec in SPOILT[1:]:
        data = base(container, codec)
        for part in (1, 5, 20, 50, 90, 99):
            yield Item("truncated", f"{container}-{codec}-{part}", data[: len(data) * part // 100])
    front = with_flags("faststart")
    for part in (60, 80, 95):
        yield Item("truncated", f"index-first-{part}", front[: len(front) * part // 100])


def flipped() -> Iterator[Item]:
    """A few changed bytes."""
    for container, codec in SPOILT:
        for seed in range(8):
            generator = random.Random(seed)
            data = bytearray(base(container, codec))
            for _ in range(2**seed):
                data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
            yield Item("flipped", f"{container}-{codec}-{2**seed}", bytes(data))


def damaged_packets() -> Iterator[Item]:
    """Valid containers with damaged packets."""
    for container, codec in (
        ("mkv", "libx264"),
        ("mkv", "libx265"),
        ("webm", "libvpx"),
        ("webm", "libvpx-vp9"),
        ("mkv", "mpeg4"),
        ("mkv", "ffv1"),
    ):
        data, muxer = base(container, codec), {"mkv": "matroska"}.get(container, container)
        changes: dict[str, Callable[[int, bytearray], bytearray | None]] = {
            "empty": lambda index, body: body if index % 2 else body[:1],
            "zeros": lambda index, body: body if index % 3 else bytearray(len(body)),
            "ones": lambda index, body: body if index % 3 else bytearray(b"\xff" * len(body)),
            "halves": lambda _, body: body[: len(body) // 2 + 1],
            "doubled": lambda _, body: body + body,
            "first-missing": lambda index, body: body if index else None,
            "last-only": lambda index, body: body if index == FRAMES - 1 else None,
        }
        for name, change in changes.items():
            with suppress(av.FFmpegError):  # some muxers validate their input
                yield Item("packets", f"{codec}-{name}", remuxed(data, change, muxer))
