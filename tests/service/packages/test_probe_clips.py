"""Probe clips: identical on every machine, moving, and different for each clip."""

from __future__ import annotations

import hashlib

import numpy as np

from service.clip.spec import ClipSpec, Frames, InputSpec
from service.packages.probe_clips import PROBE, probe_clips

SPEC = ClipSpec(
    frames=6, inputs=(InputSpec("little", Frames.EVEN, 48, 56), InputSpec("big", Frames.ODD, 24, 28))
)


def test_shapes_match_the_inputs() -> None:
    clips = probe_clips(SPEC, 3)
    assert {name: (frames.shape, str(frames.dtype)) for name, frames in clips.items()} == {
        "little": ((3, 3, 48, 48, 3), "uint8"),
        "big": ((3, 3, 24, 24, 3), "uint8"),
    }


def test_pixels_of_a_version_never_change() -> None:
    content = b"".join(probe_clips(SPEC)[name].tobytes() for name in ("little", "big"))
    assert (PROBE, hashlib.sha256(content).hexdigest()) == (
        1,
        "5a3e473aa4731dfb7b9df3e6cef0e12f8c264a6d79d574228630dfcf0d022973",
    )


def test_all_pixel_values_occur_and_all_frames_differ() -> None:
    little = probe_clips(SPEC)["little"]
    assert (little.min(), little.max()) == (0, 255)
    assert (little[:, :-1] != little[:, 1:]).mean() > 0.9
    assert (little[0] != little[1]).mean() > 0.9


def test_inputs_show_the_same_scene_at_their_own_size() -> None:
    spec = ClipSpec(2, (InputSpec("little", Frames.ALL, 64, 64), InputSpec("big", Frames.ALL, 32, 32)))
    clips = probe_clips(spec)
    large, small = clips["little"].astype(int), clips["big"].astype(int)
    assert np.corrcoef(large[:, :, ::2, ::2].ravel(), small.ravel())[0, 1] > 0.9
