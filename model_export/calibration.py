"""Clips to prove, calibrate and judge a graph with: real ones from a folder, or made on the spot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_export.datasets import VIDEO_SUFFIXES
from service.clip.decode import decode_clip
from service.clip.spec import ClipSpec, InputSpec
from service.errors import BlvnetError

Clip = Mapping[str, NDArray[np.uint8]]
"""Input name -> (T_b, size, size, 3)."""

TEXTURE_PX = 8  # side of a coloured square of a made clip
SPEED_PX = 3  # how far its texture moves from frame to frame, on average


@dataclass(frozen=True)
class LabelledClip:
    """A decoded clip; `label` is the index of its class, None where its folder does not say one."""

    inputs: Clip
    label: int | None


def read_clips(folder: Path, spec: ClipSpec, count: int, *, repeat: bool = True) -> list[Clip]:
    """Decode `count` of the video files in any folder below `folder`, spread over them in order of paths.

    Fewer files than `count` are taken more than once, or all once where `repeat` is False.

    Raises:
        BlvnetError: there is no such folder or no video file in it, or one of them cannot be decoded.
    """
    files = _video_files(folder)
    wanted = count if repeat else min(count, len(files))
    return [_decoded(path, spec) for path in _spread(files, wanted)]


def labelled_clips(
    folder: Path, spec: ClipSpec, labels: Sequence[str], tick: Callable[[int, int], None]
) -> Iterator[LabelledClip]:
    """Decode every video file below `folder`; a file's class is the name of its folder, if that is a label.

    `tick` is told how many are done, and of how many, after each.

    Raises:
        BlvnetError: as `read_clips`.
    """
    files = _video_files(folder)
    index = {label: place for place, label in enumerate(labels)}
    for done, path in enumerate(files, start=1):
        yield LabelledClip(_decoded(path, spec), index.get(path.parent.name))
        tick(done, len(files))


def _video_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise BlvnetError(f"{folder}: there is no such folder of clips")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
    if not files:
        raise BlvnetError(f"{folder}: no video file in it or in a folder below")
    return files


def made_clips(spec: ClipSpec, count: int, seed: int = 0) -> list[Clip]:
    """Textured clips that move, another one for each of `count`; they use the whole range of pixel values."""
    generator = np.random.default_rng(seed)
    return [_made(spec, generator) for _ in range(count)]


def _decoded(path: Path, spec: ClipSpec) -> Clip:
    try:
        inputs = decode_clip(path, spec).inputs
    except BlvnetError as exc:
        raise BlvnetError(f"{path}: {exc.message}") from exc
    except OSError as exc:
        raise BlvnetError(f"{path}: cannot be read ({exc.strerror})") from exc
    return {name: views[0] for name, views in inputs.items()}


def _spread(files: Sequence[Path], count: int) -> list[Path]:
    return [files[len(files) * (2 * k + 1) // (2 * count)] for k in range(count)]


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
