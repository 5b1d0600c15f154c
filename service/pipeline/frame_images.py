"""The frames that the network saw, as small JPEG images for display."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.clip.geometry import crop_boxes
from service.clip.spec import ClipSpec
from service.clip.video import DecodedVideo

# 64 images of 256 x 256 pixels are about a megabyte, encoded in about 50 ms.
MAX_IMAGES = 64
MAX_SIDE = 256
QUALITY = 85
S_DIGITS = 6


@dataclass(frozen=True)
class FrameImage:
    """A frame as one input of the network received it: scaled and cropped.

    Attributes:
        input: Name of the input.
        frame: Number of the frame in the video.
        timestamp_s: Its time in seconds.
        size: Side in pixels of the square that the network received; `image` is at most 256 pixels wide.
        image: JPEG data as a `data:` URL.
    """

    input: str
    frame: int
    timestamp_s: float
    size: int
    image: str


def frame_images(spec: ClipSpec, decoded: DecodedVideo, crops: int) -> tuple[FrameImage, ...]:
    """Return the centre crop of the sampled frames in temporal order; at most 64, evenly spread.

    Args:
        spec: the network's clip, which assigns the frames to the inputs.
        decoded: the sampled frames.
        crops: crops of each clip.
    """
    # The index of the centre crop does not depend on the size of the frame.
    centre = crop_boxes(9, 5, 1, crops).index(crop_boxes(9, 5, 1, 1)[0])
    taken = [
        (time_s, index, item, decoded.inputs[item.name][clip * crops + centre][position])
        for clip, (indices, times) in enumerate(zip(decoded.indices, decoded.timestamps_s, strict=True))
        for item in spec.inputs
        for position, (index, time_s) in enumerate(
            zip(indices[item.of(spec.frames)], times[item.of(spec.frames)], strict=True)
        )
    ]
    taken.sort(key=lambda entry: entry[:2])
    kept = np.linspace(0, len(taken) - 1, min(len(taken), MAX_IMAGES)).round().astype(int)
    return tuple(
        FrameImage(item.name, index, round(time_s, S_DIGITS), item.size, _data_url(pixels))
        for time_s, index, item, pixels in (taken[position] for position in kept)
    )


def _data_url(pixels: NDArray[np.uint8]) -> str:
    image = Image.fromarray(pixels)
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    file = BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
