"""What figures were measured on."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from service.pipeline.cores import usable_cores

CPUINFO = Path("/proc/cpuinfo")


def machine(libraries: Iterable[str]) -> dict[str, Any]:
    """The processor, its usable cores, a GPU, and the versions of Python and of those libraries."""
    return {
        "cpu": _cpu_model(),
        "cores": usable_cores(),
        **({"gpu": gpu} if (gpu := _gpu_model()) else {}),
        "python": platform.python_version(),
        **{name: found for name in libraries if (found := _version(name)) is not None},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _gpu_model() -> str | None:
    """Name and driver of the first NVIDIA GPU."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    command = [tool, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - nothing of a caller's
    lines = found.stdout.splitlines()
    return f"{lines[0].replace(', ', ', driver ')}" if found.returncode == 0 and lines else None


def _cpu_model() -> str:
    lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
