"""What `auto` chose last time, kept in a cache folder, one small file for each package and machine.

A choice is remembered under everything that could change it. A file that cannot be read, or says something
else, is as good as none: the choice is then made again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CPU_INFO = Path("/proc/cpuinfo")
GPU_INFO = Path("/proc/driver/nvidia/gpus")
# What tells one model of processor from another, on x86 and on ARM.
CPU_FIELDS = (
    "vendor_id", "cpu family", "model", "model name", "stepping", "flags",
    "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "Features",
)  # fmt: skip

logger = logging.getLogger(__name__)

Key = Mapping[str, Any]


@dataclass(frozen=True)
class Remembered:
    """The candidate that was chosen, and how long one clip took on each, in milliseconds."""

    candidate: str
    measured_ms: Mapping[str, float]


def recall(folder: Path | None, key: Key) -> Remembered | None:
    """What was chosen under this key; None where nothing was, or it cannot be read."""
    if folder is None:
        return None
    try:
        document = json.loads(_file(folder, key).read_text(encoding="utf-8"))
        if document["key"] != dict(key):
            return None
        measured_ms = {str(name): float(value) for name, value in document["measured_ms"].items()}
        return Remembered(str(document["candidate"]), measured_ms)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        logger.debug("a remembered choice cannot be read: %r", exc)
        return None


def remember(folder: Path | None, key: Key, choice: Remembered) -> None:
    """Keep a choice; where that cannot be done, the next start measures again."""
    if folder is None:
        return
    document = {"key": dict(key), "candidate": choice.candidate, "measured_ms": dict(choice.measured_ms)}
    path = _file(folder, key)
    stage = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stage.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        stage.replace(path)  # a reader sees all of it or nothing
    except OSError as exc:
        logger.debug("the choice cannot be remembered: %s", exc)
        with suppress(OSError):
            stage.unlink()


def machine_key() -> dict[str, str]:
    """What of this machine decides how fast an engine is, but for the number of its cores."""
    return {"cpu": _digest(_cpu()), "gpus": " ".join(_gpus())}


def default_cache_dir() -> Path:
    """`blvnet-serve` in the user's cache folder, as the XDG base directory specification has it."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if Path(base).is_absolute() else Path("~/.cache").expanduser()
    return root / "blvnet-serve"


def _file(folder: Path, key: Key) -> Path:
    return folder / "choices" / f"{_digest(json.dumps(dict(key), sort_keys=True))}.json"


def _cpu() -> str:
    """Model and instructions of the first processor; of the platform, where /proc does not say."""
    try:
        first = CPU_INFO.read_text(encoding="utf-8").partition("\n\n")[0]
    except OSError:
        return platform.machine()
    fields = (line.partition(":") for line in first.splitlines())
    return "\n".join(f"{name.strip()}:{value}" for name, _, value in fields if name.strip() in CPU_FIELDS)


def _gpus() -> list[str]:
    """Models of NVIDIA's GPUs, as its driver lists them."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(GPU_INFO.glob("*/information"))]
    return [line.partition(":")[2].strip() for text in texts for line in text.splitlines()[:1]]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
