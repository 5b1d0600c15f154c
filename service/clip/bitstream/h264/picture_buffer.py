"""The short-term reference frames that an H.264 decoder keeps (ITU-T H.264, clauses 8.2.4 and 8.2.5)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from service.clip.bitstream.h264.parameters import H264Sps
from service.clip.bitstream.h264.slice_header import B_SLICE, ListChange, SliceHeader
from service.clip.bitstream.nal import full_order_count
from service.clip.bitstream.packet_info import Unplannable


@dataclass(frozen=True, eq=False)
class ReferenceFrame:
    """A kept frame: the number of its packet, its `frame_num` and its picture order count."""

    packet: int
    frame_num: int
    poc: int


class PictureBuffer:
    """The kept frames of a stream whose reference frames are numbered without gaps.

    Attributes:
        frames: The kept frames.

    Args:
        sps: The sequence parameter set.
    """

    def __init__(self, sps: H264Sps) -> None:
        self.frames: list[ReferenceFrame] = []
        self._max_frames = sps.max_references
        self._frame_num_span = 1 << sps.frame_num_bits
        self._poc_span = 1 << sps.poc_bits
        self._previous_frame_num = self._previous_poc = 0

    def start_picture(self, header: SliceHeader) -> tuple[int, int]:
        """Advance to the picture of `header`. Return its `frame_num` in this buffer, and its order count."""
        if header.is_idr:
            self.frames, self._previous_poc = [], 0
            frame_num = 0
        else:
            frame_num = (self._previous_frame_num + 1) % self._frame_num_span
        poc = full_order_count(header.poc_lsb, self._previous_poc, self._poc_span)
        if header.is_reference:
            self._previous_frame_num, self._previous_poc = frame_num, poc
        return frame_num, poc + min(0, header.poc_bottom)

    def initial_lists(self, header: SliceHeader, frame_num: int, poc: int) -> list[list[ReferenceFrame]]:
        """Return the initial reference lists of a slice, of any size (clause 8.2.4.2)."""
        if not header.list_sizes:
            return []
        if header.kind != B_SLICE:
            return [sorted(self.frames, key=lambda frame: self._wrapped(frame, frame_num), reverse=True)]
        by_poc = sorted(self.frames, key=lambda frame: frame.poc)
        before = [frame for frame in reversed(by_poc) if frame.poc < poc]
        after = [frame for frame in by_poc if frame.poc > poc]
        first, second = before + after, after + before
        if len(second) > 1 and first == second:
            second[:2] = second[1::-1]
        return [first, second]

    def reference_lists(self, header: SliceHeader, frame_num: int, poc: int) -> list[list[ReferenceFrame]]:
        """Return the reference lists of a slice, in the sizes that it states (clause 8.2.4.3)."""
        known = {frame.frame_num: frame for frame in self.frames}
        lists: list[list[ReferenceFrame]] = []
        for initial, size, changes in zip(
            self.initial_lists(header, frame_num, poc),
            header.list_sizes,
            header.references.changes,
            strict=True,
        ):
            frames = initial[:size]
            predicted = frame_num
            for index, change in enumerate(changes):
                sign = 1 if change.direction else -1
                predicted = (predicted + sign * (change.difference + 1)) % self._frame_num_span
                if predicted not in known or index >= size:
                    raise Unplannable("a reference is missing")
                moved = known[predicted]
                rest = [frame for frame in frames[index:] if frame is not moved]
                frames = [*frames[:index], moved, *rest][:size]
            if len(frames) < size:
                raise Unplannable("a reference is missing")
            lists.append(frames)
        return lists

    def changes_to(
        self, header: SliceHeader, frame_num: int, poc: int, lists: Sequence[Sequence[int]]
    ) -> tuple[tuple[ListChange, ...], ...]:
        """Return the changes that turn the initial lists of a slice into `lists` of packet numbers."""
        known = {frame.packet: frame for frame in self.frames}
        all_changes: list[tuple[ListChange, ...]] = []
        for initial, packets in zip(self.initial_lists(header, frame_num, poc), lists, strict=True):
            frames = [known[packet] for packet in packets]
            changes: list[ListChange] = []
            if initial[: len(frames)] != frames:
                predicted = frame_num
                for frame in frames:
                    ahead = (frame.frame_num - predicted) % self._frame_num_span
                    behind = self._frame_num_span - ahead
                    forwards = 0 < ahead < behind
                    changes.append(ListChange(1, ahead - 1) if forwards else ListChange(0, behind - 1))
                    predicted = frame.frame_num
            all_changes.append(tuple(changes))
        return tuple(all_changes)

    def store(self, frame: ReferenceFrame, removals: Sequence[int] | None) -> None:
        """Keep `frame` and forget others (clauses 8.2.5.3 and 8.2.5.4)."""
        if removals is None:
            forgotten = self._displaced_by(frame.frame_num)
        else:
            numbers = {(frame.frame_num - difference - 1) % self._frame_num_span for difference in removals}
            forgotten = [kept for kept in self.frames if kept.frame_num in numbers]
            if len(forgotten) < len(numbers):
                raise Unplannable("a reference is missing")
        self.frames = [kept for kept in self.frames if kept not in forgotten]
        is_ambiguous = any(kept.frame_num == frame.frame_num for kept in self.frames)
        if is_ambiguous or len(self.frames) >= self._max_frames:
            raise Unplannable("the stream keeps more references than it declares or can tell apart")
        self.frames.append(frame)

    def removals_to_keep(self, kept: Collection[int], frame_num: int) -> tuple[int, ...] | None:
        """Return the removals after which only the packets `kept` remain of those before a picture."""
        forgotten = [frame for frame in self.frames if frame.packet not in kept]
        if forgotten == self._displaced_by(frame_num):
            return None
        return tuple((frame_num - frame.frame_num - 1) % self._frame_num_span for frame in forgotten)

    def _displaced_by(self, frame_num: int) -> list[ReferenceFrame]:
        """Return the frame that a picture without removals displaces: the oldest of a full buffer."""
        if len(self.frames) < self._max_frames:
            return []
        return [min(self.frames, key=lambda frame: self._wrapped(frame, frame_num))]

    def _wrapped(self, frame: ReferenceFrame, frame_num: int) -> int:
        """Return `FrameNumWrap`: it ascends in decoding order, seen from the picture with `frame_num`."""
        return frame.frame_num - self._frame_num_span * (frame.frame_num > frame_num)
