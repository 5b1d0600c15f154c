"""Decode the windows of a long video in order, in one pass.

    source ──> scan the packets ──> windows ──> sample ──> plan ──> decode ──> hand out each window when its
                      │                                       │       ^        last sampled frame is decoded
                      │ no plan, but a timestamp per frame    │       │
                      ├─────────────> decode every packet ────┼───────┘
                      │                       │ other frames  │
                      v                       v than expected v
               decode every packet to learn the frames, cut the remaining windows again, decode again

Windows are cut according to the timestamps of the packets, before anything is decoded. A window is handed out
when its frames are known to be the right ones. A plan proves the frames, so each window is handed out as soon
as it is complete. Without a plan a window waits for the first frame after it. So later frames never make a
window wrong that was already handed out.

A frame is decoded and scaled once, even if several windows sample it, and dropped after the last of these
windows. One thread decodes, because timelines run for a long time alongside videos whose callers wait.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO, Protocol

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from service.clip.bitstream.packet_info import Unplannable
from service.clip.decoding.container import OpenVideo, Source, open_video, opened
from service.clip.decoding.packets import PacketScan, SecondPass, scan_packets
from service.clip.decoding.planned import PlannedDecoder, decode_serial
from service.clip.decoding.sequential import FirstFrame, decode_all
from service.clip.geometry import crop_boxes
from service.clip.sampling import replace_damaged, sample_indices
from service.clip.spec import ClipSpec, InputSpec
from service.clip.timing import MAX_REORDER_STEPS, Timing
from service.clip.video import DecodedWindows, DecodeLimits, Effort, WindowSample
from service.clip.views import FrameScaler
from service.clip.windowing import Window, WindowRule, cut, microseconds
from service.errors import Undecodable


class WindowSink(Protocol):
    """Receives the windows."""

    def arrays(self) -> Mapping[str, NDArray[np.uint8]]:
        """Return the arrays for the next window, waiting until they are free.

        Input name -> uint8 `(1, T_branch, size, size, 3)`.
        """
        ...

    def hand_out(self, sample: WindowSample) -> None:
        """Receive the window whose frames are in the most recently returned arrays."""
        ...

    def progress(self) -> None:
        """Note that a frame was decoded."""
        ...


def decode_windows(
    source: Source,
    spec: ClipSpec,
    rule: WindowRule,
    sink: WindowSink,
    limits: DecodeLimits = DecodeLimits(),  # noqa: B008 - frozen
    *,
    first: int = 0,
) -> DecodedWindows:
    """Decode the windows of a video, from number `first` on, into `sink`.

    Each window is sampled as if its frames were the whole video.

    Raises:
        NotAVideo: The container is not accepted, or holds no video track.
        Undecodable: The file is a video, but no frame can be decoded.
        OverLimit: The video exceeds one of `limits`; `max_decoded_pixels` applies to each window on average.
        OSError: The path cannot be opened.
    """
    with opened(source) as file:
        request = _WindowsRequest(file, spec, rule, sink, limits, first, limits.max_windows)
        with open_video(file, limits, peek=False) as video:
            scan = scan_packets(video, limits)
            try:
                return _decode_planned(request, video, scan)
            except Unplannable as exc:
                reason = str(exc)
            expected = [pts for pts in video.times.shown if pts is not None]
            timing = video.times.timing(video.times.shown)
        predictable = scan.index is None and len(expected) == scan.frames and timing.exact
        scan = replace(scan, packets=None, index=None)  # frees memory for the passes that follow
        if predictable:
            try:
                return _decode_predicted(request, scan, sorted(expected), timing, reason)
            except Unplannable as exc:
                reason = str(exc)
        return _decode_twice(request, scan, reason)


@dataclass
class _WindowsRequest:
    """The arguments of `decode_windows`, and the state of its work.

    Attributes:
        next: Number of the next window to hand out.
        windows: Number of windows; the largest allowed until it is known.
    """

    file: BinaryIO
    spec: ClipSpec
    rule: WindowRule
    sink: WindowSink
    limits: DecodeLimits
    next: int
    windows: int

    @property
    def work_limits(self) -> DecodeLimits:
        """The limits on decoding all windows."""
        return replace(self.limits, max_decoded_pixels=self.limits.max_decoded_pixels * self.windows)

    def cut(self, timing: Timing, damaged: frozenset[int] = frozenset()) -> _WindowFrames:
        """Cut a video with this timing into windows."""
        duration_us = microseconds(timing.duration_s)
        self.limits.check_windows(self.rule.count(duration_us))
        windows = cut([microseconds(time) for time in timing.times_s], duration_us, self.rule)
        self.windows = len(windows)
        indices = tuple(
            tuple(window.frames[index] for index in sample_indices(self.spec, len(window.frames))[0])
            for window in windows
        )
        return _WindowFrames(self, windows, replace_damaged(indices, len(timing.times_s), damaged), timing)


class _WindowFrames:
    """The sampled frames of the windows that are still to be handed out.

    Args:
        request: Hands out windows from its `next` on.
        windows: All windows of the video.
        indices: The frame numbers that each window samples.
        timing: Display times of the frames.
    """

    def __init__(
        self,
        request: _WindowsRequest,
        windows: Sequence[Window],
        indices: Sequence[tuple[int, ...]],
        timing: Timing,
    ) -> None:
        self.windows = windows
        self._request = request
        self._indices = indices
        self._timing = timing
        self._scaler = FrameScaler()
        self._uses: dict[int, list[InputSpec]] = {}
        self._last_use: dict[int, int] = {}
        self._kept: dict[tuple[int, str], NDArray[np.uint8]] = {}
        for window in windows[request.next :]:
            for item in request.spec.inputs:
                for index in indices[window.number][item.of(request.spec.frames)]:
                    uses = self._uses.setdefault(index, [])
                    if item not in uses:
                        uses.append(item)
                    self._last_use[index] = window.number

    @property
    def wanted(self) -> frozenset[int]:
        """Numbers of the sampled frames."""
        return frozenset(self._uses)

    def take(self, number: int, frame: VideoFrame) -> None:
        """Scale and keep a frame if a window samples it."""
        self._request.sink.progress()
        uses = self._uses.get(number)
        if not uses:
            return
        scaled = self._scaler.scaled(frame, (item.scale for item in uses))
        for item in uses:
            image = scaled[item.scale]
            (crop,) = crop_boxes(image.width, image.height, item.size, 1)
            self._kept[number, item.name] = np.empty((item.size, item.size, 3), np.uint8)
            image.copy_crop(crop, self._kept[number, item.name])

    def take_proven(self, number: int, frame: VideoFrame) -> None:
        """Take a frame that is known to be right, and hand out the windows that it completes."""
        self.take(number, frame)
        while (window := self._next()) and max(self._indices[window.number]) <= number:
            self._hand_out(window)

    def hand_out_before(self, number: int) -> None:
        """Hand out the windows whose frames all come before frame `number`."""
        while (window := self._next()) and window.frames.stop <= number:
            self._hand_out(window)

    def _next(self) -> Window | None:
        next_number = self._request.next
        return self.windows[next_number] if next_number < len(self.windows) else None

    def _hand_out(self, window: Window) -> None:
        spec, sink = self._request.spec, self._request.sink
        indices = self._indices[window.number]
        arrays = sink.arrays()
        for item in spec.inputs:
            for moment, index in enumerate(indices[item.of(spec.frames)]):
                arrays[item.name][0, moment] = self._kept[index, item.name]
        times_s = tuple(self._timing.times_s[index] for index in indices)
        sink.hand_out(WindowSample(window, len(self.windows), indices, times_s))
        self._request.next += 1
        for index in set(indices):
            if self._last_use.get(index) == window.number:
                for item in self._uses[index]:
                    del self._kept[index, item.name]


def _decode_planned(request: _WindowsRequest, video: OpenVideo, scan: PacketScan) -> DecodedWindows:
    """Decode only what the windows depend on, and the first frame, which describes the video.

    Raises:
        Unplannable: There is no plan, or the decoder returns other frames than planned.
    """
    index = scan.index
    if index is None:
        raise Unplannable(scan.problem)
    timing = video.times.timing(index.timestamps)
    frames = request.cut(timing)
    first = FirstFrame(frames.take_proven)
    runs = index.plan(frames.wanted | {0})
    decoded = sum(len(run.packets) for run in runs)
    request.work_limits.check_decoded_pixels(scan.pixels * decoded)
    video.limits = request.work_limits
    decoder = PlannedDecoder(video, index, first.take)
    if scan.packets:
        decode_serial(runs, decoder, scan.packets)
    else:
        with open_video(request.file, request.limits, peek=False) as again:
            decode_serial(runs, decoder, SecondPass(again))
    effort = Effort(len(index.entries), decoded)
    return DecodedWindows(first.describe(video, timing), len(frames.windows), effort)


def _decode_predicted(
    request: _WindowsRequest, scan: PacketScan, expected: Sequence[int], timing: Timing, reason: str
) -> DecodedWindows:
    """Decode every packet, while the frames are the ones that the packets' timestamps predict.

    The decoder may return frames with slightly falling timestamps. A window is then handed out when the
    frames up to it, in any order, have the expected timestamps.

    Args:
        request: What to decode.
        scan: The packets.
        expected: Ascending timestamps of all frames.
        timing: The times that follow from the timestamps.
        reason: Why there is no plan.

    Raises:
        Unplannable: The decoder returns other frames than predicted.
    """
    frames = request.cut(timing)
    request.work_limits.check_decoded_pixels(scan.pixels * scan.frames)
    deviations: Counter[int] = Counter()  # expected minus returned timestamps so far

    def take(number: int, frame: VideoFrame) -> None:
        if number >= len(expected) or frame.pts is None or frame.is_corrupt:
            raise Unplannable("the decoder returned other frames than the packets predict")
        frames.take(number, frame)
        if frame.pts != expected[number]:
            deviations[expected[number]] += 1
            deviations[frame.pts] -= 1
            for pts in (expected[number], frame.pts):
                if not deviations[pts]:
                    del deviations[pts]
            if len(deviations) > MAX_REORDER_STEPS:
                raise Unplannable("the decoder returned other frames than the packets predict")
        if not deviations:
            frames.hand_out_before(number)

    result = decode_all(request.file, request.work_limits, 1, take)
    if deviations or result.timing.times_s != timing.times_s:
        raise Unplannable("the decoder returned other frames than the packets predict")
    frames.hand_out_before(len(expected))
    effort = Effort(result.packets, result.packets, reason)
    return DecodedWindows(result.video, len(frames.windows), effort)


def _decode_twice(request: _WindowsRequest, scan: PacketScan, reason: str) -> DecodedWindows:
    """Decode every packet to learn which frames there are, then again for the remaining windows.

    Frames are renumbered without those that do not decode.

    Raises:
        Undecodable: As `decode_all`, or the second pass gives different frames than the first.
    """
    request.work_limits.check_decoded_pixels(scan.pixels * scan.frames)
    learned = decode_all(
        request.file, request.work_limits, 1, lambda _number, _frame: request.sink.progress()
    )
    frames = request.cut(learned.timing, learned.damaged)
    result = decode_all(request.file, request.work_limits, 1, frames.take_proven)
    if (result.video.frames, result.damaged) != (learned.video.frames, learned.damaged):
        raise Undecodable("the video decodes to different frames each time")
    effort = Effort(result.packets, result.packets, reason)
    return DecodedWindows(result.video, max(len(frames.windows), request.next), effort)
