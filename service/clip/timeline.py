"""A long video in, the inputs of each of its windows out, one after the other, from one decoding.

    source ──> list the packets ──> windows ──> their indices ──> plan ──> decode in order ──> a window when
                      │                                             │          ^               it is complete
                      │ no plan, but a timestamp for each frame     │          │
                      ├─────────────> decode every frame ───────────┼──────────┘
                      │                       │ others come than    │
                      v                       v were foretold       v
               decode every frame to learn them, cut the windows that are left anew, decode once more

The windows of a video are cut from the timestamps of its packets, before anything is decoded. A window is
handed out when its frames are known to be the right ones: by a plan, as soon as it has them, for the packets
prove which frames there are; without one, when the first frame behind it has come as foretold. So whatever
is found later, no window that was handed out was wrong.

A frame is decoded and scaled once, whatever the number of windows that want it, and let go with the last of
them. One thread decodes: a timeline goes on for long, beside clips whose callers wait.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO, Protocol

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from service.clip.bitstream.coded import Unplannable
from service.clip.container import Source, open_video, opened
from service.clip.decode import undamaged, video_info
from service.clip.full import FirstFrame, Pass, decode_all
from service.clip.geometry import crop_boxes
from service.clip.packets import ReadAgain, list_packets
from service.clip.running import Lane, decode_in_order
from service.clip.sampling import sample_indices
from service.clip.scaling import ScaledFrame, Scaler
from service.clip.spec import ClipSpec, InputSpec
from service.clip.timing import Timing, frame_timing
from service.clip.video import DecodeLimits, VideoInfo
from service.clip.windows import Window, WindowRule, cut, microseconds
from service.errors import Undecodable


@dataclass(frozen=True)
class TakenWindow:
    """A window, of so many, and the frames that were taken for it.

    Attributes:
        window: Its number, time and frames.
        windows: How many the video has, as far as is known.
        indices: The T frames taken, counted from 0 in the order of showing.
        timestamps_s: Their times in seconds from the first frame of the video.
    """

    window: Window
    windows: int
    indices: tuple[int, ...]
    timestamps_s: tuple[float, ...]


@dataclass(frozen=True)
class DecodedTimeline:
    """What was found when all is over. `full_because`: why every packet had to be decoded, if so."""

    video: VideoInfo
    windows: int
    full_because: str | None = None


class Sink(Protocol):
    """Where windows go."""

    def arrays(self) -> Mapping[str, NDArray[np.uint8]]:
        """Room for the next window: input name -> uint8 `(1, T_branch, size, size, 3)`; may wait for it."""
        ...

    def hand_out(self, taken: TakenWindow) -> None:
        """What was put into the arrays last."""
        ...

    def alive(self) -> None:
        """A frame was decoded; called for each."""
        ...


def decode_timeline(
    source: Source,
    spec: ClipSpec,
    rule: WindowRule,
    sink: Sink,
    limits: DecodeLimits = DecodeLimits(),  # noqa: B008 - frozen
    *,
    first: int = 0,
) -> DecodedTimeline:
    """Hand the windows of a video to `sink`, from window `first` on.

    Each is sampled by the rule of `spec` over its own frames, as a clip that had no others would be.

    Raises:
        NotAVideo: no container that we take, or no video stream in it.
        Undecodable: a video, but no frame can be had from it.
        OverLimit: past one of `limits`; `max_decoded_pixels` holds for each window on the average.
        OSError: a path that cannot be opened.
    """
    with opened(source) as file:
        task = _Task(file, spec, rule, sink, limits, first)
        outcome = _by_plan(task)
        if isinstance(outcome, _NoPlan) and outcome.timing is not None:
            outcome = _as_foretold(task, outcome, outcome.timing)
        return outcome if isinstance(outcome, DecodedTimeline) else _as_found(task, outcome)


@dataclass
class _Task:
    """What is asked for; `next` is the number of the window that is to be handed out next."""

    file: BinaryIO
    spec: ClipSpec
    rule: WindowRule
    sink: Sink
    limits: DecodeLimits
    next: int

    def limits_for(self, windows: int) -> DecodeLimits:
        """The limits, for so many windows."""
        return replace(self.limits, max_decoded_pixels=self.limits.max_decoded_pixels * windows)

    def cut(self, timing: Timing, damaged: frozenset[int] = frozenset()) -> _Taking:
        """The windows of a video with this timing, to take those that are left."""
        duration_us = microseconds(timing.duration_s)
        self.limits.check_windows(self.rule.count(duration_us))
        windows = cut([microseconds(time) for time in timing.times_s], duration_us, self.rule)
        indices = tuple(_indices(self.spec, window) for window in windows)
        return _Taking(self, windows, undamaged(indices, len(timing.times_s), damaged), timing)


def _indices(spec: ClipSpec, window: Window) -> tuple[int, ...]:
    """The T frames of a window, by the rule for clips."""
    (taken,) = sample_indices(spec, len(window.frames))
    return tuple(window.frames[index] for index in taken)


class _Taking:
    """Scales the frames that windows want, and hands each window out when it has them all.

    Args:
        task: whose windows are handed out, from its `next` on.
        windows: all of them.
        indices: the frames that each takes.
        timing: of the video.
    """

    def __init__(
        self, task: _Task, windows: tuple[Window, ...], indices: Sequence[tuple[int, ...]], timing: Timing
    ) -> None:
        self.windows = windows
        self.limits = task.limits_for(len(windows))
        self.task = task
        self._indices = indices
        self._timing = timing
        self._scalers: dict[int, Scaler] = {}
        self._wants: dict[int, list[InputSpec]] = {}
        self._last_use: dict[int, int] = {}
        self._kept: dict[tuple[int, str], NDArray[np.uint8]] = {}
        for window in windows[task.next :]:
            for item in task.spec.inputs:
                for index in indices[window.number][item.of(task.spec.frames)]:
                    wants = self._wants.setdefault(index, [])
                    if item not in wants:
                        wants.append(item)
                    self._last_use[index] = window.number

    @property
    def wanted(self) -> frozenset[int]:
        """The numbers of the frames that are taken."""
        return frozenset(self._wants)

    def take(self, number: int, frame: VideoFrame) -> None:
        """Keep what windows want of a frame."""
        self.task.sink.alive()
        scaled: dict[int, ScaledFrame] = {}
        for item in self._wants.get(number, ()):
            if item.scale not in self._scalers:
                self._scalers[item.scale] = Scaler(item.scale)
            if item.scale not in scaled:
                scaled[item.scale] = self._scalers[item.scale].scaled(frame)
            image = scaled[item.scale]
            (crop,) = crop_boxes(image.width, image.height, item.size, 1)
            self._kept[number, item.name] = np.empty((item.size, item.size, 3), np.uint8)
            image.copy_crop(crop, self._kept[number, item.name])

    def hand_out_complete(self, number: int) -> None:
        """Hand out the windows of which frame `number` was the last to be taken."""
        self._hand_out(lambda window: max(self._indices[window.number]) <= number)

    def hand_out_past(self, number: int) -> None:
        """Hand out the windows that lie before frame `number`."""
        self._hand_out(lambda window: window.frames.stop <= number)

    def hand_out_rest(self) -> None:
        """Hand out all that are left, the last frame having come."""
        self._hand_out(lambda _window: True)

    def _hand_out(self, ready: Callable[[Window], bool]) -> None:
        while self.task.next < len(self.windows) and ready(self.windows[self.task.next]):
            window = self.windows[self.task.next]
            taken = self._indices[window.number]
            self._fill(self.task.sink.arrays(), taken)
            times_s = tuple(self._timing.times_s[index] for index in taken)
            self.task.sink.hand_out(TakenWindow(window, len(self.windows), taken, times_s))
            self.task.next += 1
            self._let_go(window)

    def _fill(self, arrays: Mapping[str, NDArray[np.uint8]], taken: tuple[int, ...]) -> None:
        for item in self.task.spec.inputs:
            for moment, index in enumerate(taken[item.of(self.task.spec.frames)]):
                arrays[item.name][0, moment] = self._kept[index, item.name]

    def _let_go(self, window: Window) -> None:
        """Drop the frames that no later window wants."""
        for index in set(self._indices[window.number]):
            if self._last_use.get(index) == window.number:
                for item in self._wants[index]:
                    del self._kept[index, item.name]


@dataclass(frozen=True)
class _NoPlan:
    """What is known when all has to be decoded.

    Attributes:
        because: Why it has to.
        pixels: What there is to decode, by the packets' word.
        limits: Those that hold for it, for so many windows.
        timestamps: When frames are shown, where the packets say it of each.
        timing: That in seconds.
    """

    because: str
    pixels: int
    limits: DecodeLimits
    timestamps: tuple[int, ...] = ()
    timing: Timing | None = None


def _by_plan(task: _Task) -> DecodedTimeline | _NoPlan:
    """Decode what the windows depend on, and the first frame, which tells what the video is."""
    with open_video(task.file, task.limits, peek=False) as video:
        listing = list_packets(video, task.limits)
        everything = listing.pixels * listing.frames
        if len(listing.timestamps) < listing.frames:
            return _NoPlan(listing.problem, everything, task.limits_for(task.limits.max_windows))
        table = listing.table
        timestamps = listing.timestamps if table is None else table.timestamps
        timing = frame_timing(timestamps, video.time_base, video.stated_rate)
        taking = task.cut(timing)
        if table is None:
            return _NoPlan(listing.problem, everything, taking.limits, timestamps, timing)
        found: list[FirstFrame] = []

        def take(number: int, frame: VideoFrame) -> None:
            if number == 0:
                found.append(FirstFrame.of(frame))
            taking.take(number, frame)
            taking.hand_out_complete(number)

        runs = table.plan(taking.wanted | {0})
        taking.limits.check_decoded_pixels(listing.pixels * sum(len(run.packets) for run in runs))
        numbers = {pts: number for number, pts in enumerate(timestamps)}
        try:
            with open_video(task.file, taking.limits, peek=False) as decoding:
                packets = listing.packets or ReadAgain(decoding)
                decode_in_order(runs, Lane(decoding, numbers, take), packets)
        except Unplannable as exc:
            return _NoPlan(str(exc), everything, taking.limits)
        return DecodedTimeline(video_info(video, found[0], timing), len(taking.windows))


def _as_foretold(task: _Task, known: _NoPlan, timing: Timing) -> DecodedTimeline | _NoPlan:
    """Decode every frame, as long as those come that the packets foretell."""
    known.limits.check_decoded_pixels(known.pixels)
    taking = task.cut(timing)
    expected = known.timestamps

    def take(number: int, frame: VideoFrame) -> None:
        if number >= len(expected) or frame.pts != expected[number] or frame.is_corrupt:
            raise Unplannable("other frames than the packets foretell")
        taking.hand_out_past(number)
        taking.take(number, frame)

    try:
        found = decode_all(task.file, known.limits, 1, take)
    except Unplannable as exc:
        return replace(known, because=str(exc))
    if found.frames < len(expected):
        return replace(known, because="fewer frames than the packets foretell")
    return _finished(taking, found, known.because)


def _as_found(task: _Task, known: _NoPlan) -> DecodedTimeline:
    """Decode every frame to learn which there are, then once more for the windows that are left.

    Frames are numbered anew: those that do not decode do not count.

    Raises:
        Undecodable: as `decode_all`, or the second time other frames come than the first.
    """
    known.limits.check_decoded_pixels(known.pixels)
    whole = decode_all(task.file, known.limits, 1, lambda _number, _frame: task.sink.alive())
    taking = task.cut(whole.timing, whole.damaged)

    def take(number: int, frame: VideoFrame) -> None:
        taking.take(number, frame)
        taking.hand_out_complete(number)

    found = decode_all(task.file, taking.limits, 1, take)
    if (found.frames, found.damaged) != (whole.frames, whole.damaged):
        raise Undecodable("the video decodes to other frames each time")
    return _finished(taking, found, known.because)


def _finished(taking: _Taking, found: Pass, because: str) -> DecodedTimeline:
    taking.hand_out_rest()
    video = video_info(found, found.first, found.timing, found.broken_packets)
    return DecodedTimeline(video, max(len(taking.windows), taking.task.next), because)
