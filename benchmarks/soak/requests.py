"""The kinds of requests of a soak, with the expected answer of each."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from benchmarks.decode.videos import make
from benchmarks.serving_race.videos import KINDS, SHORT

MAX_UPLOAD_BYTES = 2_000_000
GOOD_CLIPS = 3
OCTETS = "application/octet-stream"
VALID, DISCONNECT = "good", "hang-up"
SAMPLE_RATE = 48_000


@dataclass(frozen=True)
class Post:
    """One kind of request.

    Attributes:
        name: name of the kind.
        expected: expected status and problem code; empty for clients that disconnect.
        share: share of all requests.
        bodies: possible bodies.
        media_type: value of the Content-Type header.
    """

    name: str
    expected: str
    share: float
    bodies: tuple[bytes, ...]
    media_type: str = OCTETS


def posts(folder: Path, seed: int = 1) -> list[Post]:
    """All kinds of requests; generates the videos in `folder`."""
    good = good_clips(folder)
    draw = random.Random(seed)
    return [
        Post(VALID, "200", 0.70, good),
        Post("truncated", "422 undecodable", 0.05, tuple(clip[: len(clip) // 2] for clip in good)),
        Post("garbage", "415 not_a_video", 0.05, tuple(draw.randbytes(50_000) for _ in range(3))),
        Post("audio only", "415 not_a_video", 0.05, (audio_only(),)),
        Post("wrong type", "415 not_a_video", 0.05, good, "text/plain"),
        Post("too large", "413 too_large", 0.05, (bytes(MAX_UPLOAD_BYTES + 500_000),)),
        Post(DISCONNECT, "", 0.05, good),
    ]


def good_clips(folder: Path) -> tuple[bytes, ...]:
    """Different videos of four seconds at 320x240."""
    recipes = [replace(KINDS[SHORT], name=f"soak-{seed}", seed=seed) for seed in range(1, GOOD_CLIPS + 1)]
    return tuple(make(recipe, folder).read_bytes() for recipe in recipes)


def audio_only(seconds: int = 2) -> bytes:
    """An mp4 with an audio track only."""
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
