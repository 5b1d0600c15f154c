"""Frames and crops of a training clip that are chosen at random from the whole video.

Frames: any offset in the segments of uniform sampling, or any window of dense sampling. Crops: the
multi-scale crops of Wang et al., arXiv 1507.02159, section 3.2, with the numbers of the authors' code: width
and height are each 1, 0.875, 0.75 or 0.66 of the frame's shorter side and at most one step of that list
apart, at one of 13 positions. Inputs of different sizes show the same part of the frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from model_export.training.config import CropMode, Offsets
from service.clip.geometry import Crop
from service.clip.sampling import Indices
from service.clip.scaling import Scaler, frame_orientation
from service.clip.spec import ClipSpec, InputSpec, Sampling
from service.clip.views import ViewPlan, Views

SCALES = (1.0, 0.875, 0.75, 0.66)
SIZES = tuple((x, y) for i, x in enumerate(SCALES) for j, y in enumerate(SCALES) if abs(i - j) <= 1)
# Quarters of the distance that a crop can move to the right and down: a grid of three by three, and between.
POSITIONS = tuple((x, y) for x in (0, 2, 4) for y in (0, 2, 4)) + tuple(
    (x, y) for x in (1, 3) for y in (1, 3)
)
FRAMES, CROP = range(2)  # purposes of the generators derived from a seed


@dataclass(frozen=True)
class RandomCrop:
    """A crop: width and height as parts of the frame's shorter side, and its position in quarters."""

    width: float
    height: float
    right: int
    down: int


@dataclass(frozen=True)
class RandomViewPlan(ViewPlan):
    """Chooses the frames or the crop of one clip, or both; the rest is as in `ViewPlan`.

    Attributes:
        offsets: method of choosing frames.
        crop: method of choosing the crop.
        seed: determines both for a video.
    """

    offsets: Offsets = Offsets.PHASES
    crop: CropMode = CropMode.FIXED
    seed: int = 0

    def sample(self, spec: ClipSpec, frame_count: int) -> Indices:
        """Return the frame numbers of the clip."""
        if self.offsets is Offsets.PHASES:
            return super().sample(spec, frame_count)
        rng = np.random.default_rng([self.seed, FRAMES])
        if spec.sampling is Sampling.DENSE:
            start = int(rng.integers(max(0, frame_count - spec.frames * spec.stride) + 1))
            return (tuple((start + k * spec.stride) % frame_count for k in range(spec.frames)),)
        offsets = rng.random(1 if self.offsets is Offsets.SEGMENT else spec.frames)
        segments = (np.arange(spec.frames) + offsets) * (frame_count / spec.frames)
        return (tuple(segments.astype(int).clip(max=frame_count - 1).tolist()),)

    def views(
        self, spec: ClipSpec, indices: Indices, out: Mapping[str, NDArray[np.uint8]] | None = None
    ) -> Views:
        """Return the views to fill."""
        if self.crop is CropMode.FIXED:
            return super().views(spec, indices, out)
        rng = np.random.default_rng([self.seed, CROP])
        size, position = SIZES[rng.integers(len(SIZES))], POSITIONS[rng.integers(len(POSITIONS))]
        return CroppedViews(spec, indices, RandomCrop(*size, *position))


class CroppedViews(Views):
    """One clip, each frame cut to `crop` and scaled to the size of the input."""

    def __init__(self, spec: ClipSpec, indices: Indices, crop: RandomCrop) -> None:
        super().__init__(spec, indices, crops=1)
        self._crop = crop
        self._scalers = {item.name: Scaler(item.size) for item in spec.inputs}

    def take(self, index: int, frame: VideoFrame) -> None:
        """Put frame `index` of the video into every input that samples it."""
        for item, clip, moment in self._uses.get(index, ()):
            self._cut(frame, item, self.inputs[item.name][clip, moment])

    def _cut(self, frame: VideoFrame, item: InputSpec, target: NDArray[np.uint8]) -> None:
        """Scale the frame so that the crop has the size of the input, then copy the crop.

        swscale scales the whole frame: its filter then has the neighbours of the pixels at the crop's edges.
        """
        sideways = frame_orientation(frame).rotation % 180 == 90
        width, height = (frame.height, frame.width) if sideways else (frame.width, frame.height)
        shorter = min(width, height)
        scaled = (
            max(item.size, round(width / shorter * item.size / self._crop.width)),
            max(item.size, round(height / shorter * item.size / self._crop.height)),
        )
        image = self._scalers[item.name].resized(frame, *(scaled[::-1] if sideways else scaled))
        left = (image.width - item.size) * self._crop.right // 4
        top = (image.height - item.size) * self._crop.down // 4
        image.copy_crop(Crop(left, top), target)
