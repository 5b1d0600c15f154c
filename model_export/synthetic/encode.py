"""Write a video file: H.264 in mp4 or VP9 in webm, with one thread, so that the bytes are reproducible."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final, Literal

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.video.stream import VideoStream

Codec = Literal["h264", "vp9"]

SUFFIX: Final[dict[Codec, str]] = {"h264": ".mp4", "vp9": ".webm"}
_ENCODER: Final[dict[Codec, str]] = {"h264": "libx264", "vp9": "libvpx-vp9"}


@dataclass(frozen=True)
class Encoding:
    """Encoder settings: constant quality `crf`, runs of `b_frames`, a keyframe every `gop` frames."""

    codec: Codec
    fps: Fraction
    crf: int
    b_frames: int
    gop: int

    def options(self) -> dict[str, str]:
        """Options of the FFmpeg encoder."""
        common = {"crf": str(self.crf), "g": str(self.gop)}
        if self.codec == "vp9":
            return common | {"deadline": "realtime", "cpu-used": "8", "b": "0", "lag-in-frames": "0"}
        return common | {"preset": "ultrafast", "bf": str(self.b_frames)}


def write_video(path: Path, frames: npt.NDArray[np.uint8], encoding: Encoding) -> None:
    """Write RGB frames, uint8 `(frames, H, W, 3)`, H and W even; `path` needs the suffix of the codec."""
    with av.open(str(path), "w", container_options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(_ENCODER[encoding.codec], rate=encoding.fps, options=encoding.options())
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            planes = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, "yuv420p")))
        container.mux(stream.encode())
