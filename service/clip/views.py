"""The network's inputs, filled as frames come by."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import local

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from service.clip.geometry import crop_boxes
from service.clip.scaling import ScaledFrame, Scaler
from service.clip.spec import ClipSpec, InputSpec

Take = Callable[[int, VideoFrame], None]
"""What becomes of a frame: called with its number."""

# Frames that may wait to be scaled; each holds on to a buffer of the decoder's.
MOST_PENDING = 4


class Views:
    """Takes the frames that some input wants, scaled and cropped; others are not even converted.

    Several threads may hand in different frames at once.

    Args:
        spec: what the network wants.
        indices: for each temporal clip the numbers of its T frames.
        crops: views over space of each.
        out: arrays to fill; they are made if not given.
    """

    def __init__(
        self,
        spec: ClipSpec,
        indices: tuple[tuple[int, ...], ...],
        crops: int,
        out: Mapping[str, NDArray[np.uint8]] | None = None,
    ) -> None:
        self._crops = crops
        self._scalers = local()  # swscale's tables serve one thread at a time
        self._places: dict[int, list[tuple[InputSpec, int, int]]] = {}
        self.inputs = dict(out) if out else _empty(spec, len(indices) * crops)
        for item in spec.inputs:
            for clip, taken in enumerate(indices):
                for moment, index in enumerate(taken[item.of(spec.frames)]):
                    self._places.setdefault(index, []).append((item, clip, moment))

    @property
    def wanted(self) -> frozenset[int]:
        """The numbers of the frames that are taken."""
        return frozenset(self._places)

    @property
    def scalings(self) -> int:
        """How often frames will be scaled, all in all."""
        return sum(len({item.scale for item, *_ in places}) for places in self._places.values())

    def take(self, index: int, frame: VideoFrame) -> None:
        """Put frame `index` of the video wherever it belongs; scaled once for each scale that is wanted."""
        scaled: dict[int, ScaledFrame] = {}
        for item, clip, moment in self._places.get(index, ()):
            if item.scale not in scaled:
                scaled[item.scale] = self._scaler(item.scale).scaled(frame)
            image = scaled[item.scale]
            views = self.inputs[item.name][clip * self._crops : (clip + 1) * self._crops, moment]
            crops = crop_boxes(image.width, image.height, item.size, self._crops)
            for view, crop in zip(views, crops, strict=True):
                image.copy_crop(crop, view)

    def _scaler(self, scale: int) -> Scaler:
        """This thread's scaler to that size."""
        scalers: dict[str, Scaler] = self._scalers.__dict__
        if str(scale) not in scalers:
            scalers[str(scale)] = Scaler(scale)
        return scalers[str(scale)]


@contextmanager
def aside(take: Take) -> Iterator[Take]:
    """`take`, but done in a thread of its own while the caller goes on; all is done when the context ends.

    Raises:
        RequestError: what `take` raised, with the next frame or at the end.
    """
    with ThreadPoolExecutor(1) as thread:
        pending: deque[Future[None]] = deque()

        def hand_over(which: int, frame: VideoFrame) -> None:
            pending.append(thread.submit(take, which, frame))
            if len(pending) > MOST_PENDING:
                pending.popleft().result()

        try:
            yield hand_over
            for task in pending:
                task.result()
        finally:
            for task in pending:
                task.cancel()


def _empty(spec: ClipSpec, views: int) -> dict[str, NDArray[np.uint8]]:
    return {item.name: np.empty((views, *item.shape(spec.frames)), np.uint8) for item in spec.inputs}
