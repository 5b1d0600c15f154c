"""Plan and write a synthetic data set.

OUT/{train,val,test}/LABEL/*.mp4|webm
OUT/labels.json, OUT/symmetry.json      read by `model_export.datasets.folders`
"""

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

from model_export.synthetic.drawing.render import render_video
from model_export.synthetic.encode import SUFFIX, write_video
from model_export.synthetic.labels import SPLITS, Split
from model_export.synthetic.tasks.names import Task
from model_export.synthetic.tasks.registry import TASKS
from service.errors import BlvnetError

LABELS_FILE: Final = "labels.json"
SYMMETRY_FILE: Final = "symmetry.json"
DEFAULT_SHARES: Final[dict[Split, float]] = {"train": 0.88, "val": 0.04, "test": 0.08}
_CHUNK: Final = 4  # number of videos that a worker takes at a time


@dataclass(frozen=True)
class PlannedVideo:
    """A video to make; `index` counts the videos of its split and label."""

    split: Split
    label: str
    index: int
    seed: int
    task: Task = Task.SIMPLE


def plan(
    clips: int, seed: int, shares: Mapping[Split, float] = DEFAULT_SHARES, task: Task = Task.SIMPLE
) -> list[PlannedVideo]:
    """Plan `clips` videos in total, split by `shares` and spread evenly over the task's labels."""
    labels = TASKS[task].labels
    return [
        PlannedVideo(split, labels[position % len(labels)], position // len(labels), seed, task)
        for split, count in split_counts(clips, shares).items()
        for position in range(count)
    ]


def split_counts(clips: int, shares: Mapping[Split, float]) -> dict[Split, int]:
    """Number of videos in each split, by the largest remainder method."""
    exact = {split: clips * shares.get(split, 0.0) / sum(shares.values()) for split in SPLITS}
    counts = {split: int(share) for split, share in exact.items()}
    by_remainder = sorted(SPLITS, key=lambda split: counts[split] - exact[split])
    for split in by_remainder[: clips - sum(counts.values())]:
        counts[split] += 1
    return counts


def write_dataset(out: Path, plans: list[PlannedVideo], jobs: int) -> Generator[Path, None, None]:
    """Make all planned videos, of one task, in `out` with `jobs` processes; yield the path of each file.

    The files do not depend on `jobs`. `labels.json` is written last, so a folder that has it is complete.

    Raises:
        BlvnetError: `out` is not an empty or new folder, or cannot be written.
    """
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise BlvnetError(
                f"{out} exists and is not an empty folder: name another one, or remove it first"
            )
        for folder in {out / one.split / one.label for one in plans}:
            folder.mkdir(parents=True)
    except OSError as error:
        raise BlvnetError(f"cannot make the folder {out}: {error.strerror or error}") from error
    if jobs == 1:
        yield from (make_video(out, one) for one in plans)
    else:
        yield from _make_in_processes(out, plans, jobs)
    task = TASKS[plans[0].task]
    symmetry = {"mirrored": task.mirrored, "reversed": task.reversed}
    for name, content in ((SYMMETRY_FILE, symmetry), (LABELS_FILE, task.labels)):
        (out / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _make_in_processes(out: Path, plans: list[PlannedVideo], jobs: int) -> Iterator[Path]:
    # Forked workers would inherit the locks of the caller's threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        try:
            yield from pool.map(make_video, [out] * len(plans), plans, chunksize=_CHUNK)
        except BrokenProcessPool as error:
            raise BlvnetError("a worker process was killed, perhaps for memory: try fewer --jobs") from error
        finally:
            pool.shutdown(cancel_futures=True)  # an interrupt must not wait for the videos still planned


def make_video(out: Path, planned: PlannedVideo) -> Path:
    """Render and write one video; the same plan always gives the same bytes."""
    cv2.setNumThreads(1)  # the processes already use all cores
    video = render_video(planned.label, planned.split, planned.seed, planned.index, task=planned.task)
    name = f"{planned.seed}-{planned.index:05d}{SUFFIX[video.encoding.codec]}"
    path = out / planned.split / planned.label / name
    try:
        write_video(path, video.frames, video.encoding)
    except OSError as error:  # also the errors of PyAV that come from the file system
        raise BlvnetError(f"cannot write {path}: {error.strerror}") from error
    return path
