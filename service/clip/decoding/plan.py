"""Choose the packets to decode for the wanted frames. Pure functions on an index of packets.

    packets in file order:   I  P  b  b  P  b  b │ I  P  b  b  P  b  b │ I  P  b  b
    wanted:                        *                                             *
    decoded:                 I  P  b             │                      │ I  P     b

Groups of pictures without a wanted frame are skipped. Within a group, decoding stops after the last wanted
frame, and before it only pictures that others of the same or a higher layer may refer to are decoded.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from service.clip.bitstream.packet_info import PacketInfo, RandomAccess, Unplannable

# FFmpeg guesses an undeclared reorder depth from the first frames, at least this many, when it opens a file.
GUESSED_FRAMES = 7
# Fixed cost of decoding a picture, expressed in bytes. Fitted on 1080p, where an empty picture takes as long
# as 10 kB of a coded one.
BYTES_PER_PICTURE = 10_000


class IndexEntry(NamedTuple):
    """A packet of the index.

    Attributes:
        pts: Presentation timestamp in units of the track's time base.
        size: Bytes.
        discard: An edit list cuts the frame off; it is decoded, since others refer to it, but not shown.
        info: The properties found in the packet's bytes.
    """

    pts: int
    size: int
    discard: bool
    info: PacketInfo

    @property
    def outputs_frame(self) -> bool:
        """Whether decoding the packet outputs a frame that is shown."""
        return self.info.shown and not self.discard


@dataclass(frozen=True)
class PacketRun:
    """Packets to decode in sequence.

    Attributes:
        packets: Packet numbers in file order; the first is a random access point.
        targets: Numbers of the packets whose frames are wanted.
        reset: Whether a decoder that has decoded other packets must be drained and flushed first.
        expected: Timestamps of exactly the frames that the decoder must output, in order.
        cost: Relative decoding cost, from bytes and pictures.
    """

    packets: tuple[int, ...]
    targets: frozenset[int]
    reset: bool
    expected: tuple[int, ...]
    cost: int


class PacketIndex:
    """All packets of a track in file order, checked to prove which frames they decode to.

    Attributes:
        entries: The packets.
        frames: Packet numbers of the shown frames, in display order.
        undeclared_depth: The number of frames that a decoder must be set to hold back, because the stream
            does not declare it; None if it does.

    Args:
        entries: The packets.
        reorder_depth: The number of frames that the stream declares to be held back; None if undeclared.
        depth_is_indexed: FFmpeg takes an undeclared depth from the container's index of all timestamps.

    Raises:
        Unplannable: The packets do not prove the frames or their order.
    """

    def __init__(
        self, entries: Sequence[IndexEntry], reorder_depth: int | None, *, depth_is_indexed: bool = False
    ) -> None:
        self.entries = tuple(entries)
        decoder_output = sorted(
            (number for number, entry in enumerate(entries) if entry.info.shown),
            key=lambda number: entries[number].info.display_order,
        )
        if any(entries[before].pts >= entries[after].pts for before, after in pairwise(decoder_output)):
            raise Unplannable("timestamps do not ascend in display order")
        self.frames = tuple(number for number in decoder_output if not entries[number].discard)
        if not self.frames:
            raise Unplannable("no packet outputs a frame")
        required_depth = _required_depth(decoder_output)
        self.undeclared_depth = required_depth if reorder_depth is None else None
        if reorder_depth is None:
            # A decoder whose guess is too low loses frames. The plan must match a full decode, so it
            # requires that the guess is right.
            guessed_from = set(sorted(decoder_output)[:GUESSED_FRAMES])
            guess = _required_depth([number for number in decoder_output if number in guessed_from])
            if guess < required_depth and not depth_is_indexed:
                raise Unplannable("the reorder depth grows and is not declared")
        elif required_depth > reorder_depth:
            raise Unplannable("frames are reordered by more than the stream declares")
        starts = [number for number, entry in enumerate(entries) if entry.info.random_access]
        if not starts or starts[0]:
            raise Unplannable("the stream does not start with a keyframe")
        self._groups = tuple(range(first, end) for first, end in pairwise([*starts, len(entries)]))
        if any(self._is_leading(number, 0) for number in self._groups[0]):
            raise Unplannable("the first keyframe has leading pictures")

    @cached_property
    def timestamps(self) -> tuple[int, ...]:
        """Presentation timestamps of the frames, ascending, in units of the track's time base."""
        return tuple(self.entries[number].pts for number in self.frames)

    @cached_property
    def numbers(self) -> dict[int, int]:
        """Frame numbers by timestamp."""
        return {pts: number for number, pts in enumerate(self.timestamps)}

    def plan(self, wanted: Collection[int]) -> tuple[PacketRun, ...]:
        """Return the runs that decode the frames `wanted`, numbered from 0 in display order."""
        targets = frozenset(self.frames[number] for number in wanted)
        spans: list[range] = []
        for position, group in enumerate(self._groups):
            inside = [number for number in group if number in targets]
            if not inside:
                continue
            start = group.start
            if any(self._is_leading(number, start) for number in inside):
                start = self._groups[position - 1].start  # leading pictures refer to the previous group
            if spans and start < spans[-1].stop:
                spans[-1] = range(spans[-1].start, group.stop)
            else:
                spans.append(range(start, group.stop))
        return tuple(
            self._run(
                self._dependencies(span, targets),
                targets,
                reset=self.entries[span.start].info.random_access is RandomAccess.OPEN,
            )
            for span in spans
        )

    def restricted(self, run: PacketRun, kept: Collection[int]) -> PacketRun:
        """Return `run` with only the packets in `kept`, which include its targets."""
        return self._run([number for number in run.packets if number in kept], run.targets, reset=run.reset)

    def _run(self, packets: Sequence[int], targets: frozenset[int], *, reset: bool) -> PacketRun:
        entries = [self.entries[number] for number in packets]
        return PacketRun(
            packets=tuple(packets),
            targets=targets.intersection(packets),
            reset=reset,
            expected=tuple(sorted(entry.pts for entry in entries if entry.outputs_frame)),
            cost=sum(entry.size + BYTES_PER_PICTURE for entry in entries),
        )

    def _dependencies(self, span: range, targets: frozenset[int]) -> list[int]:
        """Return the packets of `span` that its targets may depend on, including the targets.

        The scan goes backwards from the last target. A picture is kept if a kept picture of the same layer
        may refer to it, or if a kept picture has a higher layer.
        """
        kept: list[int] = []
        layer = -1  # the highest among the kept pictures
        for number in reversed(span):
            info = self.entries[number].info
            if number in targets:
                layer = max(layer, info.layer)
            else:
                may_serve = info.layer < layer or (info.layer == layer and info.is_reference)
                # Leading pictures of the first keyframe cannot be decoded: their references are skipped.
                if not may_serve or self._is_leading(number, span.start):
                    continue
            kept.append(number)
        return kept[::-1]

    def _is_leading(self, number: int, start: int) -> bool:
        """Return whether a packet after the open random access point `start` is shown before it."""
        first = self.entries[start].info
        is_later = first.random_access is RandomAccess.OPEN and number > start
        return is_later and self.entries[number].info.display_order < first.display_order


def _required_depth(decoder_output: Sequence[int]) -> int:
    """Number of frames that a decoder must hold back to output packets in the order `decoder_output`."""
    rank = {number: position for position, number in enumerate(decoder_output)}
    waiting: set[int] = set()
    depth = released = 0
    for number in sorted(decoder_output):
        waiting.add(rank[number])
        while released in waiting:
            waiting.remove(released)
            released += 1
        depth = max(depth, len(waiting))
    return depth
