"""What a network wants of a clip: how many frames, which, and at which sizes.

The manifest of a package carries a `ClipSpec`; decoding, training, calibration and serving all read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Sampling(StrEnum):
    """How the T frames of a clip are spread over the video."""

    UNIFORM = "uniform"  # one frame from the middle of each of T equal segments
    DENSE = "dense"  # T frames at a fixed stride, as the published Kinetics evaluation takes them


class Frames(StrEnum):
    """Which of the T sampled frames an input of the network receives."""

    EVEN = "even"  # k = 0, 2, 4, ...: the little branch
    ODD = "odd"  # k = 1, 3, 5, ...: the big branch
    ALL = "all"  # networks with one stream


@dataclass(frozen=True)
class InputSpec:
    """One input of the graph, uint8 `(N, T_branch, size, size, 3)` RGB.

    `scale` is the length in pixels that the frame's shorter side is scaled to, `size` the side of the square
    that is cropped from it.
    """

    name: str
    frames: Frames
    size: int
    scale: int

    def of(self, count: int) -> slice:
        """The slice of `count` sampled frames that this input receives."""
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
    """T sampled frames and the inputs that they are made into.

    `stride` is the distance of two sampled frames with dense sampling, in frames; uniform ignores it.
    """

    frames: int
    inputs: tuple[InputSpec, ...]
    sampling: Sampling = Sampling.UNIFORM
    stride: int = 1
