"""Decoding uses the cores as measured, and can be aborted at any frame."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from service.clip import views
from service.clip.decoding import clips as decode
from service.clip.decoding.clips import decode_video
from service.clip.decoding.parallelism import MAX_THREADS, Parallelism, choose_parallelism
from service.clip.decoding.plan import PacketIndex, PacketRun
from service.clip.spec import ClipSpec
from service.errors import InvalidParameter
from tests.service.clip.decoding.exactness import ALL
from tests.support.clips import ClipRecipe, numbered_clip

HD, SMALL = 1920 * 1080, 320 * 240
EVERY = ClipSpec(40, ALL)


def chosen_for(
    cores: int, pixels: int, costs: list[int], codec: str = "h264", scalings: float = 0.0
) -> Parallelism:
    return choose_parallelism(cores, pixels, costs, codec, scalings)


@pytest.mark.parametrize("pixels", [SMALL, HD])
@pytest.mark.parametrize("costs", [[1], [5, 1], [1] * 10])
def test_one_core_gets_one_thread(pixels: int, costs: list[int]) -> None:
    assert chosen_for(1, pixels, costs) == Parallelism(1, 1)


@pytest.mark.parametrize("pixels", [SMALL, HD])
def test_even_runs_get_a_decoder_per_core(pixels: int) -> None:
    assert chosen_for(2, pixels, [10, 9, 11, 10]) == Parallelism(decoders=2)
    assert chosen_for(3, pixels, [10, 9, 11]) == Parallelism(decoders=3)


def test_uneven_runs_get_frame_threads() -> None:
    assert chosen_for(2, HD, [250, 50]) == Parallelism(decoders=2, threads=2)
    assert chosen_for(2, HD, [1]) == Parallelism(threads=4)


def test_small_frames_get_a_scaling_thread_if_scaling_is_much_of_the_work() -> None:
    assert chosen_for(2, SMALL, [250, 50]) == Parallelism(decoders=2)
    assert chosen_for(2, SMALL, [250], scalings=0.9) == Parallelism(scaling_thread=True)
    assert chosen_for(2, SMALL, [250], scalings=0.5) == Parallelism()


def test_small_frames_of_theora_and_vp9_get_frame_threads() -> None:
    for codec in ("theora", "vp9"):
        assert chosen_for(2, SMALL, [250], codec) == Parallelism(threads=3)
        assert chosen_for(2, SMALL, [250, 50], codec) == Parallelism(decoders=2)
        assert chosen_for(2, SMALL, [250], codec, scalings=0.9) == Parallelism(scaling_thread=True)
        assert chosen_for(1, SMALL, [250], codec) == Parallelism()


def test_vp8_never_gets_frame_threads() -> None:
    for pixels in (SMALL, HD):
        assert chosen_for(2, pixels, [250], "vp8") == Parallelism()
        assert chosen_for(2, pixels, [250, 50], "vp8") == Parallelism(decoders=2)


def test_the_number_of_threads_is_limited_on_many_cores() -> None:
    for costs in ([1], [9, 1], [1] * 100):
        chosen = chosen_for(64, HD, costs)
        assert chosen.decoders * chosen.threads <= MAX_THREADS


CLIPS = {
    "H.264": ClipRecipe(options={"g": "8", "bf": "2", "x264-params": "scenecut=0"}),
    "VP9": ClipRecipe(container="webm", codec="libvpx-vp9", options={"g": "8", "keyint_min": "8"}),
    "HEVC": ClipRecipe(
        codec="libx265", options={"x265-params": "keyint=8:min-keyint=8:pools=none:log-level=none"}
    ),
    "GIF, decoded in full": ClipRecipe(container="gif", codec="gif", pix_fmt="rgb8"),
}


def within(seconds: float, work: Callable[[], None]) -> None:
    """Fail if `work` takes longer, as it does when the threads of a decoder deadlock."""
    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(seconds)
    assert not worker.is_alive(), "deadlock"


@pytest.mark.parametrize("kind", CLIPS)
@pytest.mark.parametrize(
    "way",
    [
        Parallelism(threads=4),
        Parallelism(decoders=3),
        Parallelism(decoders=2, threads=2),
        Parallelism(scaling_thread=True),
    ],
    ids=str,
)
def test_decoding_can_be_aborted_at_every_frame(
    kind: str, way: Parallelism, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = numbered_clip(CLIPS[kind])
    monkeypatch.setattr(decode, "choose_parallelism", lambda *_: way)
    before = threading.active_count()
    original = views.Views.take

    def abort(after: int) -> None:
        taken = iter(range(after))

        def take(self: views.Views, index: int, frame: object) -> None:
            if next(taken, None) is None:
                raise InvalidParameter("enough")
            original(self, index, frame)  # type: ignore[arg-type]

        monkeypatch.setattr(views.Views, "take", take)
        with pytest.raises(InvalidParameter, match="enough"):
            decode_video(data, EVERY)

    for after in range(40):
        within(20, lambda: abort(after))  # noqa: B023 - done before the next round
    assert threading.active_count() == before


@pytest.mark.parametrize("way", [Parallelism(threads=4), Parallelism(decoders=2)], ids=str)
def test_a_missing_frame_invalidates_the_plan_of_every_decoder(
    way: Parallelism, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last run expects a frame that no packet holds."""
    original = PacketIndex.plan

    def plan(index: PacketIndex, wanted: frozenset[int]) -> tuple[PacketRun, ...]:
        *runs, last = original(index, wanted)
        return *runs, PacketRun(last.packets, last.targets, last.reset, (*last.expected, 10**9), last.cost)

    monkeypatch.setattr(PacketIndex, "plan", plan)
    monkeypatch.setattr(decode, "choose_parallelism", lambda *_: way)
    clip = decode_video(numbered_clip(CLIPS["H.264"]), EVERY)
    assert clip.effort.full_because
    assert clip.effort.full_because.startswith("the decoder returned")
    assert clip.video.frames == 40
