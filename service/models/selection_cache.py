"""Cache of engine selections: one small JSON file for each package, machine and set of engines.

An entry that cannot be read or was stored under another key counts as missing, and the selection is repeated.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from service.packages.files import atomic_write
from service.packages.folders import open_regular

MAX_ENTRY_BYTES = 1_000_000
CPU_INFO = Path("/proc/cpuinfo")
GPU_INFO = Path("/proc/driver/nvidia/gpus")
# Fields that identify a processor model on x86 and ARM.
CPU_FIELDS = (
    "vendor_id", "cpu family", "model", "model name", "stepping", "flags",
    "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "Features",
)  # fmt: skip

logger = logging.getLogger(__name__)

Key = Mapping[str, Any]


class CachedSelection(BaseModel):
    """The selected candidate, and milliseconds that a clip took on each candidate, stored under a key."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)

    key: dict[str, Any]
    candidate: str
    measured_ms: dict[str, float]


def read_selection(folder: Path | None, key: Key) -> CachedSelection | None:
    """Return the selection stored under `key`, if there is one."""
    if folder is None:
        return None
    try:
        with open_regular(_path(folder, key)) as file:
            selection = CachedSelection.model_validate_json(file.read(MAX_ENTRY_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValidationError) as exc:
        logger.warning("a cached engine selection cannot be read and is ignored: %s", exc)
        return None
    return selection if selection.key == dict(key) else None


def write_selection(folder: Path | None, selection: CachedSelection) -> None:
    """Store a selection. If that fails, the next start measures again."""
    if folder is None:
        return
    path = _path(folder, selection.key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(selection.model_dump_json(indent=2).encode() + b"\n")
    except OSError as exc:
        logger.debug("an engine selection cannot be cached: %s", exc)


def machine_key() -> dict[str, str]:
    """Return what determines the speed of engines on this machine, apart from the number of cores."""
    gpu_files = sorted(GPU_INFO.glob("*/information"))
    gpus = [_read(path).partition("\n")[0].partition(":")[2].strip() for path in gpu_files]
    first_cpu = _read(CPU_INFO).partition("\n\n")[0]
    fields = (line.partition(":") for line in first_cpu.splitlines())
    cpu = "\n".join(f"{name.strip()}:{value}" for name, _, value in fields if name.strip() in CPU_FIELDS)
    return {"cpu": _digest(cpu or platform.machine()), "gpus": " ".join(gpus)}


def default_cache_dir() -> Path | None:
    """`blvnet-serve` in the user's cache folder (XDG base directories); None for users without a home."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():
        try:
            base = Path.home() / ".cache"
        except RuntimeError:  # neither HOME nor an entry in the user database, as in some containers
            return None
    return base / "blvnet-serve"


def _path(folder: Path, key: Key) -> Path:
    return folder / "selections" / f"{_digest(json.dumps(dict(key), sort_keys=True))}.json"


def _read(path: Path) -> str:
    """Return the text of a file of /proc; empty if it does not exist."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
