"""The images of an answer: the centre crop of each sampled frame, in temporal order."""

from __future__ import annotations

import base64
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.clip.geometry import crop_boxes
from service.clip.spec import ClipSpec, Frames, InputSpec
from service.pipeline.frame_images import MAX_IMAGES, FrameImage, frame_images
from tests.support.tiny_models import ONE_STREAM, TWO_STREAMS


def decoded(spec: ClipSpec, clips: int, crops: int) -> Any:
    """Views whose grey says the view and the position in the input: 25 * view + position."""
    inputs = {}
    for item in spec.inputs:
        frames, *size = item.shape(spec.frames)
        greys = 25 * np.arange(clips * crops)[:, None] + np.arange(frames)
        inputs[item.name] = np.broadcast_to(
            greys[..., None, None, None].astype(np.uint8), (clips * crops, frames, *size)
        )
    indices = [tuple(range(clip, clips * spec.frames, clips)) for clip in range(clips)]
    times = [tuple(index / 3 for index in clip) for clip in indices]
    return SimpleNamespace(inputs=inputs, indices=indices, timestamps_s=times)


def grey(image: FrameImage) -> int:
    picture = Image.open(BytesIO(base64.b64decode(image.image.removeprefix("data:image/jpeg;base64,"))))
    return round(float(np.asarray(picture).mean()))


@pytest.mark.parametrize("crops", [1, 3, 5])
def test_images_are_the_centre_crops_of_all_clips_in_temporal_order(crops: int) -> None:
    centre = [(crop.left, crop.top) for crop in crop_boxes(9, 5, 1, crops)].index((4, 2))
    images = frame_images(TWO_STREAMS, decoded(TWO_STREAMS, 2, crops), crops)
    assert [image.frame for image in images] == list(range(16))
    assert [image.timestamp_s for image in images] == [round(index / 3, 6) for index in range(16)]
    assert [image.input for image in images] == ["little", "little", "big", "big"] * 4
    assert [image.size for image in images] == [32, 32, 16, 16] * 4
    # Two clips take turns, and in each of them two inputs.
    expected = [25 * (clip * crops + centre) + position // 2 for position in range(8) for clip in range(2)]
    assert [grey(image) for image in images] == pytest.approx(expected, abs=1)


def test_at_most_64_images_are_spread_evenly_and_include_both_ends() -> None:
    images = frame_images(ONE_STREAM, decoded(ONE_STREAM, 10, 1), 1)
    frames = [image.frame for image in images]
    assert len(frames) == MAX_IMAGES == 64
    assert (frames[0], frames[-1]) == (0, 79)
    assert set(np.diff(frames)) == {1, 2}


def test_large_inputs_are_shown_at_256_pixels() -> None:
    spec = ClipSpec(frames=1, inputs=(InputSpec("frames", Frames.ALL, 300, 300),))
    (image,) = frame_images(spec, decoded(spec, 1, 1), 1)
    data = base64.b64decode(image.image.partition(",")[2])
    assert (image.size, Image.open(BytesIO(data)).size) == (300, (256, 256))
