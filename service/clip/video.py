"""Limits on a video and the results of decoding one.

This module does not load a decoder: the serving process uses these plain values, and only decode workers load
FFmpeg. A worker sends `VideoSample`, `WindowSample` and `DecodedWindows` to the service unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.clip.windowing import Window
from service.errors import OverLimit

# Decoders pad each side of a frame by at most this many pixels, and FFmpeg's `max_pixels` counts them.
DECODER_PADDING = 64
# FFmpeg's MPEG-4 decoder needs a limit of 60,000 for a frame of 16x16.
MIN_DECODER_PIXELS = 2**18


@dataclass(frozen=True)
class DecodeLimits:
    """Limits on a video. Decoding raises `OverLimit` beyond any of them, naming the field.

    Attributes:
        max_pixels: Width times height of a frame. The default allows UHD and DCI 4K.
        max_duration_s: Time between the first frame and the last.
        max_frames: Frames to decode, sampled or not. The default is ten minutes at 60 frames a second.
        max_decoded_pixels: Pixels of a frame times frames to decode: the work for a video, or for each window
            on average. Frames that need not be decoded do not count. The default is about ten seconds of two
            cores.
        max_streams: Tracks in the file. Cameras write up to eight; fonts attached to Matroska also count.
        max_edits: Entries in an mp4's edit list. A list of 240 kB can show 48 frames 20,000 times.
        max_aspect_ratio: Longer side over shorter side, because a frame is scaled before it is cropped.
        max_windows: Windows of a timeline.
        probe_bytes: How far into a file FFmpeg searches for properties that the header does not state, such
            as the tracks of a transport stream. Tracks that appear later are ignored; this is not an error.
    """

    max_pixels: int = 4096 * 2304
    max_duration_s: float = 600.0
    max_frames: int = 36_000
    max_decoded_pixels: int = 20_000_000_000
    max_streams: int = 64
    max_edits: int = 1000
    max_aspect_ratio: float = 64.0
    max_windows: int = 3600
    probe_bytes: int = 5_000_000

    @property
    def padded_pixels(self) -> int:
        """Pixels of the largest frame that passes `check_size`, with the decoder's padding."""
        longest_side = isqrt(int(self.max_pixels * self.max_aspect_ratio))
        padded = self.max_pixels + 2 * DECODER_PADDING * longest_side + DECODER_PADDING**2
        return max(padded, MIN_DECODER_PIXELS)

    def check_size(self, width: int, height: int) -> None:
        """Raise `OverLimit` if a frame has too many pixels or is too elongated."""
        if width * height > self.max_pixels:
            raise OverLimit("pixels", width * height, self.max_pixels)
        aspect_ratio = max(width, height) / max(1, min(width, height))
        if aspect_ratio > self.max_aspect_ratio:
            raise OverLimit("aspect_ratio", aspect_ratio, self.max_aspect_ratio)

    def check_frames(self, frames: int) -> None:
        """Raise `OverLimit` if there are too many frames."""
        if frames > self.max_frames:
            raise OverLimit("frames", frames, self.max_frames)

    def check_decoded_pixels(self, pixels: int) -> None:
        """Raise `OverLimit` if there are too many pixels to decode."""
        if pixels > self.max_decoded_pixels:
            raise OverLimit("decoded_pixels", pixels, self.max_decoded_pixels)

    def check_windows(self, windows: int) -> None:
        """Raise `OverLimit` if there are too many windows."""
        if windows > self.max_windows:
            raise OverLimit("windows", windows, self.max_windows)

    def check_duration(self, duration_s: float) -> None:
        """Raise `OverLimit` if the video is too long."""
        if duration_s > self.max_duration_s:
            raise OverLimit("duration_s", duration_s, self.max_duration_s)


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video.

    Attributes:
        container: Name of the container.
        codec: Name of the codec.
        width: Width as coded.
        height: Height as coded.
        rotation: Degrees clockwise that bring the frames upright: 0, 90, 180 or 270.
        frames: Number of frames that decode.
        fps: Mean frames per second.
        duration_s: End of the last frame.
        broken_packets: Packets that the decoder refused, or for which it returned a damaged frame.
        timestamps: `exact` if every frame's time comes from the file; `estimated` if the file states no
            times or impossible ones, so that some or all were computed.
        track: Index of the track in the container.
    """

    container: str
    codec: str
    width: int
    height: int
    rotation: int
    frames: int
    fps: float
    duration_s: float
    broken_packets: int = 0
    timestamps: Literal["exact", "estimated"] = "exact"
    track: int = 0


@dataclass(frozen=True)
class Effort:
    """How much of a video was decoded.

    Attributes:
        packets: Packets of the video.
        decoded: Packets given to a decoder, in the pass that produced the frames.
        full_because: Why every packet was decoded; None if a plan was used.
    """

    packets: int
    decoded: int
    full_because: str | None = None


@dataclass(frozen=True, kw_only=True)
class VideoSample:
    """The frames sampled from a video, without their pixels.

    Attributes:
        video: Properties of the video.
        indices: The T frame numbers of each temporal clip, counted from 0 in display order.
        timestamps_s: Their times in seconds from the first frame of the video.
        effort: How much was decoded.
    """

    video: VideoInfo
    indices: tuple[tuple[int, ...], ...]
    timestamps_s: tuple[tuple[float, ...], ...]
    effort: Effort


@dataclass(frozen=True, kw_only=True)
class DecodedVideo(VideoSample):
    """The frames sampled from a video, in the form of the network's inputs.

    Attributes:
        inputs: Input name -> uint8 `(V, T_branch, size, size, 3)` RGB; V = clips * crops views, all crops of
            the first clip first.
    """

    inputs: dict[str, NDArray[np.uint8]]


@dataclass(frozen=True)
class WindowSample:
    """The frames sampled from one window, without their pixels.

    Attributes:
        window: The window's number, time span and frames.
        windows: Number of windows of the video, as far as known.
        indices: The T frame numbers, counted from 0 in display order of the whole video.
        timestamps_s: Their times in seconds from the first frame of the video.
    """

    window: Window
    windows: int
    indices: tuple[int, ...]
    timestamps_s: tuple[float, ...]


@dataclass(frozen=True)
class DecodedWindows:
    """Properties of a video whose windows were all handed out, and their number."""

    video: VideoInfo
    windows: int
    effort: Effort
