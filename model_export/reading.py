"""Pixels of a clip for training and evaluation: of a video as the service decodes it, or of JPEG pictures.

Pictures take the same way from the decoder on: the sampling rule, the scaler and the crops are those of
videos, so a folder gives the very bytes that a Motion JPEG video of the same pictures gives.
"""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from model_export.datasets import Clip
from service.clip.decode import decode_clip
from service.clip.sampling import sample_indices
from service.clip.spec import ClipSpec
from service.clip.video import DecodeLimits
from service.clip.views import Views
from service.errors import Undecodable

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg"})
LIMITS = DecodeLimits()

# The marker that a JPEG file ends with, and how far from the end it may be. The picture's data cannot hold
# it; without it FFmpeg makes up the rest of the picture and says nothing.
END_OF_IMAGE = b"\xff\xd9"
MOST_BEHIND = 4096

Inputs = dict[str, npt.NDArray[np.uint8]]


def read_clip(
    clip: Clip, spec: ClipSpec, *, clips: int = 1, crops: int = 1, only: int | None = None
) -> Inputs:
    """Input name -> uint8 `(V, T_branch, size, size, 3)` RGB, V = clips * crops views as of `decode_clip`.

    `only` is the one of the `clips` to read, if not all of them.

    Raises:
        BlvnetError: the clip cannot be read.
        OSError: there is no such file.
    """
    if not clip.path.is_dir():
        if clip.span is not None:
            raise Undecodable("a start and an end are those of a folder of pictures, this is none")
        return decode_clip(clip.path, spec, clips=clips, crops=crops, only=only).inputs
    pictures = _pictures(clip)
    indices = sample_indices(spec, len(pictures), clips)
    views = Views(spec, indices if only is None else (indices[only],), crops)
    decoder = av.CodecContext.create("mjpeg", "r")
    decoder.options = {"err_detect": "explode"}
    for index in sorted(views.wanted):
        views.take(index, _decoded(pictures[index], decoder))
    return views.inputs


def _pictures(clip: Clip) -> list[Path]:
    """The clip's pictures in the order of their names, which are numbers of a fixed length."""
    pictures = sorted(path for path in clip.path.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)
    if not pictures:
        raise Undecodable("the folder holds no JPEG pictures")
    if clip.span is None:
        return pictures
    first, last = clip.span
    if last > len(pictures):
        raise Undecodable(f"the folder holds {len(pictures)} pictures, the list says {last}")
    return pictures[first - 1 : last]


def _decoded(path: Path, decoder: av.VideoCodecContext) -> av.VideoFrame:
    """One picture, by FFmpeg's decoder: swscale then converts its YUV as it does that of a video."""
    content = path.read_bytes()
    if END_OF_IMAGE not in content[-MOST_BEHIND:]:
        raise Undecodable(f"{path.name} is no JPEG picture, or cut off")
    try:
        frames = decoder.decode(av.Packet(content))
    except av.FFmpegError as exc:
        raise Undecodable(f"{path.name} is a damaged JPEG picture") from exc
    if len(frames) != 1:
        raise Undecodable(f"{path.name} holds no picture")
    LIMITS.check_size(frames[0].width, frames[0].height)
    return frames[0]
