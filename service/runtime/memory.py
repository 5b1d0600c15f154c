"""Memory that an engine no longer needs, given back to the machine."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable

KEPT_S = 10.0


def return_freed_memory() -> None:
    """Let the C library give back what was freed, where it can.

    An engine parses the file, copies the weights into its own layouts and frees the rest; glibc keeps what
    was freed for later. For the 50-layer network that is 1.5 times its weights.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class Growth:
    """Tells when a session holds memory for batches that have not come for a while.

    Engines keep the tensors of the largest batch that they ever ran. To give that back costs the next run
    some time, so it waits until a smaller batch comes long after the last large one.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._largest = 0
        self._last_s = 0.0

    def over(self, rows: int) -> bool:
        """A batch of `rows` is about to run: whether to give memory back with it."""
        with self._lock:
            now_s = self._clock()
            large = rows >= self._largest
            over = not large and now_s - self._last_s >= KEPT_S
            if large or over:
                self._largest, self._last_s = rows, now_s
            return over
