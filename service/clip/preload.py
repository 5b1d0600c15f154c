"""Loads everything that decoding may load later, for a process that will not be allowed to open files.

Some of PyAV's modules are imported on first use only, in the middle of a clip.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

import av

ALSO = ("service.clip.decode", "service.clip.timeline", "encodings.ascii", "encodings.latin_1")
NOT_FOR_DECODING = ("av.__main__", "av.datasets")


def preload() -> None:
    """Import it all."""
    for name in (*ALSO, *(module.name for module in pkgutil.walk_packages(av.__path__, "av."))):
        if name not in NOT_FOR_DECODING:
            import_module(name)


preload()
