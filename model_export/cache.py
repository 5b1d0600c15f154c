"""Clips decoded once and kept as arrays, so that an epoch reads pixels instead of videos.

    CACHE/DIGEST/NAME.npy     one per input, uint8 (clips, phases, T, size, size, 3); mapped, not loaded
    CACHE/DIGEST/index.json   what is inside, and which files could not be read

DIGEST covers the list of files, their sizes and modification times, and the clip specification: a cache of
other data or other sizes is never mistaken for this one. Of a folder of pictures the folder's own time
counts, which changes as pictures come and go. A cache is built beside its place and moved there when it is
whole.
"""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pebble import ProcessExpired, ProcessPool

from model_export.datasets import Clip
from model_export.reading import read_clip
from service.clip.spec import ClipSpec, Frames
from service.errors import BlvnetError
from service.manifest import inputs_to_json

FORMAT = 1
INDEX_FILE = "index.json"
DECODE_TIMEOUT_S = 120.0

Pixels = npt.NDArray[np.uint8]
Tick = Callable[[int], None]


@dataclass(frozen=True)
class Unreadable:
    """A file that gave no clip, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class ClipCache:
    """For each input uint8 `(clips, phases, T, size, size, 3)`, clips in the order of the clips given."""

    arrays: tuple[Pixels, ...]
    unreadable: tuple[Unreadable, ...]


def all_frames(spec: ClipSpec) -> ClipSpec:
    """`spec` with every input receiving all T frames: what a clip needs to be played backwards."""
    return replace(spec, inputs=tuple(replace(item, frames=Frames.ALL) for item in spec.inputs))


def open_cache(
    clips: Sequence[Clip], spec: ClipSpec, phases: int, folder: Path, *, jobs: int, tick: Tick
) -> ClipCache:
    """Map the cache of these clips below `folder`, building it first where there is none.

    Args:
        clips: their files, or folders of pictures; labels do not count.
        spec: the clip; its inputs are cached at all T frames.
        phases: samplings per clip, evenly spread within the segments.
        folder: where caches are kept.
        jobs: processes to decode with.
        tick: called with 1 after each file while building.

    Raises:
        BlvnetError: no clip can be read, or the disk has no room for them.
    """
    wide = all_frames(spec)
    key = _description(clips, wide, phases)
    place = folder / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:20]
    if not place.exists():
        _build(clips, wide, phases, place, jobs=jobs, tick=tick)
    return _open(place, wide)


def _description(clips: Sequence[Clip], spec: ClipSpec, phases: int) -> dict[str, Any]:
    resolved = {folder: folder.resolve() for folder in {clip.path.parent for clip in clips}}
    return {
        "format": FORMAT,
        "frames": spec.frames,
        "sampling": spec.sampling.value,
        "stride": spec.stride,
        "inputs": inputs_to_json(spec),
        "phases": phases,
        "files": [_file(clip, resolved[clip.path.parent]) for clip in clips],
    }


def _file(clip: Clip, folder: Path) -> list[str | int]:
    stat = clip.path.stat()
    return [str(folder / clip.path.name), stat.st_size, stat.st_mtime_ns, *(clip.span or ())]


def _open(place: Path, spec: ClipSpec) -> ClipCache:
    index = json.loads((place / INDEX_FILE).read_text(encoding="utf-8"))
    arrays = tuple(np.load(place / f"{item.name}.npy", mmap_mode="r") for item in spec.inputs)
    return ClipCache(arrays, tuple(Unreadable(Path(path), reason) for path, reason in index["unreadable"]))


def _build(clips: Sequence[Clip], spec: ClipSpec, phases: int, place: Path, *, jobs: int, tick: Tick) -> None:
    partial = place.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _check_room(
        len(clips) * phases * sum(math.prod(item.shape(spec.frames)) for item in spec.inputs), partial
    )
    for item in spec.inputs:
        shape = (len(clips), phases, *item.shape(spec.frames))
        np.lib.format.open_memmap(partial / f"{item.name}.npy", mode="w+", dtype=np.uint8, shape=shape)
    unreadable = _fill(clips, spec, phases, partial, jobs=jobs, tick=tick)
    if len(unreadable) == len(clips):
        raise BlvnetError(f"none of {len(clips)} files can be read; the first: {unreadable[0].reason}")
    index = {"unreadable": [[str(item.path), item.reason] for item in unreadable]}
    (partial / INDEX_FILE).write_text(json.dumps(index, indent=1), encoding="utf-8")
    partial.rename(place)


def _check_room(needed: int, folder: Path) -> None:
    """Mapped files that outgrow the disk would end the process without a word."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        folder.rmdir()
        raise BlvnetError(
            f"a cache of these clips takes {needed / 1e9:.1f} GB, {folder.parent} has {free / 1e9:.1f} GB: "
            "train with --no-cached, or give another --cache"
        )


def _fill(
    clips: Sequence[Clip], spec: ClipSpec, phases: int, folder: Path, *, jobs: int, tick: Tick
) -> list[Unreadable]:
    """Decode every file in its own slot; a file that kills its worker costs only itself."""
    context = multiprocessing.get_context("forkserver")
    unreadable = []
    with ProcessPool(max_workers=jobs, context=context) as pool:
        futures = [
            pool.schedule(_decode_into, args=(clip, index, spec, phases, folder), timeout=DECODE_TIMEOUT_S)
            for index, clip in enumerate(clips)
        ]
        try:
            for clip, future in zip(clips, futures, strict=True):
                try:
                    future.result()
                except (BlvnetError, OSError, TimeoutError, ProcessExpired) as exc:
                    unreadable.append(Unreadable(clip.path, f"{type(exc).__name__}: {exc}"))
                tick(1)
        except BaseException:
            # An interrupt must not wait for thousands of scheduled files.
            pool.stop()  # type: ignore[no-untyped-call]
            raise
    return unreadable


def _decode_into(clip: Clip, index: int, spec: ClipSpec, phases: int, folder: Path) -> None:
    inputs = read_clip(clip, spec, clips=phases)
    for item in spec.inputs:
        array = np.lib.format.open_memmap(folder / f"{item.name}.npy", mode="r+")
        array[index] = inputs[item.name]
