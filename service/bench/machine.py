"""What figures were measured on."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from service.cores import usable_cores

CPUINFO = Path("/proc/cpuinfo")


def machine(libraries: Iterable[str]) -> dict[str, Any]:
    """The processor, its usable cores, and the versions of Python and of those libraries that are there."""
    return {
        "cpu": _cpu_model(),
        "cores": usable_cores(),
        "python": platform.python_version(),
        **{name: found for name in libraries if (found := _version(name)) is not None},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_model() -> str:
    lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
