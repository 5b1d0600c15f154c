"""How decoding is spread over cores, and that it can be left at any point."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from service.clip import decode, views
from service.clip.decode import decode_clip
from service.clip.plan import Run, Table
from service.clip.spec import ClipSpec
from service.clip.threads import MOST_THREADS, Spread, spread
from service.errors import InvalidParameter
from tests.clips import ClipRecipe, numbered_clip
from tests.service.clip.exactness import ALL

HD, SMALL = 1920 * 1080, 320 * 240
EVERY = ClipSpec(40, ALL)


def chosen_for(cores: int, pixels: int, costs: list[int], codec: str = "h264", scaled: float = 0.0) -> Spread:
    return spread(cores, pixels, costs, codec, scaled)


@pytest.mark.parametrize("pixels", [SMALL, HD])
@pytest.mark.parametrize("costs", [[1], [5, 1], [1] * 10])
def test_one_core_gets_one_thread(pixels: int, costs: list[int]) -> None:
    assert chosen_for(1, pixels, costs) == Spread(1, 1)


@pytest.mark.parametrize("pixels", [SMALL, HD])
def test_even_runs_are_shared_out(pixels: int) -> None:
    assert chosen_for(2, pixels, [10, 9, 11, 10]) == Spread(lanes=2)
    assert chosen_for(3, pixels, [10, 9, 11]) == Spread(lanes=3)


def test_uneven_runs_are_decoded_by_frame_threads() -> None:
    assert chosen_for(2, HD, [250, 50]) == Spread(lanes=2, threads=2)
    assert chosen_for(2, HD, [1]) == Spread(threads=4)


def test_small_frames_get_no_frame_threads_but_one_for_scaling_where_that_is_much_of_the_work() -> None:
    assert chosen_for(2, SMALL, [250, 50]) == Spread(lanes=2)
    assert chosen_for(2, SMALL, [250], scaled=0.9) == Spread(aside=True)
    assert chosen_for(2, SMALL, [250], scaled=0.5) == Spread()


def test_small_frames_of_codecs_that_gain_by_it_get_frame_threads() -> None:
    for codec in ("vp8", "vp9"):
        assert chosen_for(2, SMALL, [250], codec) == Spread(threads=3)
        assert chosen_for(2, SMALL, [250, 50], codec) == Spread(lanes=2)
        assert chosen_for(2, SMALL, [250], codec, scaled=0.9) == Spread(aside=True)
        assert chosen_for(1, SMALL, [250], codec) == Spread()


def test_many_cores_do_not_make_many_threads() -> None:
    for costs in ([1], [9, 1], [1] * 100):
        chosen = chosen_for(64, HD, costs)
        assert chosen.lanes * chosen.threads <= MOST_THREADS


CLIPS = {
    "H.264": ClipRecipe(options={"g": "8", "bf": "2", "x264-params": "scenecut=0"}),
    "VP9": ClipRecipe(container="webm", codec="libvpx-vp9", options={"g": "8", "keyint_min": "8"}),
    "HEVC": ClipRecipe(
        codec="libx265", options={"x265-params": "keyint=8:min-keyint=8:pools=none:log-level=none"}
    ),
    "gif, all of which is decoded": ClipRecipe(container="gif", codec="gif", pix_fmt="rgb8"),
}


def within(seconds: float, work: Callable[[], None]) -> None:
    """Fail if `work` is not done in that time: a decoder's threads wait for one another for ever."""
    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(seconds)
    assert not worker.is_alive(), "deadlock"


@pytest.mark.parametrize("kind", CLIPS)
@pytest.mark.parametrize(
    "way", [Spread(threads=4), Spread(lanes=3), Spread(lanes=2, threads=2), Spread(aside=True)], ids=str
)
def test_decoding_can_be_left_at_every_point(kind: str, way: Spread, monkeypatch: pytest.MonkeyPatch) -> None:
    data = numbered_clip(CLIPS[kind])
    monkeypatch.setattr(decode, "spread", lambda *_: way)
    before = threading.active_count()
    original = views.Views.take

    def leave(after: int) -> None:
        taken = iter(range(after))

        def take(self: views.Views, index: int, frame: object) -> None:
            if next(taken, None) is None:
                raise InvalidParameter("enough")
            original(self, index, frame)  # type: ignore[arg-type]

        monkeypatch.setattr(views.Views, "take", take)
        with pytest.raises(InvalidParameter, match="enough"):
            decode_clip(data, EVERY)

    for after in range(40):
        within(20, lambda: leave(after))  # noqa: B023 - done before the next round
    assert threading.active_count() == before


@pytest.mark.parametrize("way", [Spread(threads=4), Spread(lanes=2)], ids=str)
def test_frames_that_fail_to_come_end_the_plan_in_every_lane(
    way: Spread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last run foretells a frame that no packet holds."""
    original = Table.plan

    def plan(table: Table, wanted: frozenset[int]) -> tuple[Run, ...]:
        *runs, last = original(table, wanted)
        return *runs, Run(last.packets, last.targets, last.reset, (*last.expected, 10**9), last.cost)

    monkeypatch.setattr(Table, "plan", plan)
    monkeypatch.setattr(decode, "spread", lambda *_: way)
    clip = decode_clip(numbered_clip(CLIPS["H.264"]), EVERY)
    assert clip.effort.full_because
    assert clip.effort.full_because.endswith("frames than the packets foretell")
    assert clip.video.frames == 40
