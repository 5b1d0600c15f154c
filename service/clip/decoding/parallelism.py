"""Decide how decoding uses the available cores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Frame threads per core. Each waits for rows of the frame it refers to, so two per core keep it busy: 1080p
# H.264 on 2 cores takes 567 ms with 1 thread, 440 ms with 2, 393 ms with 3, 379 ms with 4, and no less with
# more.
THREADS_PER_CORE = 2
# Decoders times frame threads. Each holds frames in memory.
MAX_THREADS = 4
# Below half of 720p, synchronising frame threads costs about what they gain: 48 frames of 320x240 H.264 take
# 14.8 ms with one thread, and 14.3 ms with three for a third more CPU time.
SMALL_PIXELS = 1280 * 720 // 2
# Codecs that still gain: 48 frames of 427x240 take 21.9 ms with one thread and 19.4 ms with three (VP9), 200
# frames of 640x360 177 ms and 122 ms (Theora), for up to 15 % more CPU time.
THREADED_WHEN_SMALL = frozenset({"theora", "vp9"})
# FFmpeg conceals damage in VP8 without an error, and with frame threads the concealed pixels differ.
NEVER_THREADED = frozenset({"vp8"})
SMALL_THREADS = 3
# The largest cost of a run, in even shares of the total, at which decoders need no frame threads. At 1.0 of
# two even shares (1080p, groups of 30) decoders take 393 ms and with frame threads 414 ms; at 1.7 (groups of
# 250 and 50 frames, no B-frames) 621 ms and 434 ms.
MAX_IMBALANCE = 1.4
# Scalings per decoded small frame above which a scaling thread pays: at 32 scalings for 34 frames a video
# takes 13.4 ms instead of 17 ms, at 16 scalings 17.4 ms instead of 14.8 ms.
MIN_SCALINGS = 0.6


@dataclass(frozen=True)
class Parallelism:
    """How to decode a video: with `decoders` concurrent decoders and `threads` frame threads each.

    With `scaling_thread`, frames are scaled in a separate thread.
    """

    decoders: int = 1
    threads: int = 1
    scaling_thread: bool = False


def choose_parallelism(
    cores: int, pixels: int, costs: Sequence[int], codec: str, scalings: float
) -> Parallelism:
    """Choose how to decode runs on `cores` otherwise idle cores.

    A single core gets one thread: this takes the least CPU time, and so gives the most videos per second when
    every core decodes one. On several cores, decoders that share the runs are fastest because they do not
    wait for each other; they also get frame threads if the runs are too uneven. A single run of small frames
    gets a scaling thread if scaling is much of the work, or frame threads if its codec gains from them. The
    frames must not depend on the choice, so codecs of `NEVER_THREADED` get no frame threads.

    Args:
        cores: Number of cores that may be kept busy.
        pixels: Pixels of a frame.
        costs: Costs of the runs in any unit.
        codec: Name of the codec.
        scalings: Mean number of times that a decoded frame is scaled.
    """
    if cores < 2:
        return Parallelism()
    decoders = min(cores, MAX_THREADS, len(costs))
    small = pixels < SMALL_PIXELS
    if decoders > 1 and (small or max(costs) * decoders <= MAX_IMBALANCE * sum(costs)):
        return Parallelism(decoders)
    if small and scalings >= MIN_SCALINGS:
        return Parallelism(scaling_thread=True)
    if small:
        return Parallelism(threads=SMALL_THREADS if codec in THREADED_WHEN_SMALL else 1)
    if codec in NEVER_THREADED:
        return Parallelism(decoders)
    return Parallelism(decoders, min(cores * THREADS_PER_CORE, MAX_THREADS) // decoders)
