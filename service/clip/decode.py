"""A video file in, uint8 frames at the network's sizes out, with what was found and what was taken.

    source ──> plan: demux, count ──> indices ──> decode every frame, scale the wanted ones ──> inputs
                                         ^                        │
                                         └── count again, if another number decoded than was planned

What a header says of frames and duration is never believed. Nothing but the wanted frames, scaled and
cropped, stays in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from service.clip.container import OpenVideo, Source, open_video, opened
from service.clip.geometry import CROP_COUNTS, crop_boxes
from service.clip.sampling import sample_indices
from service.clip.scaling import Scaler, frame_orientation
from service.clip.spec import ClipSpec, InputSpec
from service.clip.timing import Timing, frame_timing
from service.clip.video import DecodeLimits, VideoInfo
from service.errors import InvalidParameter, Undecodable

# The first pass knows the number of frames of every sound file. The second corrects it for a damaged one,
# and should the third disagree again, the file does not decode to the same frames twice.
MAX_PASSES = 3


@dataclass(frozen=True)
class DecodedClip:
    """Frames ready for the graph, and where they come from.

    Attributes:
        inputs: Input name -> uint8 `(V, T_branch, size, size, 3)` RGB; V = clips * crops views, the crops of
            the first clip first.
        video: What the file is.
        indices: For each temporal clip the T frames taken, counted from 0 in the order of showing.
        timestamps_s: Their times in seconds from the first frame of the video.
    """

    inputs: dict[str, NDArray[np.uint8]]
    video: VideoInfo
    indices: tuple[tuple[int, ...], ...]
    timestamps_s: tuple[tuple[float, ...], ...]


def decode_clip(
    source: Source,
    spec: ClipSpec,
    limits: DecodeLimits = DecodeLimits(),  # noqa: B008 - frozen
    *,
    clips: int = 1,
    crops: int = 1,
    threads: int = 1,
) -> DecodedClip:
    """Decode the frames that `spec` asks of a video, `clips` times over time and `crops` times over space.

    `source` is a path, the file's bytes, or a seekable binary file, which is read from its beginning and
    left open. `threads` is for the decoder alone; one is best for throughput with a worker per core.

    Raises:
        NotAVideo: no container that we take, or no video stream in it.
        Undecodable: a video, but no frame can be had from it.
        OverLimit: past one of `limits`.
        InvalidParameter: `clips` is below 1, or `crops` not 1, 3, 5 or 10.
        OSError: a path that cannot be opened.
    """
    if clips < 1:
        raise InvalidParameter("clips must be at least 1")
    if crops not in CROP_COUNTS:
        raise InvalidParameter("crops must be 1, 3, 5 or 10")
    with opened(source) as file:
        frame_count = _count_frames(file, limits)
        for _ in range(MAX_PASSES):
            indices = sample_indices(spec, frame_count, clips)
            views = _Views(spec, indices, crops)
            decoded = _decode(file, views, limits, threads)
            if decoded.frames == frame_count:
                return _clip(decoded, views, indices)
            frame_count = decoded.frames
    raise Undecodable("the video decodes to other frames each time")


@dataclass(frozen=True)
class _Decoded:
    """One pass over the video: its first frame's shape, and the timing of all its frames."""

    container: str
    codec: str
    width: int
    height: int
    rotation: int
    frames: int
    timing: Timing


def _count_frames(file: BinaryIO, limits: DecodeLimits) -> int:
    """How many frames the packets hold, without decoding: at least 1."""
    with open_video(file, limits) as video:
        timestamps: list[int] = []
        frames = 0
        for decoded, packet in enumerate(video.packets(), start=1):
            limits.check_frames(decoded)
            if not video.shows_frame(packet):
                continue
            frames += 1
            if packet.pts is not None:
                timestamps.append(packet.pts)
        if timestamps:
            limits.check_duration(float((max(timestamps) - min(timestamps)) * video.time_base))
    if not frames:
        raise Undecodable("the video holds no frame")
    return frames


def _decode(file: BinaryIO, views: _Views, limits: DecodeLimits, threads: int) -> _Decoded:
    """Decode the whole video, handing the frames to `views`."""
    pts: list[int | None] = []
    first: VideoFrame | None = None
    with open_video(file, limits, threads) as video:
        for frame in _frames(video):
            limits.check_size(frame.width, frame.height)
            limits.check_frames(len(pts) + 1)
            views.take(len(pts), frame)
            pts.append(frame.pts)
            first = first or frame
        if first is None:
            raise Undecodable("no frame of the video can be decoded")
        return _Decoded(
            container=video.container,
            codec=video.codec,
            width=first.width,
            height=first.height,
            rotation=frame_orientation(first).rotation,
            frames=len(pts),
            timing=frame_timing(pts, video.time_base, video.stated_rate),
        )


def _frames(video: OpenVideo) -> Iterator[VideoFrame]:
    """Every frame that decodes, in the order in which they are shown."""
    for packet in video.packets():
        yield from video.decode(packet)
    yield from video.decode(None)


class _Views:
    """The network's inputs, filled as frames come by; a frame that no input wants is not even converted."""

    def __init__(self, spec: ClipSpec, indices: tuple[tuple[int, ...], ...], crops: int) -> None:
        self._crops = crops
        self._scalers = {item.scale: Scaler(item.scale) for item in spec.inputs}
        self._places: dict[int, list[tuple[InputSpec, int, int]]] = {}
        self.inputs = {
            item.name: np.empty((len(indices) * crops, *item.shape(spec.frames)), np.uint8)
            for item in spec.inputs
        }
        for item in spec.inputs:
            for clip, taken in enumerate(indices):
                for moment, index in enumerate(taken[item.of(spec.frames)]):
                    self._places.setdefault(index, []).append((item, clip, moment))

    def take(self, index: int, frame: VideoFrame) -> None:
        """Put frame `index` of the video wherever it belongs; scaled once for each scale that is wanted."""
        scaled: dict[int, NDArray[np.uint8]] = {}
        for item, clip, moment in self._places.get(index, ()):
            if item.scale not in scaled:
                scaled[item.scale] = self._scalers[item.scale].scaled(frame)
            image = scaled[item.scale]
            height, width, _ = image.shape
            views = self.inputs[item.name][clip * self._crops : (clip + 1) * self._crops, moment]
            for view, crop in zip(views, crop_boxes(width, height, item.size, self._crops), strict=True):
                cut = image[crop.top : crop.top + item.size, crop.left : crop.left + item.size]
                view[...] = cut[:, ::-1] if crop.mirrored else cut


def _clip(decoded: _Decoded, views: _Views, indices: tuple[tuple[int, ...], ...]) -> DecodedClip:
    timing = decoded.timing
    return DecodedClip(
        inputs=views.inputs,
        video=VideoInfo(
            container=decoded.container,
            codec=decoded.codec,
            width=decoded.width,
            height=decoded.height,
            rotation=decoded.rotation,
            frames=decoded.frames,
            fps=timing.fps,
            duration_s=timing.duration_s,
        ),
        indices=indices,
        timestamps_s=tuple(tuple(timing.times_s[index] for index in taken) for taken in indices),
    )
