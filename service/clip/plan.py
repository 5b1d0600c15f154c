"""Which packets have to be decoded for the frames that are wanted. Pure functions on a table of packets.

    packets in the order of the file:   I  P  b  b  P  b  b │ I  P  b  b  P  b  b │ I  P  b  b
    wanted:                                   *                                             *
    decoded:                            I  P  b             │                      │ I  P     b

A group of packets that holds no wanted frame is skipped. Within a group nothing behind the last wanted
frame is decoded, and before it only what pictures of its layer or of a higher one may refer to.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from service.clip.bitstream.coded import Coded, Entry, Unplannable


class Row(NamedTuple):
    """A packet of the table: what the container says of it, and what it says of itself.

    `pts` is in units of the stream's time base, `position` the byte of the file where it begins, if known. A
    `discard`ed frame is decoded, for others refer to it, but cut off by an edit list.
    """

    pts: int
    dts: int | None
    size: int
    position: int | None
    keyframe: bool
    discard: bool
    coded: Coded

    @property
    def given(self) -> bool:
        """Whether decoding the packet gives the viewer a frame."""
        return self.coded.shown and not self.discard


@dataclass(frozen=True)
class Run:
    """Packets to decode one after the other.

    Attributes:
        packets: Their numbers in the file, rising; the first is an entry.
        targets: Those of the wanted frames among them.
        reset: Whether the decoder has to be emptied and reset before, if it decoded anything.
        expected: The timestamps of the frames that must come out, in this order, and no others.
        cost: What decoding takes, in units that only compare: bytes and pictures count.
    """

    packets: tuple[int, ...]
    targets: frozenset[int]
    reset: bool
    expected: tuple[int, ...]
    cost: int


# What a picture costs beyond its bytes, in bytes: fitted on 1080p, where a picture of no bytes takes as
# long as so many bytes more.
BYTES_PER_PICTURE = 10_000


class Table:
    """All packets of a stream in the order of the file, proven to give the frames that they say.

    Args:
        rows: the packets.
        reorder_depth: how many frames the decoder holds back; None if it has to guess.

    Raises:
        Unplannable: the packets do not tell which frames will come, in which order.
    """

    def __init__(self, rows: Sequence[Row], reorder_depth: int | None) -> None:
        self.rows = tuple(rows)
        self.frames: tuple[int, ...] = _frames_in_order(self.rows)
        if not self.frames:
            raise Unplannable("no frame")
        _check_reorder_depth(self.rows, reorder_depth)
        self._groups = _groups(self.rows)

    @property
    def timestamps(self) -> tuple[int, ...]:
        """When the frames are shown, in that order, in units of the stream's time base."""
        return tuple(self.rows[number].pts for number in self.frames)

    def plan(self, wanted: Collection[int]) -> tuple[Run, ...]:
        """The runs that decode the frames `wanted`, numbered from 0 in the order of showing."""
        targets = frozenset(self.frames[number] for number in wanted)
        return tuple(
            self._run(
                tuple(self._needed(span, targets)), targets, self.rows[span.start].coded.entry is Entry.OPEN
            )
            for span in self._spans(targets)
        )

    def _spans(self, targets: frozenset[int]) -> Iterator[range]:
        """Stretches of whole groups to be decoded in one go, for each that holds a target.

        A target that is a leading picture of an open group needs the group before as well.
        """
        spans: list[range] = []
        for index, group in enumerate(self._groups):
            inside = [number for number in group if number in targets]
            if not inside:
                continue
            start = group.start
            if any(_leads(self.rows, group.start, number) for number in inside):
                start = self._groups[index - 1].start
            if spans and start < spans[-1].stop:
                spans[-1] = range(spans[-1].start, group.stop)
            else:
                spans.append(range(start, group.stop))
        yield from spans

    def thinned(self, run: Run, needed: Collection[int]) -> Run:
        """A run of those packets of another that are `needed`, its targets among them."""
        return self._run(tuple(number for number in run.packets if number in needed), run.targets, run.reset)

    def _run(self, packets: tuple[int, ...], targets: frozenset[int], reset: bool) -> Run:
        given = sorted(self.rows[number].pts for number in packets if self.rows[number].given)
        cost = sum(self.rows[number].size + BYTES_PER_PICTURE for number in packets)
        return Run(packets, targets & frozenset(packets), reset, tuple(given), cost)

    def _needed(self, span: range, targets: frozenset[int]) -> list[int]:
        """The packets of `span` that its targets depend on, themselves included.

        From the last target backwards: a picture is needed if one of its layer that is needed may refer to
        it, and so is any of a lower layer. What leads the first entry of the span cannot be decoded.
        """
        needed: list[int] = []
        highest = -1
        for number in reversed(span):
            coded = self.rows[number].coded
            if number in targets:
                highest = max(highest, coded.layer)
            elif not _serves(coded, highest) or _leads(self.rows, span.start, number):
                continue
            needed.append(number)
        return needed[::-1]


def _serves(coded: Coded, layer: int) -> bool:
    """Whether pictures of `layer` and below may refer to this one."""
    return coded.layer < layer or (coded.layer == layer and coded.referenced)


def _frames_in_order(rows: Sequence[Row]) -> tuple[int, ...]:
    """The numbers of the packets that give a frame, in the order of showing.

    Raises:
        Unplannable: the timestamps and the decoder would not agree on that order.
    """
    shown = [number for number, row in enumerate(rows) if row.coded.shown]
    by_decoder = sorted(shown, key=lambda number: rows[number].coded.order)
    if any(rows[before].pts >= rows[after].pts for before, after in pairwise(by_decoder)):
        raise Unplannable("timestamps that do not rise in the order of showing")
    return tuple(number for number in by_decoder if not rows[number].discard)


def _check_reorder_depth(rows: Sequence[Row], declared: int | None) -> None:
    """Raise `Unplannable` if the decoder could give a frame too early, before one that is shown earlier."""
    shown = [number for number, row in enumerate(rows) if row.coded.shown]
    ranks = {number: rank for rank, number in enumerate(sorted(shown, key=lambda n: rows[n].coded.order))}
    waiting: list[int] = []  # ranks that came before their turn
    given = 0
    for number in shown:
        waiting.append(ranks[number])
        while given in waiting:
            waiting.remove(given)
            given += 1
        if len(waiting) > (declared or 0):
            raise Unplannable("frames that come in another order than the stream declares")


def _groups(rows: Sequence[Row]) -> tuple[range, ...]:
    """Stretches of packets that each begin with an entry."""
    entries = [number for number, row in enumerate(rows) if row.coded.entry]
    if not entries or entries[0]:
        raise Unplannable("a stream that does not begin with a keyframe")
    groups = tuple(range(first, last) for first, last in pairwise([*entries, len(rows)]))
    if any(_leads(rows, 0, number) for number in groups[0]):
        raise Unplannable("leading pictures of the first keyframe")
    return groups


def _leads(rows: Sequence[Row], entry: int, number: int) -> bool:
    """Whether a packet behind an open entry is shown before it."""
    first = rows[entry].coded
    return first.entry is Entry.OPEN and number > entry and rows[number].coded.order < first.order
