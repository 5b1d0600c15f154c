"""How a clip's decoding is spread over cores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Frame threads for each core. Each waits for the rows of another frame that its own refers to, so two to a
# core keep it busy: 1080p H.264 on 2 cores takes 567 ms with 1 thread, 440 with 2, 393 with 3, 379 with 4,
# and no less with more.
THREADS_PER_CORE = 2
# Of lanes and of threads, all told. Each holds frames of its own.
MOST_THREADS = 4
# Frames below half of 720p are decoded in little more time than it takes to keep frame threads in step: 48
# frames of 320x240 H.264 take 14.8 ms with one thread, and with three 14.3 and a third more processor time.
SMALL_PIXELS = 1280 * 720 // 2
# Not so in these: 48 frames of 427x240 take 21.9 ms with one thread and 19.4 with three (VP9), 23.0 and 18.0
# (VP8), for 15 % more processor time.
SHARED_WHEN_SMALL = frozenset({"vp8", "vp9"})
SMALL_THREADS = 3
# How much of the whole the most costly run may be, in even shares, for lanes to do without frame threads:
# at 1.0 of two even shares (1080p, groups of 30) lanes take 393 ms and lanes with frame threads 414; at 1.7
# (groups of 250 and 50 frames, no B-frames) it is 621 and 434.
MOST_UNEVEN = 1.4
# How often a small frame that is decoded must be scaled for a thread that scales to be worth its keep: at 32
# times for 34 frames a clip takes 13.4 ms and not 17, at 16 times 17.4 and not 14.8.
LEAST_SCALED = 0.6


@dataclass(frozen=True)
class Spread:
    """`lanes` decoders side by side, each with `threads` threads of its own; `aside`: scaling has one too."""

    lanes: int = 1
    threads: int = 1
    aside: bool = False


def spread(cores: int, pixels: int, costs: Sequence[int], codec: str, scaled: float) -> Spread:
    """How to decode runs of such `costs` on `cores` with nothing else to do.

    With one core, one thread: that takes the least processor time, so with a clip in work for every core it
    is the most clips a second. With more, lanes that share the runs out are best, since they do not wait
    for one another, with frame threads in each where the runs are too uneven. A single run of small frames
    gets a thread for scaling where that is much of the work, or frame threads where its codec gains by them.

    Args:
        cores: that may be kept busy.
        pixels: of a frame.
        costs: of the runs, in any unit.
        codec: its name.
        scaled: how often a frame that is decoded will be scaled, on average.
    """
    if cores < 2:
        return Spread()
    lanes = min(cores, MOST_THREADS, len(costs))
    small = pixels < SMALL_PIXELS
    if lanes > 1 and (small or max(costs) * lanes <= MOST_UNEVEN * sum(costs)):
        return Spread(lanes)
    if small and scaled >= LEAST_SCALED:
        return Spread(aside=True)
    if small:
        return Spread(threads=SMALL_THREADS if codec in SHARED_WHEN_SMALL else 1)
    return Spread(lanes, min(cores * THREADS_PER_CORE, MOST_THREADS) // lanes)
