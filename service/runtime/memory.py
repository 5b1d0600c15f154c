"""Memory that an engine has freed, given back to the machine."""

from __future__ import annotations

import ctypes


def return_freed_memory() -> None:
    """Let the C library give back what was freed, where it can.

    An engine parses the file, copies the weights into its own layouts and frees the rest; glibc keeps what
    was freed for later. For the 50-layer network that is 1.5 times its weights.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
