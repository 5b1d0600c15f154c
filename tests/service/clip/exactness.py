"""Whether planned decoding gives what decoding everything gives: the check that tests of oddities share."""

from __future__ import annotations

import io
from dataclasses import dataclass, field

import numpy as np
import pytest

from service.clip import decode
from service.clip.decode import DecodedClip, decode_clip
from service.clip.full import Pass, decode_all
from service.clip.spec import ClipSpec, Frames, InputSpec, Sampling
from service.clip.threads import Spread
from service.clip.video import DecodeLimits
from service.clip.views import Views

BRANCHES = (
    InputSpec("little", Frames.EVEN, size=64, scale=64),
    InputSpec("big", Frames.ODD, size=32, scale=32),
)
ALL = (InputSpec("frames", Frames.ALL, size=64, scale=64),)
# Ways to sample that make very different plans: few and far between, a window, everything.
PATTERNS: dict[str, tuple[ClipSpec, int]] = {
    "16 frames": (ClipSpec(16, BRANCHES), 1),
    "2 frames": (ClipSpec(2, ALL), 1),
    "1 frame": (ClipSpec(1, ALL), 1),
    "a window": (ClipSpec(4, ALL, Sampling.DENSE, stride=2), 1),
    "3 clips of 3": (ClipSpec(3, ALL), 3),
}
SPREADS = (Spread(), Spread(aside=True), Spread(threads=3), Spread(lanes=2), Spread(lanes=3, threads=2))


@dataclass
class Checked:
    """What was found: the planned clips, by pattern, and the pass over everything."""

    whole: Pass
    clips: dict[str, DecodedClip] = field(default_factory=dict)

    @property
    def dropped(self) -> dict[str, int]:
        """How many packets were not decoded, by pattern."""
        return {pattern: clip.effort.packets - clip.effort.decoded for pattern, clip in self.clips.items()}

    @property
    def reasons(self) -> set[str | None]:
        """Why everything was decoded, over all patterns."""
        return {clip.effort.full_because for clip in self.clips.values()}


def assert_exact(data: bytes, monkeypatch: pytest.MonkeyPatch) -> Checked:
    """Every pattern, on every spread of threads, gives the very pixels and facts of a full decode."""
    found = Checked(decode_all(io.BytesIO(data), DecodeLimits(), 1, lambda _number, _frame: None))
    for pattern, (spec, clips) in PATTERNS.items():
        views: Views | None = None
        for spread in SPREADS:
            monkeypatch.setattr(decode, "spread", lambda *_: spread)  # noqa: B023 - called in this round only
            clip = found.clips[pattern] = decode_clip(data, spec, clips=clips)
            if views is None:
                views = Views(spec, clip.indices, crops=1)
                decode_all(io.BytesIO(data), DecodeLimits(), 1, views.take)
            for name, images in views.inputs.items():
                assert np.array_equal(clip.inputs[name], images), (pattern, spread, name)
            assert_same_facts(clip, found.whole)
    return found


def assert_same_facts(clip: DecodedClip, whole: Pass) -> None:
    """Size, number and times of the frames are those of a full decode."""
    video = clip.video
    assert (video.container, video.codec) == (whole.container, whole.codec)
    assert (video.width, video.height, video.rotation) == (
        whole.first.width,
        whole.first.height,
        whole.first.rotation,
    )
    assert (video.frames, video.broken_packets) == (whole.frames, whole.broken_packets)
    assert (video.fps, video.duration_s) == (whole.timing.fps, whole.timing.duration_s)
    for taken, times in zip(clip.indices, clip.timestamps_s, strict=True):
        assert times == tuple(whole.timing.times_s[index] for index in taken)
