"""Filling of the network's input arrays with scaled and cropped frames."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import local

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from service.clip.geometry import CROP_COUNTS, crop_boxes
from service.clip.sampling import Indices, sample_indices
from service.clip.scaling import ScaledFrame, Scaler
from service.clip.spec import ClipSpec, InputSpec
from service.errors import InvalidParameter

Take = Callable[[int, VideoFrame], None]
"""Receives a frame and its number."""

# Frames that may wait for the scaling thread; each keeps a buffer of the decoder.
MAX_PENDING = 4


class FrameScaler:
    """Scales frames to several sizes, each frame once per size. Safe to use from several threads."""

    def __init__(self) -> None:
        self._scalers = local()  # swscale's tables can only be used by one thread at a time

    def scaled(self, frame: VideoFrame, scales: Iterable[int]) -> dict[int, ScaledFrame]:
        """Return the frame with its shorter side at each of `scales` pixels."""
        scalers: dict[str, Scaler] = self._scalers.__dict__
        scaled: dict[int, ScaledFrame] = {}
        for scale in set(scales):
            if str(scale) not in scalers:
                scalers[str(scale)] = Scaler(scale)
            scaled[scale] = scalers[str(scale)].scaled(frame)
        return scaled


class Views:
    """The inputs of all views; `take` fills in the sampled frames and ignores the others.

    Several threads may pass in different frames at once.

    Args:
        spec: Inputs of the network.
        indices: The T frame numbers of each temporal clip.
        crops: Crops of each frame.
        out: Arrays to fill; new ones by default.
    """

    def __init__(
        self,
        spec: ClipSpec,
        indices: Indices,
        crops: int,
        out: Mapping[str, NDArray[np.uint8]] | None = None,
    ) -> None:
        self._crops = crops
        self._scaler = FrameScaler()
        self._uses: dict[int, list[tuple[InputSpec, int, int]]] = {}
        self.inputs = dict(out) if out else {
            item.name: np.empty((len(indices) * crops, *item.shape(spec.frames)), np.uint8)
            for item in spec.inputs
        }  # fmt: skip
        for item in spec.inputs:
            for clip, sampled in enumerate(indices):
                for moment, index in enumerate(sampled[item.of(spec.frames)]):
                    self._uses.setdefault(index, []).append((item, clip, moment))

    @property
    def wanted(self) -> frozenset[int]:
        """Numbers of the sampled frames."""
        return frozenset(self._uses)

    @property
    def scalings(self) -> int:
        """How often frames are scaled in total."""
        return sum(len({item.scale for item, *_ in uses}) for uses in self._uses.values())

    def take(self, index: int, frame: VideoFrame) -> None:
        """Put frame `index` of the video into every input that samples it."""
        uses = self._uses.get(index)
        if not uses:
            return
        scaled = self._scaler.scaled(frame, (item.scale for item, *_ in uses))
        for item, clip, moment in uses:
            image = scaled[item.scale]
            views = self.inputs[item.name][clip * self._crops : (clip + 1) * self._crops, moment]
            crops = crop_boxes(image.width, image.height, item.size, self._crops)
            for view, crop in zip(views, crops, strict=True):
                image.copy_crop(crop, view)


@dataclass(frozen=True)
class ViewPlan:
    """Chooses the views of a video: `crops` crops of each of `clips` clips, or of clip number `only`.

    Training subclasses it to choose at random.

    Raises:
        InvalidParameter: A value is out of range.
    """

    clips: int = 1
    crops: int = 1
    only: int | None = None

    def __post_init__(self) -> None:
        if self.clips < 1:
            raise InvalidParameter("clips must be at least 1")
        if self.crops not in CROP_COUNTS:
            raise InvalidParameter(f"crops must be one of {', '.join(map(str, CROP_COUNTS))}")
        if self.only is not None and not 0 <= self.only < self.clips:
            raise InvalidParameter(f"there is no clip {self.only} of {self.clips}")

    def sample(self, spec: ClipSpec, frame_count: int) -> Indices:
        """Return the frame numbers of each clip of a video with `frame_count` frames."""
        indices = sample_indices(spec, frame_count, self.clips)
        return indices if self.only is None else (indices[self.only],)

    def views(
        self, spec: ClipSpec, indices: Indices, out: Mapping[str, NDArray[np.uint8]] | None = None
    ) -> Views:
        """Return the views to fill with the sampled frames."""
        return Views(spec, indices, self.crops, out)


@contextmanager
def in_own_thread(take: Take) -> Iterator[Take]:
    """Provide `take` running in a separate thread; all calls are done when the context ends.

    Raises:
        RequestError: The error that `take` raised, with a later frame or at the end.
    """
    with ThreadPoolExecutor(1) as thread:
        pending: deque[Future[None]] = deque()

        def submit(index: int, frame: VideoFrame) -> None:
            pending.append(thread.submit(take, index, frame))
            if len(pending) > MAX_PENDING:
                pending.popleft().result()

        try:
            yield submit
            for task in pending:
                task.result()
        finally:
            for task in pending:
                task.cancel()
