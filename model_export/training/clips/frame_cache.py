"""Examples decoded once and kept as arrays, so that an epoch reads pixels instead of videos.

    CACHE/DIGEST/NAME.npy     one for each input, uint8 (examples, phases, T, size, size, 3); memory-mapped
    CACHE/DIGEST/index.json   the examples that could not be read

DIGEST covers the list of files, their sizes and modification times, and the clip specification, so the cache
of other data or other sizes is never used. For a folder of pictures the folder's own modification time
counts, which changes when a picture is added or removed. A cache is built in a temporary folder next to its
own, which is then renamed. Runs that need the same cache at the same time wait for the one that builds it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pebble import ProcessExpired, ProcessPool

from model_export.datasets import Example
from model_export.datasets.reading import Unreadable, read_views
from service.clip.spec import ClipSpec, Frames
from service.errors import BlvnetError
from service.packages.manifest import inputs_to_json

FORMAT = 2
INDEX_FILE = "index.json"
DECODE_TIMEOUT_S = 120.0

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class FrameCache:
    """Decoded frames.

    Attributes:
        arrays: for each input uint8 `(examples, phases, T, size, size, 3)`, in the examples' order.
        rows: the examples that could be read.
        unreadable: the others, whose frames are black.
    """

    arrays: tuple[Pixels, ...]
    rows: tuple[int, ...]
    unreadable: tuple[Unreadable, ...]


def all_frames(spec: ClipSpec) -> ClipSpec:
    """Return `spec` with all T frames for every input, which are needed to play a clip backwards."""
    return replace(spec, inputs=tuple(replace(item, frames=Frames.ALL) for item in spec.inputs))


def open_cache(
    examples: Sequence[Example],
    spec: ClipSpec,
    phases: int,
    folder: Path,
    *,
    jobs: int,
    advance: Callable[[int], None],
) -> FrameCache:
    """Open the cache of these examples in `folder`; build it if there is none.

    Args:
        examples: videos or folders of pictures; their labels do not matter.
        spec: the network's clip; all T frames are cached for each input.
        phases: clips for each example, at evenly spread temporal offsets.
        folder: the folder of all caches.
        jobs: decoding processes.
        advance: called with 1 for each example decoded.

    Raises:
        BlvnetError: no example can be read, or the disk is too small.
    """
    spec = all_frames(spec)
    # Each folder is resolved once: on a network file system a million calls take minutes.
    resolved = {parent: parent.resolve() for parent in {example.path.parent for example in examples}}
    files: list[list[str | int]] = []
    for example in examples:
        path = str(resolved[example.path.parent] / example.path.name)
        files.append([path, *_version(example.path), *(example.span or ())])
    key = {
        "format": FORMAT,
        "frames": spec.frames,
        "sampling": spec.sampling.value,
        "stride": spec.stride,
        "inputs": inputs_to_json(spec),
        "phases": phases,
        "files": files,
    }
    place = folder / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:20]
    if not place.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(place.with_suffix(".lock")):
            if not place.exists():  # another run may have built it meanwhile
                _build(examples, spec, phases, place, jobs=jobs, advance=advance)
    reasons = dict(json.loads((place / INDEX_FILE).read_text(encoding="utf-8"))["unreadable"])
    arrays = tuple(np.load(place / f"{item.name}.npy", mmap_mode="r") for item in spec.inputs)
    rows = tuple(row for row in range(len(examples)) if row not in reasons)
    unreadable = tuple(Unreadable(examples[row].path, reason) for row, reason in reasons.items())
    return FrameCache(arrays, rows, unreadable)


def _version(path: Path) -> tuple[int, int]:
    """Size and modification time, which for a link to nothing, an unreadable file, are those of the link."""
    try:
        stat = path.stat()
    except OSError:
        stat = path.lstat()
    return stat.st_size, stat.st_mtime_ns


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a cache, which ends with the process at the latest; its file is removed.

    Two runs in one temporary folder would remove each other's arrays, and keep clips that nobody has decoded.
    """
    while True:
        with path.open("ab") as file:
            # Some network file systems have no locks. There, runs that share a folder must start in turn.
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_open_file(path, file.fileno()):
                continue  # the run that held the lock has removed the file
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_open_file(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _build(
    examples: Sequence[Example],
    spec: ClipSpec,
    phases: int,
    place: Path,
    *,
    jobs: int,
    advance: Callable[[int], None],
) -> None:
    partial = place.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    needed = len(examples) * phases * sum(math.prod(item.shape(spec.frames)) for item in spec.inputs)
    free = shutil.disk_usage(partial).free
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, partial)
        if needed > free:
            raise BlvnetError(
                f"a cache of these clips takes {needed / 1e9:.1f} GB, {place.parent} has {free / 1e9:.1f} GB"
                ": train with --no-cached, or give another --cache"
            )
        for item in spec.inputs:
            shape = (len(examples), phases, *item.shape(spec.frames))
            _allocate(partial / f"{item.name}.npy", shape)
        unreadable = _decode_all(examples, spec, phases, partial, jobs=jobs, advance=advance)
        if len(unreadable) == len(examples):
            raise BlvnetError(f"none of {len(examples)} files can be read; the first: {unreadable[0]}")
        # By row: a path may be written in several ways, and be that of several clips of a list.
        index = {"unreadable": list(unreadable.items())}
        (partial / INDEX_FILE).write_text(json.dumps(index, indent=1), encoding="utf-8")
        partial.rename(place)
        undo.pop_all()


def _allocate(path: Path, shape: tuple[int, ...]) -> None:
    """Make an array file and reserve its blocks: writing to a mapped file on a full disk kills a process."""
    np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    try:
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as exc:
        raise BlvnetError(f"{path} cannot be written ({exc.strerror})") from exc


def _decode_all(
    examples: Sequence[Example],
    spec: ClipSpec,
    phases: int,
    folder: Path,
    *,
    jobs: int,
    advance: Callable[[int], None],
) -> dict[int, str]:
    """Decode every example into its row; one that kills its process does not affect the others.

    Returns:
        The rows of the examples that could not be read, and why.
    """
    context = processes_with(__name__)
    unreadable = {}
    with ProcessPool(max_workers=jobs, context=context) as pool:
        futures = [
            pool.schedule(_decode_into, args=(example, row, spec, phases, folder), timeout=DECODE_TIMEOUT_S)
            for row, example in enumerate(examples)
        ]
        with ExitStack() as undo:
            undo.callback(pool.stop)  # an interrupt must not wait for thousands of scheduled files
            for row, future in enumerate(futures):
                try:
                    future.result()
                except (BlvnetError, OSError, TimeoutError, ProcessExpired) as exc:
                    unreadable[row] = f"{type(exc).__name__}: {exc}"
                advance(1)
            undo.pop_all()
    return unreadable


def processes_with(module: str) -> ForkServerContext:
    """Processes forked from a server that has imported `module`, which each would otherwise import itself.

    The first call starts the server; later ones use it with what it has imported.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", module])
    resource_tracker.ensure_running()  # started with the server, it would allow the signal again
    # Ctrl-C reaches every process of the terminal, and would end the server with a traceback as it imports.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def _decode_into(example: Example, row: int, spec: ClipSpec, phases: int, folder: Path) -> None:
    inputs = read_views(example, spec, clips=phases)
    for item in spec.inputs:
        array = np.lib.format.open_memmap(folder / f"{item.name}.npy", mode="r+")
        array[row] = inputs[item.name]
