"""Timestamps that are constant, decreasing, jumping, overflowing or missing."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction

import av

from tests.hostile.item import FRAMES, SIZE, Item, base

# The timestamp of packet n; None removes it.
CLOCKS: dict[str, Callable[[int], int | None]] = {
    "stands": lambda n: 0,
    "falls": lambda n: 1000 - n,
    "leaps-up": lambda n: n if n < 6 else 2**31 + n,
    "leaps-down": lambda n: 2**31 + n if n < 6 else n,
    "sawtooth": lambda n: n % 3,
    "far-below": lambda n: n - 2**40,
    "far-above": lambda n: n + 2**50,
    "missing": lambda n: None,
    "half-missing": lambda n: n if n % 2 else None,
    "first-missing": lambda n: n or None,
    "last-far": lambda n: n if n < FRAMES - 1 else 10**9,
    "pairs": lambda n: n // 2,
}
# Longer than the limit, in containers that can express it.
TOO_LONG = {"leaps-up", "leaps-down", "last-far"}


def clocks() -> Iterator[Item]:
    """Each kind in every container whose muxer accepts it; no frames are missing."""
    for container, codec in (
        ("matroska", "libvpx"),
        ("mp4", "libx264"),
        ("mpegts", "libx264"),
        ("flv", "libx264"),
    ):
        source = {"matroska": "webm"}.get(container, "mp4")
        for name, clock in CLOCKS.items():
            with suppress(av.FFmpegError):  # rejected by the muxer
                data = retimed(base(source, codec, bf="0"), clock, container)
                frames = None if name in TOO_LONG else FRAMES
                yield Item("clock", f"{container}-{name}", data, frames)


def retimed(data: bytes, clock: Callable[[int], int | None], container: str) -> bytes:
    """Remux a video with other timestamps, in units of 1/25 s."""
    file = io.BytesIO()
    with (
        av.open(io.BytesIO(data), "r") as source,
        av.open(file, "w", format=container, options={"avoid_negative_ts": "disabled"}) as target,
    ):
        template = source.streams.video[0]
        stream = target.add_stream_from_template(template)
        for number, packet in enumerate(packet for packet in source.demux(template) if packet.size):
            copy = av.Packet(bytes(memoryview(packet)))
            copy.stream, copy.time_base, copy.is_keyframe = stream, Fraction(1, 25), packet.is_keyframe
            copy.pts = copy.dts = clock(number)
            target.mux(copy)
    return file.getvalue()


def restarted() -> Iterator[Item]:
    """A transport stream that restarts, including its clock; no frames are missing."""
    for times in (2, 3):
        yield Item("valid", f"times-begin-again-{times}", base("ts") * times, times * FRAMES, SIZE)
