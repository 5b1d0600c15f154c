"""Clips to prove, calibrate and judge a graph with: of a folder, of a data set, or made on the spot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_export.datasets import VIDEO_SUFFIXES, read_listing
from model_export.datasets import Clip as StoredClip
from model_export.labels import check_same
from model_export.progress import Say
from model_export.reading import read_clip
from service.clip.spec import ClipSpec, InputSpec
from service.errors import BlvnetError

Clip = Mapping[str, NDArray[np.uint8]]
"""Input name -> (T_b, size, size, 3)."""

NO_CLASS = -1  # the label of a clip that nothing gives one
TEXTURE_PX = 8  # side of a coloured square of a made clip
SPEED_PX = 3  # how far its texture moves from frame to frame, on average


@dataclass(frozen=True)
class Stored:
    """Clips on the disk, to choose from.

    Attributes:
        name: of all of them, for messages.
        clips: in an order that is the same on every machine; a `label` is an index of the network's labels,
            or `NO_CLASS`.
        note: is told of a clip that cannot be read, which is left out then, as large data sets have such;
            None where it is an error.
    """

    name: str
    clips: tuple[StoredClip, ...]
    note: Say | None = None


@dataclass(frozen=True)
class LabelledClip:
    """A decoded clip; `label` is the index of its class, None where nothing says one."""

    inputs: Clip
    label: int | None


def clips_in_folder(folder: Path, labels: Sequence[str] = ()) -> Stored:
    """The video files in any folder below `folder`; a file's class is its folder's name, if that is a label.

    Raises:
        BlvnetError: there is no such folder, or no video file in it.
    """
    if not folder.is_dir():
        raise BlvnetError(f"{folder}: there is no such folder of clips")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
    if not files:
        raise BlvnetError(f"{folder}: no video file in it or in a folder below")
    index = {label: place for place, label in enumerate(labels)}
    return Stored(
        str(folder), tuple(StoredClip(path, index.get(path.parent.name, NO_CLASS)) for path in files)
    )


def clips_of_dataset(
    dataset: str, data: Path, split: str, note: Say, labels: Sequence[str] | None = None
) -> Stored:
    """A split of a data set in its own layout; its labels must be `labels`, where they are to count.

    `note` is told how many clips are missing, and of those that cannot be read.

    Raises:
        BlvnetError: as `read_listing`, or the labels differ.
    """
    listing = read_listing(dataset, data, split)
    if labels is not None:
        check_same(labels, listing.labels)
    if listing.missing:
        note(f"{listing.missing} of {listing.missing + len(listing.clips)} {split} clips are not there")
    return Stored(f"{data}, {split} of {dataset}", listing.clips, note)


def read_clips(stored: Stored, spec: ClipSpec, count: int, *, repeat: bool = True) -> list[Clip]:
    """Decode `count` of the clips, spread over them in their order.

    Fewer clips than `count` are taken more than once, or all once where `repeat` is False.

    Raises:
        BlvnetError: one cannot be decoded; where such are left out, none can.
    """
    wanted = count if repeat else min(count, len(stored.clips))
    read = [clip.inputs for clip in _read(stored, _spread(stored.clips, wanted), spec)]
    return list(islice(cycle(read), wanted)) if repeat else read


def labelled_clips(
    stored: Stored, spec: ClipSpec, tick: Callable[[int, int], None]
) -> Iterator[LabelledClip]:
    """Decode every clip; `tick` is told how many are done, and of how many, after each.

    Raises:
        BlvnetError: as `read_clips`.
    """

    def told() -> Iterator[StoredClip]:
        for done, clip in enumerate(stored.clips, start=1):
            yield clip
            tick(done, len(stored.clips))

    yield from _read(stored, told(), spec)


def _read(stored: Stored, chosen: Iterable[StoredClip], spec: ClipSpec) -> Iterator[LabelledClip]:
    any_read = False
    for clip in chosen:
        try:
            inputs = _decoded(clip, spec)
        except BlvnetError as exc:
            if stored.note is None:
                raise
            stored.note(f"unreadable: {exc.message}")
        else:
            any_read = True
            yield LabelledClip(inputs, None if clip.label == NO_CLASS else clip.label)
    if not any_read:
        raise BlvnetError(f"{stored.name}: none of the clips can be read")


def made_clips(spec: ClipSpec, count: int, seed: int = 0) -> list[Clip]:
    """Textured clips that move, another one for each of `count`; they use the whole range of pixel values."""
    generator = np.random.default_rng(seed)
    return [_made(spec, generator) for _ in range(count)]


def _decoded(clip: StoredClip, spec: ClipSpec) -> Clip:
    try:
        inputs = read_clip(clip, spec)
    except BlvnetError as exc:
        raise BlvnetError(f"{clip.path}: {exc.message}") from exc
    except OSError as exc:
        raise BlvnetError(f"{clip.path}: cannot be read ({exc.strerror})") from exc
    return {name: views[0] for name, views in inputs.items()}


def _spread(clips: Sequence[StoredClip], count: int) -> list[StoredClip]:
    return [clips[len(clips) * (2 * k + 1) // (2 * count)] for k in range(count)]


def _made(spec: ClipSpec, generator: np.random.Generator) -> Clip:
    """Every input sees the same scene; a smaller one sees it at its own scale, as decoding would show it."""
    largest = max(item.size for item in spec.inputs)
    squares = largest // TEXTURE_PX + 1
    texture = generator.integers(0, 256, (squares, squares, 3), dtype=np.uint8)
    scene = np.repeat(np.repeat(texture, TEXTURE_PX, axis=0), TEXTURE_PX, axis=1)
    steps = generator.integers(0, 2 * SPEED_PX + 1, (spec.frames, 2)).cumsum(axis=0)
    return {item.name: _frames(scene, steps, item, spec.frames, largest) for item in spec.inputs}


def _frames(
    scene: NDArray[np.uint8], steps: NDArray[np.int64], item: InputSpec, frames: int, largest: int
) -> NDArray[np.uint8]:
    pixels = np.arange(item.size) * largest // item.size
    shown = [np.roll(scene, tuple(step), axis=(0, 1))[np.ix_(pixels, pixels)] for step in steps]
    return np.stack(shown)[item.of(frames)]
