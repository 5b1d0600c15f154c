"""The cropping window of H.264 and HEVC is applied on all four sides, to the pixel."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext

from service.clip.decoding.clips import decode_video
from service.clip.decoding.sequential import decode_all
from service.clip.spec import ClipSpec, Frames, InputSpec
from service.clip.video import DecodeLimits
from tests.support.clips import ClipRecipe, encode, remuxed

WIDTH, HEIGHT = 128, 96
LEFT, RIGHT, TOP, BOTTOM = 26, 6, 10, 22
ENCODERS = {"h264": "libx264", "hevc": "libx265"}


def cropped(codec: str, container: str) -> bytes:
    """A video of a ramp of grey from left to right, cropped only in the headers."""
    ramp = np.broadcast_to(np.arange(WIDTH, dtype=np.uint8)[None, :, None] + 60, (HEIGHT, WIDTH, 3))
    recipe = ClipRecipe(width=WIDTH, height=HEIGHT, container="ts", codec=ENCODERS[codec])
    whole = encode([np.ascontiguousarray(ramp)] * 30, recipe)
    crop = f"crop_left={LEFT}:crop_right={RIGHT}:crop_top={TOP}:crop_bottom={BOTTOM}"
    file = io.BytesIO()
    with av.open(io.BytesIO(whole), "r") as source, av.open(file, "w", format="mpegts") as target:
        template = source.streams.video[0]
        stream = target.add_stream_from_template(template)
        headers = BitStreamFilterContext(f"{codec}_metadata={crop}", template, stream)
        for packet in source.demux(template):
            for filtered in headers.filter(packet if packet.size else None):
                filtered.stream = stream
                target.mux(filtered)
    return remuxed(file.getvalue(), lambda _index, packet: packet, container)


@pytest.mark.parametrize("codec", ENCODERS)
@pytest.mark.parametrize(("container", "is_planned"), [("mp4", True), ("matroska", True), ("raw", False)])
def test_frames_are_cropped_to_the_pixel(codec: str, container: str, is_planned: bool) -> None:
    data = cropped(codec, codec if container == "raw" else container)
    side = HEIGHT - TOP - BOTTOM
    decoded = decode_video(data, ClipSpec(4, (InputSpec("frames", Frames.ALL, side, side),)))
    assert (decoded.effort.full_because is None) == is_planned
    assert (decoded.video.width, decoded.video.height) == (WIDTH - LEFT - RIGHT, side)
    first_column = LEFT + (WIDTH - LEFT - RIGHT - side) // 2
    row = decoded.inputs["frames"][0, 0, side // 2, :, 0].astype(int)
    assert np.abs(row - np.arange(first_column, first_column + side) - 60).max() <= 3
    whole = decode_all(io.BytesIO(data), DecodeLimits(), 1, lambda _number, _frame: None)
    assert (whole.video.width, whole.video.height) == (WIDTH - LEFT - RIGHT, side)
