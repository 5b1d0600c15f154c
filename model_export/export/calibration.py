"""Clips for an export: from a folder of videos, from a data set, or synthetic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_export.datasets import VIDEO_SUFFIXES, Example, read_listing
from model_export.datasets.files import is_hidden
from model_export.datasets.labels import check_same
from model_export.datasets.reading import read_views
from model_export.progress import ProgressReporter
from service.clip.spec import ClipSpec
from service.errors import BlvnetError

Clip = Mapping[str, NDArray[np.uint8]]
"""Input name -> (T_b, size, size, 3)."""

UNLABELLED = -1  # the label of an example whose class is unknown
TEXTURE_PX = 8  # side of a coloured square of a synthetic clip
SPEED_PX = 3  # mean movement of its texture from frame to frame


@dataclass(frozen=True)
class ExampleSet:
    """Videos on disk.

    Attributes:
        name: name for messages.
        examples: the videos, in the same order on every machine; a `label` is an index of the network's
            labels, or `UNLABELLED`.
        skip_unreadable: report and skip videos that cannot be read, because large data sets contain some;
            otherwise they are an error.
    """

    name: str
    examples: tuple[Example, ...]
    skip_unreadable: bool


@dataclass(frozen=True)
class LabelledClip:
    """A decoded clip, the index of its class (None if unknown), and the indices of further labels."""

    inputs: Clip
    label: int | None
    others: tuple[int, ...] = ()

    @property
    def labels(self) -> tuple[int, ...]:
        """All labels."""
        return () if self.label is None else (self.label, *self.others)


@dataclass(frozen=True)
class ClipSources:
    """The videos of an export.

    Attributes:
        examples: videos for the comparison with PyTorch and the ranges of int8; None for synthetic clips.
        calibration: most clips for the ranges of int8; 0 for other precisions.
        validation: videos for the accuracy gate; None without a gate.
    """

    examples: ExampleSet | None = None
    calibration: int = 0
    validation: ExampleSet | None = None

    def parity_clips(self, spec: ClipSpec, count: int, progress: ProgressReporter) -> tuple[list[Clip], str]:
        """`count` clips for the comparison with PyTorch, and their description; raises as `read_clips`."""
        if self.examples is None:
            return synthetic_clips(spec, count), "made clips"
        return read_clips(self.examples, spec, count, progress), "real clips"

    def calibration_clips(self, spec: ClipSpec, progress: ProgressReporter) -> list[Clip]:
        """Clips for the ranges of int8; raises as `read_clips`."""
        if self.examples is None or not self.calibration:
            return []
        return read_clips(self.examples, spec, self.calibration, progress, repeat=False)


def examples_in_folder(folder: Path, labels: Sequence[str] = ()) -> ExampleSet:
    """The videos in a folder and its subfolders; a video in a folder named after a label has that label.

    Hidden files and folders are left out.

    Raises:
        BlvnetError: the folder does not exist, or holds no video.
    """
    if not folder.is_dir():
        raise BlvnetError(f"{folder}: there is no such folder of clips")
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in VIDEO_SUFFIXES and not is_hidden(path.relative_to(folder))
    )
    if not files:
        raise BlvnetError(f"{folder}: no video file in it or its subfolders")
    index = {label: position for position, label in enumerate(labels)}
    examples = tuple(Example(path, index.get(path.parent.name, UNLABELLED)) for path in files)
    return ExampleSet(str(folder), examples, skip_unreadable=False)


def examples_of_dataset(
    dataset: str, data: Path, split: str, labels: Sequence[str] | None, progress: ProgressReporter
) -> ExampleSet:
    """A split of a data set in its own layout, whose labels must be `labels`; None if they do not matter.

    Raises:
        BlvnetError: as `read_listing`, or the labels differ.
    """
    listing = read_listing(dataset, data, split)
    if labels is not None:
        check_same(labels, listing.labels)
    if listing.missing:
        total = listing.missing + len(listing.examples)
        progress.message(f"{listing.missing} of {total} {split} videos are missing")
    return ExampleSet(f"{data}, {split} of {dataset}", listing.examples, skip_unreadable=True)


def read_clips(
    source: ExampleSet, spec: ClipSpec, count: int, progress: ProgressReporter, *, repeat: bool = True
) -> list[Clip]:
    """Decode `count` of the videos, at equal distances in their order.

    If there are fewer than `count`, they are repeated, or each is taken once with `repeat` False.

    Raises:
        BlvnetError: a video cannot be decoded, or none can if unreadable videos are skipped.
    """
    wanted = count if repeat else min(count, len(source.examples))
    positions = (len(source.examples) * (2 * k + 1) // (2 * wanted) for k in range(wanted))
    chosen = ExampleSet(
        source.name, tuple(source.examples[position] for position in positions), source.skip_unreadable
    )
    clips = [clip.inputs for clip in labelled_clips(chosen, spec, progress)]
    return list(islice(cycle(clips), wanted)) if repeat else clips


def labelled_clips(source: ExampleSet, spec: ClipSpec, progress: ProgressReporter) -> Iterator[LabelledClip]:
    """Decode all videos.

    Raises:
        BlvnetError: as `read_clips`.
    """
    any_read = False
    for example in source.examples:
        try:
            views = read_views(example, spec)
        except (BlvnetError, OSError) as exc:
            reason = exc.message if isinstance(exc, BlvnetError) else f"cannot be read ({exc.strerror})"
            if not source.skip_unreadable:
                raise BlvnetError(f"{example.path}: {reason}") from exc
            progress.message(f"unreadable: {example.path}: {reason}")
            continue
        any_read = True
        inputs = {name: frames[0] for name, frames in views.items()}
        label = None if example.label == UNLABELLED else example.label
        yield LabelledClip(inputs, label, example.others)
    if not any_read:
        raise BlvnetError(f"{source.name}: none of the videos can be read")


def synthetic_clips(spec: ClipSpec, count: int, seed: int = 0) -> list[Clip]:
    """Different clips of a moving texture that has all pixel values.

    All inputs show the same scene; a smaller one shows it at its own scale, as decoding would.
    """
    generator = np.random.default_rng(seed)
    largest = max(item.size for item in spec.inputs)
    squares = largest // TEXTURE_PX + 1
    clips: list[Clip] = []
    for _ in range(count):
        texture = generator.integers(0, 256, (squares, squares, 3), dtype=np.uint8)
        scene = np.repeat(np.repeat(texture, TEXTURE_PX, axis=0), TEXTURE_PX, axis=1)
        offsets = generator.integers(0, 2 * SPEED_PX + 1, (spec.frames, 2)).cumsum(axis=0)
        frames = [np.roll(scene, tuple(offset), axis=(0, 1)) for offset in offsets]
        clip = {}
        for item in spec.inputs:
            pixels = np.arange(item.size) * largest // item.size
            clip[item.name] = np.stack([frame[np.ix_(pixels, pixels)] for frame in frames])[
                item.of(spec.frames)
            ]
        clips.append(clip)
    return clips
