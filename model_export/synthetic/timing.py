"""When a motion starts and stops within a video, and how its speed changes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from model_export.synthetic.drawing.textures import Rng

_SAMPLED = 16  # frames that networks usually sample


@dataclass(frozen=True)
class MotionTiming:
    """The phase of a motion at every frame: float64 `(frames,)`, 0 before its start, 1 after its end."""

    phase: npt.NDArray[np.float64]

    @cached_property
    def steepest(self) -> float:
        """The largest advance of the phase between two sampled frames."""
        count = len(self.phase)
        seen = np.floor(count / _SAMPLED * (np.arange(_SAMPLED) + 0.5)).astype(np.int64)
        return float(np.diff(self.phase[seen]).max())


def draw_timing(rng: Rng, frames: int) -> MotionTiming:
    """Draw the start in the first 20 % and the end in the last 20 % (sometimes 30), and the speed between."""
    time = np.linspace(0, 1, frames)
    slack = 0.3 if rng.random() < 0.12 else 0.2
    start = 0.0 if rng.random() < 0.25 else rng.uniform(0, slack)
    stop = 1.0 if rng.random() < 0.25 else rng.uniform(1 - slack, 1.0)
    return MotionTiming(_profile(rng, np.clip((time - start) / (stop - start), 0, 1)))


def _profile(rng: Rng, line: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    match rng.choice(["even", "smooth", "power", "uneven"], p=[0.3, 0.3, 0.2, 0.2]):
        case "even":
            return line
        case "smooth":
            return line * line * (3 - 2 * line)
        case "power":
            exponent = rng.uniform(1.2, 1.7)
            return np.asarray(line**exponent if rng.random() < 0.5 else 1 - (1 - line) ** exponent)
        case _:
            # Monotone, as the two amplitudes stay below 1 in sum.
            first, second = rng.uniform(-0.45, 0.45, size=2) / (2 * np.pi)
            swing = first * np.sin(2 * np.pi * line) + second * np.sin(4 * np.pi * line) / 2
            return np.asarray(line + swing)
