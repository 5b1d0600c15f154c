"""H.264: which frames a frame really refers to, and how to leave out those that no wanted one does.

A reference picture is one that others may refer to; which of them do, only their slices' headers say
(ITU-T H.264, clauses 8.2.4 and 8.2.5). Encoders that look for motion in one picture, as fast presets do,
make many that only dropped B pictures refer to. The decoder would miss them all the same: it counts
reference pictures, and finds them by that count. So what is left is counted anew, in the headers; not a bit
of a picture is changed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from service.clip.bitstream.coded import Unplannable
from service.clip.bitstream.h264_parameters import Pps, Sps
from service.clip.bitstream.h264_slices import (
    B_SLICE,
    IDR,
    Change,
    References,
    SliceHeader,
    read_header,
    written,
)
from service.clip.bitstream.nal import nal_units, whole_order

# Clause 7.4.1: nal_unit_type of what belongs to a frame and is not read here: partitions of slices, other
# views and layers.
NOT_FOLLOWED = {2, 3, 4, 14, 20, 21}
SLICES = {1, IDR}
# So many frames tell whether the encoder makes reference pictures that no other refers to; of the last of
# them it cannot be told yet.
PROBED, UNSURE = 12, 4
# Bounds on the work for streams that are made to cost it. The first is the standard's (clause A.3.1).
MOST_REFERENCES = 16
MOST_SLICES = 20_000  # of all pictures that a thinner is asked about: half a second


@dataclass(frozen=True, eq=False)
class _Frame:
    """A frame that is kept to be referred to: its packet, its `frame_num`, its picture order count."""

    packet: int
    frame_num: int
    order: int


class _Picture(NamedTuple):
    """A frame of the original stream: for each slice its lists of packets, and which are kept behind it."""

    packet: int
    headers: tuple[SliceHeader, ...]
    order: int
    lists: tuple[tuple[tuple[int, ...], ...], ...]
    kept: frozenset[int]


class _Memory:
    """The frames that a decoder keeps to be referred to (clause 8.2.5), all of the short-term kind."""

    def __init__(self, sps: Sps) -> None:
        self._most = sps.references
        self._span = 1 << sps.frame_num_bits
        self._order_span = 1 << sps.order_bits
        self._previous_num = self._previous_order = 0
        self.frames: list[_Frame] = []

    def begin(self, header: SliceHeader) -> tuple[int, int]:
        """Come to the frame of a header; its `frame_num` and picture order count in this memory's count."""
        if header.idr:
            self.frames, self._previous_order = [], 0
            frame_num = 0
        else:
            frame_num = (self._previous_num + 1) % self._span
        whole = whole_order(header.order_lsb, self._previous_order, self._order_span)
        if header.referenced:
            self._previous_num, self._previous_order = frame_num, whole
        return frame_num, whole + min(0, header.order_of_bottom)

    def initial_lists(self, header: SliceHeader, frame_num: int, order: int) -> list[list[_Frame]]:
        """Clause 8.2.4.2; not yet as long or as short as the slice wants them."""
        if not header.active:
            return []
        if header.kind != B_SLICE:
            return [sorted(self.frames, key=partial(self._number, frame_num), reverse=True)]
        before = sorted((one for one in self.frames if one.order < order), key=_order, reverse=True)
        after = sorted((one for one in self.frames if one.order > order), key=_order)
        first, second = before + after, after + before
        if len(second) > 1 and first == second:
            second[:2] = second[1::-1]
        return [first, second]

    def lists(self, header: SliceHeader, frame_num: int, order: int) -> list[list[_Frame]]:
        """The lists of a slice, each as long as the slice has it (clause 8.2.4.3)."""
        initial = self.initial_lists(header, frame_num, order)
        return [
            self._changed(frames[:size], size, changes, frame_num)
            for frames, size, changes in zip(initial, header.active, header.references.changes, strict=True)
        ]

    def _changed(
        self, frames: list[_Frame], size: int, changes: Sequence[Change], frame_num: int
    ) -> list[_Frame]:
        known = {one.frame_num: one for one in self.frames}
        at = frame_num
        for index, change in enumerate(changes):
            at = (at + (change.difference + 1) * (1 if change.kind else -1)) % self._span
            if at not in known or index >= size:
                raise Unplannable("references that are not there")
            rest = [one for one in frames[index:] if one is not known[at]]
            frames = [*frames[:index], known[at], *rest][:size]
        if len(frames) < size:
            raise Unplannable("references that are not there")
        return frames

    def changes_for(
        self, header: SliceHeader, frame_num: int, order: int, lists: Sequence[Sequence[int]]
    ) -> tuple[tuple[Change, ...], ...]:
        """The steps from a slice's initial lists, as they are here, to `lists` of packets."""
        known = {one.packet: one for one in self.frames}
        wanted = [[known[packet] for packet in each] for each in lists]
        return tuple(
            () if initial[: len(frames)] == frames else self._changes_to(frames, frame_num)
            for initial, frames in zip(self.initial_lists(header, frame_num, order), wanted, strict=True)
        )

    def _changes_to(self, frames: Sequence[_Frame], frame_num: int) -> tuple[Change, ...]:
        """The steps that put `frames` into a list, whatever was there."""
        changes: list[Change] = []
        at = frame_num
        for frame in frames:
            ahead = (frame.frame_num - at) % self._span
            behind = self._span - ahead
            changes.append(Change(1, ahead - 1) if 0 < ahead < behind else Change(0, behind - 1))
            at = frame.frame_num
        return tuple(changes)

    def finish(self, frame: _Frame, removals: Sequence[int] | None) -> None:
        """Keep a frame, and others no longer (clause 8.2.5.3 and 8.2.5.4)."""
        if removals is None:
            gone = self._overflow(frame.frame_num)
        else:
            numbers = {(frame.frame_num - difference - 1) % self._span for difference in removals}
            gone = [one for one in self.frames if one.frame_num in numbers]
            if len(gone) < len(numbers):
                raise Unplannable("references that are not there")
        self.frames = [one for one in self.frames if one not in gone]
        if len(self.frames) >= self._most or any(one.frame_num == frame.frame_num for one in self.frames):
            raise Unplannable("more references than the stream declares, or than can be told apart")
        self.frames.append(frame)

    def removals_to(self, kept: Collection[int], frame_num: int) -> tuple[int, ...] | None:
        """What a frame must say so that of those before it just these packets' are kept."""
        gone = [one for one in self.frames if one.packet not in kept]
        if gone == self._overflow(frame_num):
            return None
        return tuple((frame_num - one.frame_num - 1) % self._span for one in gone)

    def _overflow(self, frame_num: int) -> list[_Frame]:
        """Whom a frame that says nothing displaces."""
        if len(self.frames) < self._most:
            return []
        return [min(self.frames, key=partial(self._number, frame_num))]

    def _number(self, frame_num: int, frame: _Frame) -> int:
        """`FrameNumWrap`: rising in the order of decoding, as seen from the frame with `frame_num`."""
        return frame.frame_num - self._span * (frame.frame_num > frame_num)


def _order(frame: _Frame) -> int:
    return frame.order


class Rewriting(NamedTuple):
    """Other references for the slices of a packet."""

    length_bytes: int
    headers: tuple[SliceHeader, ...]
    references: tuple[References, ...]

    def of(self, packet: memoryview) -> bytes:
        """The packet with them."""
        slices = zip(self.headers, self.references, strict=True)
        return b"".join(
            self._framed(written(unit, *next(slices)) if unit[0] & 31 in SLICES else bytes(unit))
            for unit in nal_units(packet, self.length_bytes)
        )

    def _framed(self, unit: bytes) -> bytes:
        if self.length_bytes:
            if len(unit) >> 8 * self.length_bytes:
                raise Unplannable("a NAL unit that has become too long")
            return len(unit).to_bytes(self.length_bytes, "big") + unit
        return b"\0\0\0\1" + unit


class H264Thinner:
    """See `Thinner`; the parameter sets must be in force for the whole stream."""

    def __init__(self, spss: dict[int, Sps], ppss: dict[int, Pps], length_bytes: int) -> None:
        self._spss, self._ppss = spss, ppss
        self._length_bytes = length_bytes
        self._slices = 0

    def thin(
        self, packets: Iterable[tuple[int, memoryview]], targets: Collection[int]
    ) -> dict[int, Rewriting | None]:
        """See `Thinner`."""
        parameters = set(self._spss.values())
        if len(parameters) != 1 or not 0 < (sps := parameters.pop()).references <= MOST_REFERENCES:
            raise Unplannable("references that are not all counted alike, or too many")
        pictures: list[_Picture] = []
        for picture in self._followed(packets, _Memory(sps)):
            pictures.append(picture)
            if len(pictures) == PROBED and not _some_unused(pictures):
                raise Unplannable("a stream whose reference pictures are all referred to")
        needed = _needed(pictures, targets)
        memory = _Memory(sps)
        return {
            picture.packet: self._counted_anew(picture, needed, memory)
            for picture in pictures
            if picture.packet in needed
        }

    def _followed(self, packets: Iterable[tuple[int, memoryview]], memory: _Memory) -> Iterator[_Picture]:
        """The frames, with what they refer to."""
        for index, (number, packet) in enumerate(packets):
            headers = tuple(self._headers(packet))
            first = headers[0]
            if not index and not first.idr:
                raise Unplannable("frames before the first")
            if any(_of_frame(header) != _of_frame(first) for header in headers):
                raise Unplannable("slices of several pictures in a packet")
            frame_num, order = memory.begin(first)
            if frame_num != first.references.frame_num:
                raise Unplannable("frames that are missing")
            lists = tuple(
                tuple(tuple(one.packet for one in each) for each in memory.lists(header, frame_num, order))
                for header in headers
            )
            if first.referenced:
                memory.finish(_Frame(number, frame_num, order), first.references.removals)
            yield _Picture(number, headers, order, lists, frozenset(one.packet for one in memory.frames))

    def _headers(self, packet: memoryview) -> Iterator[SliceHeader]:
        before = self._slices
        for unit in nal_units(packet, self._length_bytes):
            kind = unit[0] & 31
            if kind in NOT_FOLLOWED:
                raise Unplannable("partitions, views or layers")
            if kind in SLICES:
                self._slices += 1
                if self._slices > MOST_SLICES:
                    raise Unplannable("too many slices to follow")
                yield read_header(unit, self._spss, self._ppss)
        if self._slices == before:
            raise Unplannable("a packet without a picture")

    def _counted_anew(self, picture: _Picture, needed: frozenset[int], memory: _Memory) -> Rewriting | None:
        """What the frame's slices must say now; None: what they say."""
        first = picture.headers[0]
        frame_num, order = memory.begin(first)
        if order != picture.order:
            raise Unplannable("frames too far apart in the order of showing")
        removals = None
        if first.referenced and not first.idr:
            removals = memory.removals_to(picture.kept & needed, frame_num)
        references = tuple(
            References(frame_num, memory.changes_for(header, frame_num, order, lists), removals)
            for header, lists in zip(picture.headers, picture.lists, strict=True)
        )
        if first.referenced:
            memory.finish(_Frame(picture.packet, frame_num, order), removals)
        if all(new == header.references for new, header in zip(references, picture.headers, strict=True)):
            return None
        return Rewriting(self._length_bytes, picture.headers, references)


def _of_frame(header: SliceHeader) -> tuple[object, ...]:
    """What all slices of a frame have in common."""
    said = header.references
    return (
        header.idr,
        header.referenced,
        header.order_lsb,
        header.order_of_bottom,
        said.frame_num,
        said.removals,
    )


def _some_unused(pictures: Sequence[_Picture]) -> bool:
    """Whether there is a reference picture that no other refers to."""
    references = [picture for picture in pictures if picture.headers[0].referenced]
    used = {packet for picture in references for lists in picture.lists for each in lists for packet in each}
    return any(picture.packet not in used for picture in references[:-UNSURE])


def _needed(pictures: Sequence[_Picture], targets: Collection[int]) -> frozenset[int]:
    """The packets of the targets, of what they refer to, of what those refer to, and so on.

    A frame that the decoder begins at is kept in any case.
    """
    needed = set(targets)
    for picture in reversed(pictures):
        if picture.headers[0].idr:
            needed.add(picture.packet)
        if picture.packet in needed:
            needed.update(packet for lists in picture.lists for each in lists for packet in each)
    return frozenset(needed)
