"""How a clip's decoding is spread over cores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Frame threads for each core. Each waits for the rows of another frame that its own refers to, so two to a
# core keep it busy: 1080p H.264 on 2 cores takes 567 ms with 1 thread, 440 with 2, 393 with 3, 379 with 4.
THREADS_PER_CORE = 2
# More gained nothing on any clip, and each holds frames of its own.
MOST_THREADS = 4
MOST_LANES = 4
# Frames below half of 720p are decoded in less time than it takes to keep frame threads in step: 340x256
# takes 46 ms of a core's time with one thread and 61 with four, to be ready 3 ms earlier.
SMALL_PIXELS = 1280 * 720 // 2
# How much of the whole the most costly run may be, of an even share, for decoders side by side to be the
# quicker way: at 1.3 of 2 cores' share they are ahead, at 1.7 (a group of 250 frames and one of 50) frame
# threads are.
MOST_UNEVEN = 1.4


@dataclass(frozen=True)
class Spread:
    """`lanes` decoders side by side, each with `threads` threads of its own; `aside`: scaling has one too."""

    lanes: int = 1
    threads: int = 1
    aside: bool = False


def spread(cores: int, pixels: int, costs: Sequence[int]) -> Spread:
    """How to decode runs of such `costs`, on frames of so many `pixels`, on `cores` with nothing else to do.

    With one core, one thread: that takes the least processor time, so with a clip in work for every core it
    is the most clips a second. With more, decoders that share the runs out are best, since they do not wait
    for one another; frame threads where the runs are too uneven; and for small frames just a thread for
    scaling, which there is a third of the work.
    """
    if cores < 2:
        return Spread()
    lanes = min(cores, MOST_LANES, len(costs))
    if lanes > 1 and max(costs) * lanes <= MOST_UNEVEN * sum(costs):
        return Spread(lanes)
    if pixels < SMALL_PIXELS:
        return Spread(aside=True)
    return Spread(threads=min(cores * THREADS_PER_CORE, MOST_THREADS))
