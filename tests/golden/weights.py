"""Weights and clips computed by formulas, for comparison with the authors' implementations.

Weights are not stored: `fill` computes each tensor from its checkpoint key. The JSON files in this
folder list, for one configuration, the checkpoint's keys and the logits that the authors' code computes for
these weights and this clip; `tests.golden.cases` reads them.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def fill(key: str, shape: tuple[int, ...]) -> Array:
    """Compute a tensor from its checkpoint key, identically on every machine."""
    rng = np.random.RandomState(zlib.crc32(key.encode()) & 0xFFFFFFFF)
    name = key.rsplit(".", 2)
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, dtype=np.int64)
    if key.endswith("running_mean"):
        return (0.1 * rng.standard_normal(shape)).astype(np.float32)
    if key.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if len(shape) == 4 and shape[1] == 1 and shape[2:] == (1, 1):  # a TAM tap per channel
        return rng.uniform(-0.2, 0.8, shape).astype(np.float32)
    if len(shape) >= 4:
        fan_in = int(np.prod(shape[1:]))
        return np.asarray(rng.standard_normal(shape) * np.sqrt(2.0 / fan_in), dtype=np.float32)
    if len(shape) == 2:
        return (0.05 * rng.standard_normal(shape)).astype(np.float32)
    if key.endswith("fc.bias"):
        return (0.01 * rng.standard_normal(shape)).astype(np.float32)
    if key.endswith("weight"):  # batch norm
        scale = 0.3 if name[-2].endswith("bn3") else 1.0
        return (scale * rng.uniform(0.6, 1.2, shape)).astype(np.float32)
    return (0.1 * rng.standard_normal(shape)).astype(np.float32)


def frames(count: int, size: int, seed: int = 0) -> Array:
    """A textured clip with a moving square, (count, size, size, 3) uint8 RGB."""
    rng = np.random.RandomState(seed)
    texture = rng.randint(0, 256, (size // 8 + 1, size // 8 + 1, 3))
    background = np.kron(texture, np.ones((8, 8, 1)))[:size, :size]
    y, x = np.mgrid[0:size, 0:size]
    clip = np.empty((count, size, size, 3), dtype=np.uint8)
    for t in range(count):
        wave = 40 * np.sin(2 * np.pi * (x / 37.0 + y / 53.0 + t / 9.0))[..., None]
        frame = np.clip(np.roll(background, 3 * t, axis=1) * 0.7 + 40 + wave, 0, 255)
        side = size // 5
        left = int((size - side) * t / max(1, count - 1))
        frame[size // 3 : size // 3 + side, left : left + side] = (230, 40, 30)
        clip[t] = frame.astype(np.uint8)
    return clip
