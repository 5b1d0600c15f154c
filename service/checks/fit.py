"""Start-up checks that the settings fit the limits of the machine or the container."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from service.machine.resources import resident_bytes, usable_memory_bytes
from service.pipeline.core_config import BYTES_PER_MB
from service.settings import Settings

# Pictures that a decoder holds: 16 references, and one for each of 4 threads and for 4 steps of the output.
PICTURES = 24
BYTES_PER_PIXEL = 1.5  # YUV 4:2:0 with 8 bits


def misfits(
    settings: Settings,
    workers: int,
    *,
    memory_bytes: int | None = None,
    used_bytes: int | None = None,
    uploads: Path | None = None,
) -> Iterator[str]:
    """Yield one line for each setting that does not fit, which says what to change.

    Args:
        settings: settings of the service.
        workers: number of decode workers.
        memory_bytes: memory limit; None for the limit of the control groups and the machine.
        used_bytes: memory in use, including the models; None for the memory of this process.
        uploads: folder for uploads; None for the folder for temporary files.
    """
    memory = usable_memory_bytes() if memory_bytes is None else memory_bytes
    used = resident_bytes() if used_bytes is None else used_bytes
    worker = min(
        settings.decode_memory_mb * BYTES_PER_MB, int(PICTURES * BYTES_PER_PIXEL * settings.max_pixels)
    )
    needed = used + workers * worker
    if needed > memory:
        yield (
            f"the memory limit of {_mb(memory)} MB is below the {_mb(used)} MB in use plus {_mb(worker)} MB "
            f"for the largest frames in each of {workers} decode workers: raise it to {_mb(needed)} MB, or "
            "lower BLVNET_DECODE_WORKERS or BLVNET_MAX_PIXELS"
        )
    folder = uploads or Path(tempfile.gettempdir())
    free = shutil.disk_usage(folder).free
    if free < settings.max_upload_bytes:
        yield (
            f"{folder} has {_mb(free)} MB free, less than one upload of {settings.max_upload_mb:g} MB: "
            "enlarge it, or lower BLVNET_MAX_UPLOAD_MB"
        )


def _mb(size_bytes: int) -> int:
    return round(size_bytes / BYTES_PER_MB)
