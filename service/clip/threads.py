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
# Frames below half of 720p are decoded in less time than it takes to keep frame threads in step: 340x256
# takes 46 ms of a core's time with one thread and 61 with four, to be ready 3 ms earlier.
SMALL_PIXELS = 1280 * 720 // 2
# How much of the whole the most costly run may be, in even shares, for lanes to do without frame threads:
# at 1.0 of two even shares (1080p, groups of 30) lanes take 393 ms and lanes with frame threads 414; at 1.7
# (groups of 250 and 50 frames, no B-frames) it is 621 and 434.
MOST_UNEVEN = 1.4
# How many of the small frames that are decoded must be wanted for a thread that scales to be worth its
# keep: at 16 of 34 it takes 16 ms and not 19, at 16 of 149 it gains nothing and costs 7 ms of processor
# time.
LEAST_WANTED = 0.25


@dataclass(frozen=True)
class Spread:
    """`lanes` decoders side by side, each with `threads` threads of its own; `aside`: scaling has one too."""

    lanes: int = 1
    threads: int = 1
    aside: bool = False


def spread(cores: int, pixels: int, costs: Sequence[int], wanted: float = 0.0) -> Spread:
    """How to decode runs of such `costs` on `cores` with nothing else to do.

    With one core, one thread: that takes the least processor time, so with a clip in work for every core it
    is the most clips a second. With more, lanes that share the runs out are best, since they do not wait
    for one another, with frame threads in each where the runs are too uneven. A single run of small frames
    just gets a thread for scaling, which there is up to a third of the work.

    Args:
        cores: that may be kept busy.
        pixels: of a frame.
        costs: of the runs, in any unit.
        wanted: the part of the frames to decode that will be scaled.
    """
    if cores < 2:
        return Spread()
    lanes = min(cores, MOST_THREADS, len(costs))
    small = pixels < SMALL_PIXELS
    if lanes > 1 and (small or max(costs) * lanes <= MOST_UNEVEN * sum(costs)):
        return Spread(lanes)
    if small:
        return Spread(aside=wanted >= LEAST_WANTED)
    return Spread(lanes, min(cores * THREADS_PER_CORE, MOST_THREADS) // lanes)
