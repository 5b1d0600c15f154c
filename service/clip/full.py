"""Decodes every packet of a video in the order of the file: the yardstick, and where no plan holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from av.video.frame import VideoFrame

from service.clip.container import OpenVideo, open_video
from service.clip.scaling import frame_orientation
from service.clip.timing import Timing, frame_timing
from service.clip.video import DecodeLimits
from service.errors import Undecodable


@dataclass(frozen=True)
class FirstFrame:
    """What the first frame tells: the size as coded, and the degrees clockwise that bring it upright."""

    width: int
    height: int
    rotation: int

    @classmethod
    def of(cls, frame: VideoFrame) -> FirstFrame:
        """The facts of this frame."""
        return cls(frame.width, frame.height, frame_orientation(frame).rotation)


@dataclass(frozen=True)
class Pass:
    """What one pass over a whole video found.

    Attributes:
        first: The first frame's facts.
        frames: How many decoded.
        timing: When they are shown.
        packets: How many packets there were.
        broken_packets: How many the decoder refused, or gave a damaged frame for.
        damaged: The numbers of the damaged frames.
    """

    container: str
    codec: str
    first: FirstFrame
    frames: int
    timing: Timing
    packets: int
    broken_packets: int
    damaged: frozenset[int]


def decode_all(
    file: BinaryIO, limits: DecodeLimits, threads: int, take: Callable[[int, VideoFrame], None]
) -> Pass:
    """Decode the whole video, handing each frame with its number to `take`.

    Damage is decoded with one thread, so that it looks the same every time: a pass with more that meets any
    begins anew.

    Raises:
        Undecodable: not one frame decodes, or most of it is broken.
        OverLimit: past one of `limits`.
    """
    found = _decode_all(file, limits, threads, take)
    if found.broken_packets and threads > 1:
        found = _decode_all(file, limits, 1, take)
    if found.broken_packets > found.frames - len(found.damaged):
        raise Undecodable("more of the video is broken than whole")
    return found


def _decode_all(
    file: BinaryIO, limits: DecodeLimits, threads: int, take: Callable[[int, VideoFrame], None]
) -> Pass:
    pts: list[int | None] = []
    damaged: set[int] = set()
    first: FirstFrame | None = None
    counter = _Counter()
    with open_video(file, limits) as video:
        video.use_threads(threads)
        for frame in _frames(video, counter):
            limits.check_frames(len(pts) + 1)
            if frame.is_corrupt:
                damaged.add(len(pts))
            take(len(pts), frame)
            pts.append(frame.pts)
            first = first or FirstFrame.of(frame)
        if first is None:
            raise Undecodable("no frame of the video can be decoded")
        return Pass(
            container=video.container,
            codec=video.codec,
            first=first,
            frames=len(pts),
            timing=frame_timing(pts, video.time_base, video.stated_rate),
            packets=counter.packets,
            broken_packets=video.broken_packets + len(damaged),
            damaged=frozenset(damaged),
        )


@dataclass
class _Counter:
    packets: int = 0


def _frames(video: OpenVideo, counter: _Counter) -> Iterator[VideoFrame]:
    """Every frame that decodes, in the order in which they are shown."""
    for packet in video.packets():
        counter.packets += 1
        yield from video.decode(packet)
    yield from video.decode(None)
