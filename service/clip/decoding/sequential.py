"""Decode every packet of a video in file order: the reference, and the fallback without a valid plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from av.video.frame import VideoFrame

from service.clip.decoding.container import OpenVideo, open_video
from service.clip.scaling import frame_orientation
from service.clip.timing import Timing
from service.clip.video import DecodeLimits, VideoInfo
from service.clip.views import Take
from service.errors import Undecodable


class FirstFrame:
    """Passes frames on to `take`, and keeps the size and rotation of the first frame."""

    def __init__(self, take: Take) -> None:
        self._take = take
        self._width = self._height = self._rotation = 0

    def take(self, number: int, frame: VideoFrame) -> None:
        """Pass on frame `number`."""
        if number == 0:
            self._width, self._height = frame.width, frame.height
            self._rotation = frame_orientation(frame).rotation
        self._take(number, frame)

    def describe(self, video: OpenVideo, timing: Timing, broken_packets: int = 0) -> VideoInfo:
        """Return the properties of the video, whose first frame was passed on."""
        return VideoInfo(
            container=video.container,
            codec=video.codec,
            width=self._width,
            height=self._height,
            rotation=self._rotation,
            frames=len(timing.times_s),
            fps=timing.fps,
            duration_s=timing.duration_s,
            broken_packets=broken_packets,
            timestamps=timing.timestamps,
            track=video.track,
        )


@dataclass(frozen=True)
class Pass:
    """Result of one pass over a whole video.

    Attributes:
        video: Properties of the video; its `broken_packets` include those of damaged frames.
        timing: Display times of the frames.
        packets: Number of packets.
        damaged: Numbers of the damaged frames.
    """

    video: VideoInfo
    timing: Timing
    packets: int
    damaged: frozenset[int]


def decode_all(file: BinaryIO, limits: DecodeLimits, threads: int, take: Take) -> Pass:
    """Decode the whole video, passing each frame with its number to `take`.

    If a pass with several threads finds damage, it starts again with one thread, so that damage gives the
    same result every time.

    Raises:
        Undecodable: No frame decodes, or most of the video is broken.
        OverLimit: The video exceeds one of `limits`.
    """
    result = _decode_all(file, limits, threads, take)
    if result.video.broken_packets and threads > 1:
        result = _decode_all(file, limits, 1, take)
    if result.video.broken_packets > result.video.frames - len(result.damaged):
        raise Undecodable("more of the video is broken than whole")
    return result


def _decode_all(file: BinaryIO, limits: DecodeLimits, threads: int, take: Take) -> Pass:
    pts: list[int | None] = []
    damaged: set[int] = set()
    packets = 0
    first = FirstFrame(take)
    with open_video(file, limits) as video:
        video.use_threads(threads)

        def take_frames(frames: list[VideoFrame]) -> None:
            for frame in frames:
                limits.check_frames(len(pts) + 1)
                if frame.is_corrupt:
                    damaged.add(len(pts))
                first.take(len(pts), frame)
                pts.append(frame.pts)

        for packet in video.packets():
            packets += 1
            take_frames(video.decode(packet))
        take_frames(video.decode(None))
        if not pts:
            raise Undecodable("no frame of the video can be decoded")
        timing = video.times.timing(pts)
        limits.check_duration(timing.times_s[-1])
        info = first.describe(video, timing, video.broken_packets + len(damaged))
        return Pass(info, timing, packets, frozenset(damaged))
