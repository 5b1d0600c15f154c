from __future__ import annotations

import pytest

from service.clip.spec import ClipSpec, Frames, InputSpec, Sampling


@pytest.mark.parametrize(
    ("frames", "count", "received"),
    [
        (Frames.EVEN, 4, [0, 2]),
        (Frames.EVEN, 5, [0, 2, 4]),
        (Frames.ODD, 4, [1, 3]),
        (Frames.ODD, 5, [1, 3]),
        (Frames.ALL, 3, [0, 1, 2]),
        (Frames.ALL, 1, [0]),
    ],
)
def test_inputs_receive_their_frames(frames: Frames, count: int, received: list[int]) -> None:
    item = InputSpec("clip", frames, size=8, scale=10)
    assert list(range(count))[item.of(count)] == received
    assert item.shape(count) == (len(received), 8, 8, 3)


def test_sampling_is_uniform_by_default() -> None:
    spec = ClipSpec(8, ())
    assert (spec.sampling, spec.stride) == (Sampling.UNIFORM, 1)
