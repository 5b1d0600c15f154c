"""The check that planned decoding returns the same pixels and facts as a full decode."""

from __future__ import annotations

import io
from dataclasses import dataclass, field

import numpy as np
import pytest

from service.clip.decoding import clips as decode
from service.clip.decoding.clips import decode_video
from service.clip.decoding.parallelism import Parallelism
from service.clip.decoding.sequential import Pass, decode_all
from service.clip.spec import ClipSpec, Frames, InputSpec, Sampling
from service.clip.video import DecodedVideo, DecodeLimits
from service.clip.views import Views

BRANCHES = (
    InputSpec("little", Frames.EVEN, size=64, scale=64),
    InputSpec("big", Frames.ODD, size=32, scale=32),
)
ALL = (InputSpec("frames", Frames.ALL, size=64, scale=64),)
# Ways to sample that lead to very different plans.
PATTERNS: dict[str, tuple[ClipSpec, int]] = {
    "16 frames": (ClipSpec(16, BRANCHES), 1),
    "2 frames": (ClipSpec(2, ALL), 1),
    "1 frame": (ClipSpec(1, ALL), 1),
    "a window": (ClipSpec(4, ALL, Sampling.DENSE, stride=2), 1),
    "3 clips of 3": (ClipSpec(3, ALL), 3),
}
PARALLELISMS = (
    Parallelism(),
    Parallelism(scaling_thread=True),
    Parallelism(threads=3),
    Parallelism(decoders=2),
    Parallelism(decoders=3, threads=2),
)


@dataclass
class Checked:
    """The full decode, and the decoded video of each pattern."""

    whole: Pass
    clips: dict[str, DecodedVideo] = field(default_factory=dict)

    @property
    def dropped(self) -> dict[str, int]:
        """Number of packets that were not decoded, by pattern."""
        return {pattern: clip.effort.packets - clip.effort.decoded for pattern, clip in self.clips.items()}

    @property
    def reasons(self) -> set[str | None]:
        """The reasons for full decodes, over all patterns."""
        return {clip.effort.full_because for clip in self.clips.values()}


def assert_exact(data: bytes, monkeypatch: pytest.MonkeyPatch) -> Checked:
    """Check every pattern with every parallelism against a full decode, pixel by pixel."""
    found = Checked(decode_all(io.BytesIO(data), DecodeLimits(), 1, lambda _number, _frame: None))
    for pattern, (spec, clips) in PATTERNS.items():
        views: Views | None = None
        for parallelism in PARALLELISMS:
            monkeypatch.setattr(decode, "choose_parallelism", lambda *_: parallelism)  # noqa: B023 - called in this round only
            clip = found.clips[pattern] = decode_video(data, spec, clips=clips)
            if views is None:
                views = Views(spec, clip.indices, crops=1)
                decode_all(io.BytesIO(data), DecodeLimits(), 1, views.take)
            for name, images in views.inputs.items():
                assert np.array_equal(clip.inputs[name], images), (pattern, parallelism, name)
            assert_same_facts(clip, found.whole)
    return found


def assert_same_facts(clip: DecodedVideo, whole: Pass) -> None:
    """Check the facts of the video and the times of the frames against a full decode."""
    assert clip.video == whole.video
    for taken, times in zip(clip.indices, clip.timestamps_s, strict=True):
        assert times == tuple(whole.timing.times_s[index] for index in taken)
