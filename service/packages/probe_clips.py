"""Probe clips: clips computed by a formula, which are the same on every machine.

A package contains the PyTorch network's logits for these clips, and a server compares an engine's logits with
them. So the package needs no clips. The formula uses integers only, not a random generator that may change.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.clip.spec import ClipSpec

# Version of the formula. A package names the version of its reference.
PROBE = 1
PROBE_CLIPS = 2

TILES = 16  # coloured squares along each side of the scene
SPEED = 3  # movement of the scene from frame to frame, in 64ths of its side
RIPPLE = 40  # largest deviation of a pixel from the colour of its square


def probe_clips(spec: ClipSpec, count: int = PROBE_CLIPS) -> dict[str, NDArray[np.uint8]]:
    """Return input name -> uint8 `(count, T_branch, size, size, 3)`.

    The clips show coloured squares with a fixed ripple. The direction in which the squares move differs
    between clips and between the thirds of a clip. Every input shows the same scene at its own size. All
    pixel values from 0 to 255 occur.
    """
    clips: dict[str, NDArray[np.uint8]] = {}
    for item in spec.inputs:
        moments = range(spec.frames)[item.of(spec.frames)]
        frames = [
            [_frame(item.size, spec.frames, clip, moment) for moment in moments] for clip in range(count)
        ]
        clips[item.name] = np.array(frames, np.uint8)
    return clips


def _frame(size: int, frames: int, clip: int, moment: int) -> NDArray[np.uint8]:
    """Return uint8 `(size, size, 3)`: the scene of `clip` at `moment`, with the ripple that does not move."""
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
    """Return a pseudo-random number from 0 to 255 for each square and colour channel."""
    value = (x * 73_856_093) ^ (y * 19_349_663) ^ (colour * 83_492_791) ^ ((clip + 1) * 2_654_435)
    value = (value ^ (value >> 13)) * 1_274_126_177 % 2**31
    return (value >> 8) % 256
