"""Pixels of an example, for training and evaluation: decoded from its video, or read from JPEG pictures.

Pictures differ from videos only in the decoder. Sampling, scaling and cropping are the same code, so a
folder gives the same bytes as a Motion JPEG video of its pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from model_export.datasets.listing import Example
from service.clip.decoding.clips import decode_video
from service.clip.spec import ClipSpec
from service.clip.video import DecodeLimits
from service.clip.views import ViewPlan
from service.errors import Undecodable

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg"})
LIMITS = DecodeLimits()

# Ends every JPEG file and cannot occur within its data. FFmpeg fills in the rest of a picture that lacks it
# without reporting an error. Some writers append up to a few kilobytes of other data.
END_OF_IMAGE = b"\xff\xd9"
MAX_TRAILER_BYTES = 4096

Inputs = dict[str, npt.NDArray[np.uint8]]
"""Input name -> uint8 `(V, T_branch, size, size, 3)` RGB, for V views."""


@dataclass(frozen=True)
class Unreadable:
    """An example that could not be read, and why."""

    path: Path
    reason: str


def read_views(
    example: Example,
    spec: ClipSpec,
    *,
    clips: int = 1,
    crops: int = 1,
    only: int | None = None,
    plan: ViewPlan | None = None,
) -> Inputs:
    """Read the views of an example: `crops` crops of each of `clips` clips.

    Args:
        example: the video or folder of pictures.
        spec: the network's clip.
        clips: temporal positions.
        crops: 1, 3, 5 or 10.
        only: the index of the one clip to read; None for all.
        plan: chooses frames and crops instead of `clips`, `crops` and `only`.

    Returns:
        V = clips * crops views, or V = crops with `only`, clip by clip.

    Raises:
        BlvnetError: the example cannot be read.
        OSError: there is no such file.
    """
    plan = ViewPlan(clips, crops, only) if plan is None else plan
    if not example.path.is_dir():
        if example.span is not None:
            raise Undecodable("a start and an end need a folder of pictures, but this is a file")
        return decode_video(example.path, spec, plan=plan).inputs
    pictures = _list_pictures(example)
    views = plan.views(spec, plan.sample(spec, len(pictures)))
    decoder = av.CodecContext.create("mjpeg", "r")
    decoder.options = {"err_detect": "explode"}  # by default FFmpeg conceals damage
    for index in sorted(views.wanted):
        views.take(index, _decode_picture(pictures[index], decoder))
    return views.inputs


def _list_pictures(example: Example) -> list[Path]:
    """Pictures in the order of their names, which are numbers of a fixed length."""
    pictures = sorted(
        path
        for path in example.path.iterdir()
        if path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")
    )
    if not pictures:
        raise Undecodable("the folder contains no JPEG pictures")
    if example.span is None:
        return pictures
    first, last = example.span
    if last > len(pictures):
        raise Undecodable(f"the folder contains {len(pictures)} pictures, the list says {last}")
    return pictures[first - 1 : last]


def _decode_picture(path: Path, decoder: av.VideoCodecContext) -> av.VideoFrame:
    """Decode with FFmpeg, so that swscale converts the YUV of a picture like that of a video."""
    content = path.read_bytes()
    if END_OF_IMAGE not in content[-MAX_TRAILER_BYTES:]:
        raise Undecodable(f"{path.name} is not a JPEG picture, or is cut off")
    try:
        frames = decoder.decode(av.Packet(content))
    except av.FFmpegError as exc:
        raise Undecodable(f"{path.name} is a damaged JPEG picture") from exc
    if len(frames) != 1:
        raise Undecodable(f"{path.name} contains no picture")
    LIMITS.check_size(frames[0].width, frames[0].height)
    return frames[0]
