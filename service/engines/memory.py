"""Returning memory that engines no longer need to the operating system."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable

KEEP_S = 10.0


def return_freed_memory() -> None:
    """Make glibc return freed memory to the operating system. Does nothing with other C libraries.

    An engine parses the file, copies the weights into its own layouts and frees the rest, but glibc keeps the
    freed pages: for the 50-layer network 1.5 times the size of its weights.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class ShrinkPolicy:
    """Decides when a session returns the memory of large batches.

    Engines keep the tensors of the largest batch that they have run. Freeing them slows down the next run, so
    they are kept until a smaller batch arrives at least `KEEP_S` after the last large one.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._largest = 0
        self._last_s = 0.0

    def should_shrink(self, rows: int) -> bool:
        """Record a batch of `rows` that is about to run; return whether to free memory with it."""
        with self._lock:
            now_s = self._clock()
            large = rows >= self._largest
            shrink = not large and now_s - self._last_s >= KEEP_S
            if large or shrink:
                self._largest, self._last_s = rows, now_s
            return shrink
