"""What a video may ask for, and what was found of it: plain values, which load no decoder.

The process that serves knows these alone; FFmpeg is loaded in the decode workers only.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

from service.errors import OverLimit

# Decoders round the sides of a frame up to at most so many pixels, and FFmpeg's `max_pixels` counts them.
DECODER_PADDING = 64
# FFmpeg's MPEG-4 decoder needs 60,000 for a frame of 16x16.
LEAST_DECODER_PIXELS = 2**18


@dataclass(frozen=True)
class DecodeLimits:
    """What a video may ask for. Beyond any of them decoding raises `OverLimit`, naming the field.

    Attributes:
        max_pixels: Width times height of a frame; the default takes 4K of either kind.
        max_duration_s: From the first frame to the last.
        max_frames: Frames to decode, whether or not they are sampled; ten minutes at 60 a second.
        max_decoded_pixels: Pixels of a frame times frames to decode: the work that a clip may be, or each
            window of a timeline on the average. Frames that need not be decoded do not count; the default is
            some ten seconds of two cores.
        max_streams: Tracks in the file; cameras write up to eight, fonts attached to Matroska count as well.
        max_edits: Entries in an mp4's edit list; one of 240 kB plays 48 frames 20,000 times.
        max_aspect_ratio: Longer side over shorter side, because a frame is scaled before it is cropped.
        max_windows: Windows of a timeline.
        probe_bytes: How far into a file FFmpeg looks for what its header leaves open, such as the tracks of a
            transport stream. What it has not found by then is not there: this one is not told of.
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
        """The pixels of the largest frame that passes `check_size`, padded as decoders pad each side."""
        longest_side = isqrt(int(self.max_pixels * self.max_aspect_ratio))
        padded = self.max_pixels + 2 * DECODER_PADDING * longest_side + DECODER_PADDING**2
        return max(padded, LEAST_DECODER_PIXELS)

    def check_size(self, width: int, height: int) -> None:
        """Raise `OverLimit` for a frame of too many pixels, or too long and thin."""
        if width * height > self.max_pixels:
            raise OverLimit("pixels", width * height, self.max_pixels)
        aspect_ratio = max(width, height) / max(1, min(width, height))
        if aspect_ratio > self.max_aspect_ratio:
            raise OverLimit("aspect_ratio", aspect_ratio, self.max_aspect_ratio)

    def check_frames(self, frames: int) -> None:
        """Raise `OverLimit` for too many frames."""
        if frames > self.max_frames:
            raise OverLimit("frames", frames, self.max_frames)

    def check_decoded_pixels(self, pixels: int) -> None:
        """Raise `OverLimit` for more pixels to decode than a clip may have."""
        if pixels > self.max_decoded_pixels:
            raise OverLimit("decoded_pixels", pixels, self.max_decoded_pixels)

    def check_windows(self, windows: int) -> None:
        """Raise `OverLimit` for too many windows."""
        if windows > self.max_windows:
            raise OverLimit("windows", windows, self.max_windows)

    def check_duration(self, duration_s: float) -> None:
        """Raise `OverLimit` for too long a video."""
        if duration_s > self.max_duration_s:
            raise OverLimit("duration_s", duration_s, self.max_duration_s)


@dataclass(frozen=True)
class VideoInfo:
    """What was found. Width and height are as coded; `rotation` is what brings them upright.

    `rotation` is in degrees clockwise, 0, 90, 180 or 270; `frames` counts those that decode; `fps` is their
    mean rate; `broken_packets` counts those of the packets given to the decoder that it refused, or made a
    damaged frame of.
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
