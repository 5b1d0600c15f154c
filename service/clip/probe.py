"""Clips made by formula, the same on every machine: what a package's reference answer is an answer to.

A package says what the PyTorch network answers to them, so that a server can ask the engine that it loaded,
without a clip in the package. Integer arithmetic alone: no generator whose stream might change.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.clip.spec import ClipSpec, InputSpec

# The version of the formula; a package names the one that its reference was made with.
PROBE = 1
PROBE_CLIPS = 2

TILES = 16  # a scene is so many squares of one colour wide and high
SPEED = 3  # how far the scene moves from frame to frame, in 64ths of its side
RIPPLE = 40  # how far a pixel is from the colour of its square, at most


def probe_clips(spec: ClipSpec, count: int = PROBE_CLIPS) -> dict[str, NDArray[np.uint8]]:
    """Input name -> uint8 `(count, T_branch, size, size, 3)`.

    Coloured squares with a ripple on them, which move another way in each clip and each third of it; every
    input sees the same scene at its own size. All pixel values from 0 to 255 occur.
    """
    return {item.name: np.stack([_frames(spec, item, clip) for clip in range(count)]) for item in spec.inputs}


def _frames(spec: ClipSpec, item: InputSpec, clip: int) -> NDArray[np.uint8]:
    moments = range(spec.frames)[item.of(spec.frames)]
    return np.stack([_frame(item.size, spec.frames, clip, moment) for moment in moments])


def _frame(size: int, frames: int, clip: int, moment: int) -> NDArray[np.uint8]:
    """(size, size, 3): the scene of `clip`, shifted to where it is at `moment`, with a ripple that is not."""
    third = 3 * moment // frames
    dx, dy = ((SPEED, 1), (-2, SPEED), (1, -SPEED))[(third + clip) % 3]
    along = np.arange(size) * 4 * TILES // size  # in quarters of a square
    x, y = (along + dx * moment) // 4 % TILES, (along + dy * moment) // 4 % TILES
    colours = np.arange(3)
    scene = _hashed(x[None, :, None], y[:, None, None], colours[None, None, :], clip)
    ripple = (np.arange(size)[None, :, None] * 7 + np.arange(size)[:, None, None] * 5 + moment * 11) % RIPPLE
    return (scene * (256 - RIPPLE) // 255 + ripple).astype(np.uint8)


def _hashed(
    x: NDArray[np.int64], y: NDArray[np.int64], colour: NDArray[np.int64], clip: int
) -> NDArray[np.int64]:
    """A number from 0 to 255 for each square and colour, without a pattern to the eye."""
    value = (x * 73_856_093) ^ (y * 19_349_663) ^ (colour * 83_492_791) ^ ((clip + 1) * 2_654_435)
    value = (value ^ (value >> 13)) * 1_274_126_177 % 2**31
    return (value >> 8) % 256
