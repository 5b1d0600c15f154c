"""A data set of made clips on disk: `OUT/{train,val,test}/LABEL/*.mp4|webm` and `OUT/labels.json`."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2

from model_export.synthetic.classes import LABELS
from model_export.synthetic.encode import SUFFIX, write_video
from model_export.synthetic.render import render_clip
from model_export.synthetic.split import SPLITS, Split
from service.errors import BlvnetError

LABELS_FILE: Final = "labels.json"
DEFAULT_SHARES: Final[dict[Split, float]] = {"train": 0.88, "val": 0.04, "test": 0.08}
_CHUNK: Final = 4  # clips that a worker takes at a time


@dataclass(frozen=True)
class ClipPlan:
    """One clip to make; `index` counts the clips of its split and label."""

    split: Split
    label: str
    index: int
    seed: int


def plan(clips: int, seed: int, shares: Mapping[Split, float] = DEFAULT_SHARES) -> list[ClipPlan]:
    """What to make for `clips` clips in all: split by `shares`, and over the labels as evenly as can be."""
    return [
        ClipPlan(split, LABELS[position % len(LABELS)], position // len(LABELS), seed)
        for split, count in split_counts(clips, shares).items()
        for position in range(count)
    ]


def split_counts(clips: int, shares: Mapping[Split, float]) -> dict[Split, int]:
    """Clips of each split, adding up to `clips` (largest remainders get what rounding leaves)."""
    exact = {split: clips * shares.get(split, 0.0) / sum(shares.values()) for split in SPLITS}
    counts = {split: int(share) for split, share in exact.items()}
    by_remainder = sorted(SPLITS, key=lambda split: counts[split] - exact[split])
    for split in by_remainder[: clips - sum(counts.values())]:
        counts[split] += 1
    return counts


def write_dataset(out: Path, plans: list[ClipPlan], jobs: int) -> Generator[Path, None, None]:
    """Make every planned clip below `out` with `jobs` processes; yields each file's path once it is written.

    The files are the same for any `jobs`. `labels.json` comes last, so a folder that has it is complete.

    Raises:
        BlvnetError: `out` is not an empty or new folder, or cannot be written.
    """
    _prepare(out, plans)
    yield from _made(out, plans, jobs)
    (out / LABELS_FILE).write_text(json.dumps(LABELS, indent=2) + "\n", encoding="utf-8")


def write_clip(out: Path, clip_plan: ClipPlan) -> Path:
    """Make one clip; the same plan always gives the same bytes."""
    cv2.setNumThreads(1)  # the processes share the cores; threads inside one would only compete
    clip = render_clip(clip_plan.label, clip_plan.split, clip_plan.seed, clip_plan.index)
    name = f"{clip_plan.seed}-{clip_plan.index:05d}{SUFFIX[clip.encoding.codec]}"
    path = out / clip_plan.split / clip_plan.label / name
    try:
        write_video(path, clip.frames, clip.encoding)
    except OSError as error:  # PyAV's errors of the file system are of this kind too
        raise BlvnetError(f"cannot write {path}: {error.strerror}") from error
    return path


def _prepare(out: Path, plans: list[ClipPlan]) -> None:
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise BlvnetError(
                f"{out} exists and is not an empty folder: name another one, or remove it first"
            )
        for folder in {out / one.split / one.label for one in plans}:
            folder.mkdir(parents=True)
    except OSError as error:
        raise BlvnetError(f"cannot make the folder {out}: {error.strerror or error}") from error


def _made(out: Path, plans: list[ClipPlan], jobs: int) -> Iterator[Path]:
    if jobs == 1:
        yield from (write_clip(out, one) for one in plans)
        return
    # Forked workers would inherit the locks of whatever threads the caller runs.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        try:
            yield from pool.map(write_clip, [out] * len(plans), plans, chunksize=_CHUNK)
        except BrokenProcessPool as error:
            raise BlvnetError(
                "a worker process was killed: try fewer --jobs, as memory may be short"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)  # an interrupt must not wait for clips that nobody wants
