"""Real footage: ten gestures in folders, `train` and `val`, which share no group (a device and a date).

The clips are read as `blvnet train` reads them. Nothing is selected on `val`: the learning rate is that of
the row whose weights a run starts from, and the evaluated weights are those after the last step.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from model_export.datasets.folders import read_folder
from model_export.datasets.symmetry import Symmetry, label_indices
from model_export.progress import ProgressReporter
from model_export.training.clips.batches import CachedClips, SplitData
from model_export.training.clips.frame_cache import open_cache
from service.clip.spec import ClipSpec
from service.errors import BlvnetError

OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}  # played backwards
MIRRORED = {"left": "right", "right": "left", "up": "up", "down": "down"}
PHASES = 3


def real_split(
    gestures: Path | None, split: str, clip: ClipSpec, cache: Path, reporter: ProgressReporter
) -> SplitData:
    """Open a split of the footage, decoded once into `cache`.

    Raises:
        BlvnetError: no folder is given, or it lacks the split.
    """
    if gestures is None:
        raise BlvnetError("rows of the group 'real' need --gestures DIR, with DIR/{train,val}/LABEL/*.mp4")
    listing = read_folder(gestures, split)
    symmetry = Symmetry(label_indices(listing.labels, MIRRORED), label_indices(listing.labels, OPPOSITE))
    listing = replace(listing, symmetry=symmetry)
    reporter.step(f"opening {split}")
    frames = open_cache(
        listing.examples, clip, phases=PHASES, folder=cache / "real", jobs=1, advance=lambda _: None
    )
    for item in frames.unreadable:  # their clips in the cache are black
        reporter.message(f"unreadable: {item.path} ({item.reason})")
    return SplitData(listing.only(frames.rows), CachedClips(frames, frames.rows))


def share_by_group(predictions: list[int], data: SplitData) -> dict[str, float]:
    """Top-1 of each group of `groups.csv`; empty without such a file."""
    right: defaultdict[str, list[bool]] = defaultdict(list)
    for predicted, example in zip(predictions, data.listing.examples, strict=True):
        if example.group is not None:
            right[example.group].append(predicted == example.label)
    return {group: fmean(found) for group, found in sorted(right.items())}


def shuffled(frames: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The frames of each clip in a random order, the same for every input and in every call."""
    count, total = frames[0].shape[:2]
    rng = np.random.default_rng([count, total])
    orders = [torch.from_numpy(rng.permutation(total)) for _ in range(count)]
    return tuple(
        torch.stack([clip[order] for clip, order in zip(clips, orders, strict=True)]) for clips in frames
    )


def middle_alone(frames: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The middle frame of each clip, repeated."""
    return tuple(clips[:, clips.shape[1] // 2 : clips.shape[1] // 2 + 1].expand_as(clips) for clips in frames)


def backwards(frames: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The frames of each clip in reverse order."""
    return tuple(clips.flip(1) for clips in frames)


def opposite_share(predictions: list[int], data: SplitData) -> float:
    """The share of swipes that got the opposite label."""
    reverse = data.listing.symmetry.reversed
    pairs = [
        (predicted, reverse[example.label])
        for predicted, example in zip(predictions, data.listing.examples, strict=True)
        if reverse[example.label] is not None
    ]
    return sum(predicted == wanted for predicted, wanted in pairs) / len(pairs)
