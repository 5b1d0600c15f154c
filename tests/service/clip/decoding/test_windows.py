"""Windows of real videos, compared frame by frame with a full decode."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from service.clip.decoding import sequential as full
from service.clip.decoding import windows as timeline
from service.clip.decoding.clips import decode_video
from service.clip.decoding.planned import PlannedDecoder
from service.clip.decoding.sequential import decode_all
from service.clip.decoding.windows import decode_windows
from service.clip.sampling import sample_indices
from service.clip.spec import ClipSpec, Frames, InputSpec, Sampling
from service.clip.video import DecodedWindows, DecodeLimits, WindowSample
from service.clip.views import Views
from service.clip.windowing import WindowRule, cut, microseconds
from service.errors import NotAVideo, OverLimit, RequestError, Undecodable
from tests.hostile.by_hand import by_hand
from tests.hostile.damage import damaged_packets
from tests.hostile.item import Item
from tests.hostile.unusual import unusual
from tests.service.clip.decoding.test_oddities import PLANNED, UNPLANNED
from tests.service.clip.fields import field_coded_clip
from tests.support.clips import LOSSLESS, numbered_clip, read_numbers, remuxed

SPEC = ClipSpec(
    4, (InputSpec("little", Frames.EVEN, size=64, scale=64), InputSpec("big", Frames.ODD, size=32, scale=32))
)
B_FRAMES = {"g": "20", "bf": "2", "qp": "0", "preset": "ultrafast", "threads": "1"}
TIMES = tuple(sorted({0, 1, 2, 40, 41, 42, 60, *range(100, 400, 7), *range(900, 960)}))


@cache
def clip(kind: str) -> bytes:
    match kind:
        case "mp4":
            return numbered_clip(frames=150, options=B_FRAMES)
        case "variable rate":
            return numbered_clip(
                frames=len(TIMES), container="mkv", times=TIMES, time_base=Fraction(1, 100), options=B_FRAMES
            )
        case "vp9":
            return numbered_clip(frames=60, container="webm", codec="libvpx-vp9")
        case "no plan":
            return numbered_clip(frames=90, container="flv", codec="flv", options=dict(LOSSLESS["mpeg4"]))
        case "two packets a frame":
            return field_coded_clip(80, container="matroska", packet_per_field=True)
        case "breaks off":
            whole = numbered_clip(frames=120, container_options={"movflags": "faststart"})
            return whole[: len(whole) * 2 // 3]
        case "damaged in the middle":
            return remuxed(numbered_clip(frames=150, options=B_FRAMES), _damage, "mp4")
        case _:
            raise ValueError(kind)


def _damage(number: int, content: bytearray) -> bytearray:
    if number == 84:  # other frames refer to it
        content[10:] = bytes(len(content) - 10)
    return content


KINDS = [
    "mp4",
    "variable rate",
    "vp9",
    "no plan",
    "two packets a frame",
    "breaks off",
    "damaged in the middle",
]


@dataclass
class Collected:
    """A sink that keeps all windows; `on_window` is called with each."""

    spec: ClipSpec = SPEC
    taken: list[WindowSample] = field(default_factory=list)
    inputs: list[Mapping[str, NDArray[np.uint8]]] = field(default_factory=list)
    frames: int = 0
    frames_before: list[int] = field(default_factory=list)

    def arrays(self) -> Mapping[str, NDArray[np.uint8]]:
        arrays = {
            item.name: np.empty((1, *item.shape(self.spec.frames)), np.uint8) for item in self.spec.inputs
        }
        self.inputs.append(arrays)
        return arrays

    def hand_out(self, taken: WindowSample) -> None:
        self.taken.append(taken)
        self.frames_before.append(self.frames)

    def progress(self) -> None:
        self.frames += 1


def windows_of(
    data: bytes, window_s: float, stride_s: float, spec: ClipSpec = SPEC, first: int = 0
) -> tuple[Collected, DecodedWindows]:
    sink = Collected(spec)
    return sink, decode_windows(data, spec, WindowRule.of(window_s, stride_s), sink, first=first)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("window_s", "stride_s"), [(1.0, 1.0), (1.5, 0.4), (0.3, 0.9)])
def test_windows_have_the_frames_of_a_full_decode(kind: str, window_s: float, stride_s: float) -> None:
    data = clip(kind)
    assert_windows(data, *windows_of(data, window_s, stride_s), WindowRule.of(window_s, stride_s))


def assert_windows(data: bytes, sink: Collected, found: DecodedWindows, rule: WindowRule) -> None:
    """Assert that all windows exist, each with the frames that the rule samples from a full decode."""
    whole = decode_all(io.BytesIO(data), DecodeLimits(), 1, lambda _number, _frame: None)
    times_us = [microseconds(time) for time in whole.timing.times_s]
    windows = cut(times_us, microseconds(whole.timing.duration_s), rule)
    assert [taken.window for taken in sink.taken] == list(windows)
    assert {taken.windows for taken in sink.taken} <= {len(windows), found.windows}
    assert found.video == whole.video
    for taken, window in zip(sink.taken, windows, strict=True):
        (wanted,) = sample_indices(SPEC, len(window.frames))
        if not whole.damaged:
            assert taken.indices == tuple(window.frames[index] for index in wanted)
        assert not whole.damaged & set(taken.indices)
        assert taken.timestamps_s == tuple(whole.timing.times_s[index] for index in taken.indices)
    assert_pixels(data, sink)


def assert_pixels(data: bytes, sink: Collected) -> None:
    """Assert that each window has the pixels that its frames have in a full decode."""
    views = Views(SPEC, tuple(taken.indices for taken in sink.taken), crops=1)
    decode_all(io.BytesIO(data), DecodeLimits(), 1, views.take)
    for number, inputs in enumerate(sink.inputs):
        for name, images in inputs.items():
            assert np.array_equal(images[0], views.inputs[name][number]), (number, name)


def test_frames_carry_their_numbers() -> None:
    sink, _ = windows_of(clip("mp4"), 1, 0.5)
    for taken, inputs in zip(sink.taken, sink.inputs, strict=True):
        assert read_numbers(inputs["little"][0]) == list(taken.indices[::2])
        assert read_numbers(inputs["big"][0]) == list(taken.indices[1::2])


@pytest.mark.parametrize("sampling", Sampling)
@pytest.mark.parametrize("frames", [1, 3, 30])
def test_video_shorter_than_a_window_is_sampled_like_a_clip(sampling: Sampling, frames: int) -> None:
    spec = ClipSpec(4, SPEC.inputs, sampling, stride=3)
    data = numbered_clip(frames=frames)
    sink, found = windows_of(data, 4, 1, spec)
    (taken,) = sink.taken
    decoded = decode_video(data, spec)
    assert (taken.indices, taken.timestamps_s) == (decoded.indices[0], decoded.timestamps_s[0])
    assert found.video == decoded.video
    for name, frames_taken in decoded.inputs.items():
        assert np.array_equal(sink.inputs[0][name], frames_taken)


def test_packets_are_decoded_once_and_those_of_gaps_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = counted(monkeypatch)
    windows_of(clip("mp4"), 1, 0.25)
    overlapping = len(decoded)
    assert overlapping <= 150
    decoded.clear()
    windows_of(clip("mp4"), 0.2, 2)
    assert len(decoded) < 60


def counted(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """A list that gets every packet that is decoded by a plan."""
    decoded: list[object] = []
    feed = PlannedDecoder.feed

    def counting(lane: PlannedDecoder, packet: object) -> None:
        if packet is not None:
            decoded.append(packet)
        feed(lane, packet)  # type: ignore[arg-type]

    monkeypatch.setattr(PlannedDecoder, "feed", counting)
    return decoded


@pytest.mark.parametrize(
    ("kind", "passes"),
    [("no plan", 1), ("two packets a frame", 3), ("breaks off", 3), ("damaged in the middle", 2)],
)
def test_full_decodes_are_rare(monkeypatch: pytest.MonkeyPatch, kind: str, passes: int) -> None:
    calls: list[None] = []
    whole = full.decode_all

    def counting(*arguments: object) -> full.Pass:
        calls.append(None)
        return whole(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(timeline, "decode_all", counting)
    _, found = windows_of(clip(kind), 1, 0.25)
    assert (len(calls), found.effort.full_because is not None) == (passes, True)


@pytest.mark.parametrize("kind", ["mp4", "no plan"])
def test_windows_come_while_the_rest_is_still_to_be_decoded(kind: str) -> None:
    sink, _ = windows_of(clip(kind), 1, 1)
    assert sink.frames_before == sorted(sink.frames_before)
    assert sink.frames_before[0] <= 26 + 2
    assert sink.frames_before[-2] < sink.frames


@pytest.mark.parametrize("kind", KINDS)
def test_windows_that_start_later_are_the_same(kind: str) -> None:
    whole, _ = windows_of(clip(kind), 1, 0.5)
    rest, _ = windows_of(clip(kind), 1, 0.5, first=3)
    assert rest.taken[0].window.number == 3
    assert [item.timestamps_s for item in rest.taken] == [item.timestamps_s for item in whole.taken[3:]]
    for ours, theirs in zip(rest.inputs, whole.inputs[3:], strict=True):
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_frames_are_released_after_their_last_window(monkeypatch: pytest.MonkeyPatch) -> None:
    most = 0
    take: Callable[[timeline._WindowFrames, int, VideoFrame], None] = timeline._WindowFrames.take

    def watching(taking: timeline._WindowFrames, number: int, frame: VideoFrame) -> None:
        nonlocal most
        take(taking, number, frame)
        most = max(most, len(taking._kept))

    monkeypatch.setattr(timeline._WindowFrames, "take", watching)
    sink, _ = windows_of(clip("mp4"), 0.4, 0.2)
    assert len(sink.taken) == 29
    assert 4 <= most <= 12


@pytest.mark.parametrize(
    ("data", "limits", "error"),
    [
        (b"this is text", DecodeLimits(), NotAVideo),
        (numbered_clip(frames=40)[:900], DecodeLimits(), Undecodable),
        (numbered_clip(frames=40), DecodeLimits(max_windows=3), OverLimit),
        (numbered_clip(frames=40), DecodeLimits(max_frames=39), OverLimit),
        (numbered_clip(frames=40), DecodeLimits(max_duration_s=1.5), OverLimit),
        (numbered_clip(frames=40), DecodeLimits(max_decoded_pixels=96 * 64 * 9), OverLimit),
        (numbered_clip(frames=40, width=128), DecodeLimits(max_pixels=96 * 64), OverLimit),
    ],
)
def test_invalid_rules_are_refused(data: bytes, limits: DecodeLimits, error: type[Exception]) -> None:
    sink = Collected()
    with pytest.raises(error):
        decode_windows(data, SPEC, WindowRule.of(0.4, 0.4), sink, limits)
    assert not sink.taken


def test_work_may_grow_with_the_number_of_windows() -> None:
    sink = Collected()
    limits = DecodeLimits(max_decoded_pixels=96 * 64 * 10)
    decode_windows(numbered_clip(frames=40), SPEC, WindowRule.of(0.4, 0.4), sink, limits)
    assert len(sink.taken) == 4


@pytest.mark.parametrize("oddity", [*PLANNED, *UNPLANNED])
def test_windows_of_odd_videos_are_those_of_a_full_decode(oddity: str) -> None:
    data = (PLANNED | UNPLANNED)[oddity][0]()
    assert_windows(data, *windows_of(data, 0.6, 0.4), WindowRule.of(0.6, 0.4))


def test_unusual_videos_are_the_same_in_windows() -> None:
    for item in (*unusual(), *by_hand()):
        decoded = decode_video(item.data, SPEC)
        _, found = windows_of(item.data, 60, 60)
        assert found.video == decoded.video, item.name
        assert (found.video.frames, (found.video.width, found.video.height)) == (item.frames, item.size)


@pytest.mark.parametrize("item", [*damaged_packets()], ids=lambda item: item.name)
def test_one_window_of_a_damaged_video_is_the_clip(item: Item) -> None:
    try:
        decoded = decode_video(item.data, SPEC)
    except RequestError as exc:
        with pytest.raises(type(exc)):
            windows_of(item.data, 60, 60)
        return
    sink, found = windows_of(item.data, 60, 60)
    assert (sink.taken[0].indices, found.video) == (decoded.indices[0], decoded.video)
    for name, frames in decoded.inputs.items():
        assert np.array_equal(sink.inputs[0][name], frames)
