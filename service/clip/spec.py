"""The input format of a network: number of frames, sampling and sizes.

The manifest of a package contains a `ClipSpec`, which decoding, training, calibration and serving use.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Sampling(StrEnum):
    """How the T frames of a clip are distributed over the video."""

    UNIFORM = "uniform"  # the middle frame of each of T equal segments
    DENSE = "dense"  # T frames at a fixed stride, as in the published Kinetics evaluation


class Frames(StrEnum):
    """Which of the T sampled frames an input of the network receives."""

    EVEN = "even"  # k = 0, 2, 4, ...: the little branch
    ODD = "odd"  # k = 1, 3, 5, ...: the big branch
    ALL = "all"  # networks with a single input


@dataclass(frozen=True)
class InputSpec:
    """An input of the graph, uint8 `(N, T_branch, size, size, 3)` RGB.

    `scale` is the length in pixels to which the shorter side of a frame is scaled, and `size` the side of the
    square crop.
    """

    name: str
    frames: Frames
    size: int
    scale: int

    def of(self, count: int) -> slice:
        """Return the slice of `count` sampled frames that this input receives."""
        match self.frames:
            case Frames.EVEN:
                return slice(0, count, 2)
            case Frames.ODD:
                return slice(1, count, 2)
            case Frames.ALL:
                return slice(0, count, 1)

    def shape(self, count: int) -> tuple[int, int, int, int]:
        """`(T_branch, size, size, 3)` for `count` sampled frames."""
        return len(range(count)[self.of(count)]), self.size, self.size, 3


@dataclass(frozen=True)
class ClipSpec:
    """The number of sampled frames and the inputs of a network.

    `stride` is the distance between sampled frames for dense sampling, in frames; uniform sampling ignores
    it.
    """

    frames: int
    inputs: tuple[InputSpec, ...]
    sampling: Sampling = Sampling.UNIFORM
    stride: int = 1
