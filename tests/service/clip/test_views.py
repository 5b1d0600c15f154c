from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from av.video.frame import VideoFrame

from service.clip.spec import ClipSpec, Frames, InputSpec
from service.clip.views import MAX_PENDING, FrameScaler, ViewPlan, Views, in_own_thread
from service.errors import InvalidParameter, Undecodable

SPEC = ClipSpec(
    4,
    (InputSpec("big", Frames.ODD, size=16, scale=16), InputSpec("little", Frames.EVEN, size=8, scale=8)),
)


def grey(value: int, width: int = 32, height: int = 16) -> VideoFrame:
    return VideoFrame.from_ndarray(np.full((height, width, 3), value, np.uint8), format="rgb24")


def test_frames_fill_every_place_that_samples_them() -> None:
    views = Views(SPEC, ((0, 1, 2, 3), (2, 3, 3, 5)), crops=3)
    assert views.wanted == {0, 1, 2, 3, 5}
    for number in (0, 1, 2, 3, 4, 5):  # frame 4 is not sampled
        views.take(number, grey(40 * number))
    assert views.inputs["big"].shape == (6, 2, 16, 16, 3)
    assert views.inputs["little"].shape == (6, 2, 8, 8, 3)
    # Rows: three crops of the first clip, then those of the second.
    assert views.inputs["big"][:, :, 0, 0, 0].tolist() == [[40, 120]] * 3 + [[120, 200]] * 3
    assert views.inputs["little"][:, :, 0, 0, 0].tolist() == [[0, 80]] * 3 + [[80, 120]] * 3


def test_each_frame_is_scaled_once_for_each_size() -> None:
    # Frame 3 is used by both inputs, at two sizes.
    assert Views(SPEC, ((0, 1, 2, 3), (2, 3, 3, 5)), crops=1).scalings == 6
    same_scale = tuple(replace(item, scale=16) for item in SPEC.inputs)
    assert Views(replace(SPEC, inputs=same_scale), ((0, 1, 2, 3), (2, 3, 3, 5)), crops=1).scalings == 5


def test_given_arrays_are_filled() -> None:
    out = {item.name: np.zeros((1, *item.shape(4)), np.uint8) for item in SPEC.inputs}
    views = ViewPlan().views(SPEC, ((0, 0, 0, 0),), out)
    views.take(0, grey(77))
    assert all((array == 77).all() for array in out.values())


def test_scaled_frames_have_the_wanted_shorter_side() -> None:
    scaled = FrameScaler().scaled(grey(1), (8, 4, 8))
    assert {scale: (image.width, image.height) for scale, image in scaled.items()} == {8: (16, 8), 4: (8, 4)}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"clips": 0}, "clips must be at least 1"),
        ({"crops": 2}, "crops must be one of 1, 3, 5, 10"),
        ({"clips": 2, "only": 2}, "there is no clip 2 of 2"),
        ({"clips": 2, "only": -1}, "there is no clip -1 of 2"),
    ],
)
def test_plans_out_of_range_are_refused(values: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidParameter, match=f"^{message}$"):
        ViewPlan(**values)


def test_one_clip_of_several_is_sampled_as_among_all() -> None:
    both = ViewPlan(clips=2).sample(SPEC, 20)
    assert len(both) == 2
    assert ViewPlan(clips=2, only=0).sample(SPEC, 20) == both[:1]
    assert ViewPlan(clips=2, only=1).sample(SPEC, 20) == both[1:]


def test_frames_are_taken_in_one_other_thread_before_the_block_ends() -> None:
    taken, threads = [], set()

    def take(number: int, frame: VideoFrame) -> None:
        taken.append(number)
        threads.add(threading.get_ident())

    with in_own_thread(take) as submit:
        for number in range(10):
            submit(number, grey(number))
    assert taken == list(range(10))
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


def test_no_more_frames_wait_than_allowed() -> None:
    may_go, submitted = threading.Event(), []

    def take(number: int, frame: VideoFrame) -> None:
        may_go.wait(20)

    with in_own_thread(take) as submit:

        def fill() -> None:
            for number in range(MAX_PENDING + 1):
                submit(number, grey(0))
                submitted.append(number)

        filling = threading.Thread(target=fill)
        filling.start()
        while len(submitted) < MAX_PENDING:
            filling.join(0.01)
        filling.join(0.05)
        # The last frame blocks until the first is done.
        assert submitted == list(range(MAX_PENDING))
        may_go.set()
        filling.join()


def test_error_of_the_other_thread_is_raised() -> None:
    def take(number: int, frame: VideoFrame) -> None:
        raise Undecodable("no pixels")

    with pytest.raises(Undecodable, match="no pixels"), in_own_thread(take) as submit:
        submit(0, grey(0))
