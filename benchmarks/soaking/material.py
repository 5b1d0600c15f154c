"""What the callers of a soak post, and what each of it deserves."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from benchmarks.decode_clips import make
from benchmarks.race.material import KINDS, SHORT

MAX_UPLOAD_BYTES = 2_000_000
GOOD_CLIPS = 3
OCTETS = "application/octet-stream"
GOOD, HANG_UP = "good", "hang-up"
SAMPLE_RATE = 48_000


@dataclass(frozen=True)
class Post:
    """One kind of request.

    Attributes:
        name: of the kind.
        deserves: the answer's status, and the code of its problem; for a caller who hangs up any will do.
        share: of all requests.
        bodies: one of them is sent.
        media_type: that it is said to be.
    """

    name: str
    deserves: str
    share: float
    bodies: tuple[bytes, ...]
    media_type: str = OCTETS


def posts(folder: Path, seed: int = 1) -> list[Post]:
    """All kinds; clips are made in `folder`."""
    good = good_clips(folder)
    draw = random.Random(seed)
    return [
        Post(GOOD, "200", 0.70, good),
        Post("truncated", "422 undecodable", 0.05, tuple(clip[: len(clip) // 2] for clip in good)),
        Post("garbage", "415 not_a_video", 0.05, tuple(draw.randbytes(50_000) for _ in range(3))),
        Post("audio only", "415 not_a_video", 0.05, (audio_only(),)),
        Post("wrong type", "415 not_a_video", 0.05, good, "text/plain"),
        Post("too large", "413 too_large", 0.05, (bytes(MAX_UPLOAD_BYTES + 500_000),)),
        Post(HANG_UP, "", 0.05, good),
    ]


def good_clips(folder: Path) -> tuple[bytes, ...]:
    """Clips of four seconds, 320x240; each is a picture of its own."""
    recipes = [replace(KINDS[SHORT], name=f"soak-{seed}", seed=seed) for seed in range(1, GOOD_CLIPS + 1)]
    return tuple(make(recipe, folder).read_bytes() for recipe in recipes)


def audio_only(seconds: int = 2) -> bytes:
    """An mp4 with a sound track and no picture."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=SAMPLE_RATE)
        for start in range(0, seconds * SAMPLE_RATE, 1024):
            times = np.arange(start, start + 1024) / SAMPLE_RATE
            tone = np.sin(2 * np.pi * 440 * times).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(tone[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()
