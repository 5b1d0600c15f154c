"""Plans for generated packet indexes: everything that a frame depends on is decoded, and little else."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.clip.bitstream.packet_info import PacketInfo, RandomAccess, Unplannable
from service.clip.decoding.plan import IndexEntry, PacketIndex


@dataclass(frozen=True)
class Picture:
    """A picture of a generated stream: its group, whether it leads it, and the pictures it refers to."""

    row: IndexEntry
    group: int
    leads: bool
    refers_to: frozenset[int]


def row(pts: int, info: PacketInfo, *, discard: bool = False) -> IndexEntry:
    return IndexEntry(pts=pts, size=100, discard=discard, info=info)


@st.composite
def streams(draw: st.DrawFn) -> list[Picture]:
    """Generate groups of anchors, each followed by pictures of any layer that are shown before it."""
    pictures: list[Picture] = []
    shown = 0
    for group in range(draw(st.integers(1, 4))):
        entry = draw(st.sampled_from([RandomAccess.OPEN, RandomAccess.CLOSED]))
        for anchor in range(draw(st.integers(1, 4))):
            leads = not anchor
            before = draw(st.integers(0, 3)) if anchor or (group and entry is RandomAccess.OPEN) else 0
            made = [PacketInfo(shown + before, RandomAccess.NONE if anchor else entry)]
            for order in draw(st.permutations(range(shown, shown + before))):
                layer, referenced = draw(st.integers(0, 2)), draw(st.booleans())
                made.append(PacketInfo(order, layer=layer, is_reference=referenced))
            for info in made:
                refers_to = draw(references(pictures, info, group, leads and not info.random_access))
                pictures.append(Picture(row(10 * info.display_order, info), group, leads, refers_to))
            shown += before + 1
    return pictures


def references(
    pictures: list[Picture], info: PacketInfo, group: int, leads: bool
) -> st.SearchStrategy[frozenset[int]]:
    """Draw from the earlier pictures that codecs allow a picture to refer to."""

    def allowed(other: Picture) -> bool:
        within = other.group == group or (leads and other.group == group - 1)
        other_leads = other.leads and not other.row.info.random_access
        serves = other.row.info.layer < info.layer or (
            other.row.info.layer == info.layer and other.row.info.is_reference
        )
        return within and serves and (not other_leads or (leads and other.group == group))

    numbers = [number for number, other in enumerate(pictures) if allowed(other)]
    if info.random_access or not numbers:
        return st.just(frozenset[int]())
    return st.frozensets(st.sampled_from(numbers), max_size=3)


def dependencies(pictures: list[Picture], number: int) -> set[int]:
    """Return all pictures that one depends on, directly or not, and itself."""
    found: set[int] = set()
    waiting = [number]
    while waiting:
        picture = waiting.pop()
        if picture not in found:
            found.add(picture)
            waiting += pictures[picture].refers_to
    return found


@given(streams(), st.data())
def test_everything_that_a_wanted_frame_depends_on_is_decoded_with_it(
    pictures: list[Picture], data: st.DataObject
) -> None:
    table = PacketIndex([picture.row for picture in pictures], reorder_depth=16)
    wanted = data.draw(st.sets(st.integers(0, len(table.frames) - 1), min_size=1))
    runs = table.plan(wanted)
    decoded = [number for run in runs for number in run.packets]
    assert decoded == sorted(set(decoded))
    for frame in wanted:
        number = table.frames[frame]
        (run,) = (run for run in runs if number in run.packets)
        assert dependencies(pictures, number) <= set(run.packets)


@given(streams(), st.data())
def test_runs_expect_the_frames_of_their_packets(pictures: list[Picture], data: st.DataObject) -> None:
    table = PacketIndex([picture.row for picture in pictures], reorder_depth=16)
    wanted = data.draw(st.sets(st.integers(0, len(table.frames) - 1), min_size=1))
    for run in table.plan(wanted):
        assert pictures[run.packets[0]].row.info.random_access
        assert list(run.expected) == sorted(pictures[number].row.pts for number in run.packets)
        assert run.packets[-1] in {table.frames[frame] for frame in wanted}
    given_frames = {pts for run in table.plan(wanted) for pts in run.expected}
    assert {table.timestamps[frame] for frame in wanted} <= given_frames


GROUP = "IPbbPbbPbb"


def table_of(kinds: str) -> PacketIndex:
    """Build an index from letters in file order: I starts a group, b is shown before its P."""
    rows: list[IndexEntry] = []
    for kind, following in re.findall("([IP])(b*)", kinds):
        first = len(rows)
        rows.append(
            _row_of(first + len(following), RandomAccess.CLOSED if kind == "I" else RandomAccess.NONE, True)
        )
        rows += [_row_of(first + at, RandomAccess.NONE, False) for at in range(len(following))]
    return PacketIndex(rows, reorder_depth=1)


def _row_of(order: int, entry: RandomAccess, referenced: bool) -> IndexEntry:
    return row(order, PacketInfo(order, entry, is_reference=referenced))


def decoded(table: PacketIndex, *wanted: int) -> list[list[int]]:
    return [list(run.packets) for run in table.plan(wanted)]


def test_groups_without_a_wanted_frame_are_skipped() -> None:
    assert decoded(table_of(GROUP * 3), 0, 20) == [[0], [20]]
    assert decoded(table_of(GROUP * 3), 11) == [[10, 11, 12]]


def test_pictures_that_are_no_references_are_skipped() -> None:
    assert decoded(table_of(GROUP), 8) == [[0, 1, 4, 7, 9]]


def test_nothing_after_the_last_wanted_frame_is_decoded() -> None:
    assert decoded(table_of(GROUP), 3) == [[0, 1]]


def test_leading_pictures_need_the_previous_group() -> None:
    rows = [
        row(0, PacketInfo(0, RandomAccess.OPEN)),
        row(3, PacketInfo(3)),
        row(1, PacketInfo(1, is_reference=False)),
        row(2, PacketInfo(2, is_reference=False)),
        row(6, PacketInfo(6, RandomAccess.OPEN)),
        row(4, PacketInfo(4, is_reference=False)),
        row(5, PacketInfo(5, is_reference=False)),
        row(7, PacketInfo(7)),
    ]
    table = PacketIndex(rows, reorder_depth=1)
    assert decoded(table, 5) == [[0, 1, 4, 6]]
    assert decoded(table, 7) == [[4, 7]]
    assert [run.reset for run in table.plan([1, 7])] == [True, True]


def test_higher_layers_are_skipped_for_frames_of_lower_ones() -> None:
    rows = [
        row(0, PacketInfo(0, RandomAccess.CLOSED)),
        row(4, PacketInfo(4)),
        row(2, PacketInfo(2, layer=1)),
        row(1, PacketInfo(1, layer=2)),
        row(3, PacketInfo(3, layer=2, is_reference=False)),
        row(8, PacketInfo(8)),
    ]
    table = PacketIndex(rows, reorder_depth=2)
    assert decoded(table, 5) == [[0, 1, 5]]
    assert decoded(table, 3) == [[0, 1, 2, 3, 4]]
    assert decoded(table, 2) == [[0, 1, 2]]


def test_a_frame_that_an_edit_list_cuts_off_is_decoded_but_not_counted() -> None:
    rows = [
        row(0, PacketInfo(0, RandomAccess.CLOSED), discard=True),
        row(1, PacketInfo(1), discard=True),
        row(2, PacketInfo(2)),
        row(3, PacketInfo(3)),
    ]
    table = PacketIndex(rows, reorder_depth=0)
    assert table.timestamps == (2, 3)
    (run,) = table.plan([0])
    assert (run.packets, run.expected) == ((0, 1, 2), (2,))


def reordered_at(number: int) -> list[IndexEntry]:
    """Ten packets in display order, except that packet `number` and the one before it are swapped."""
    orders = [*range(10)]
    orders[number - 1], orders[number] = orders[number], orders[number - 1]
    first = RandomAccess.CLOSED
    return [
        row(order, PacketInfo(order, RandomAccess.NONE if index else first))
        for index, order in enumerate(orders)
    ]


def test_an_undeclared_reorder_depth_is_accepted_if_a_full_decode_guesses_it() -> None:
    early, late = reordered_at(6), reordered_at(8)
    assert PacketIndex(early, reorder_depth=None).undeclared_depth == 1
    assert PacketIndex(late, reorder_depth=None, depth_is_indexed=True).undeclared_depth == 1
    assert PacketIndex(late, reorder_depth=1).undeclared_depth is None


@pytest.mark.parametrize(
    ("rows", "depth", "reason"),
    [
        ([], 0, "no packet outputs a frame"),
        ([row(0, PacketInfo(0))], 0, "does not start with a keyframe"),
        ([row(0, PacketInfo(0, RandomAccess.CLOSED)), row(0, PacketInfo(1))], 0, "timestamps"),
        ([row(1, PacketInfo(0, RandomAccess.CLOSED)), row(0, PacketInfo(1))], 0, "timestamps"),
        (
            [row(0, PacketInfo(0, RandomAccess.CLOSED)), row(2, PacketInfo(2)), row(1, PacketInfo(1))],
            0,
            "reordered by more",
        ),
        (reordered_at(8), None, "the reorder depth grows and is not declared"),
        ([row(1, PacketInfo(1, RandomAccess.OPEN)), row(0, PacketInfo(0))], 1, "leading pictures"),
        ([row(0, PacketInfo(0, RandomAccess.CLOSED), discard=True)], 0, "no packet outputs a frame"),
    ],
)
def test_packets_that_do_not_prove_their_frames_are_rejected(
    rows: list[IndexEntry], depth: int | None, reason: str
) -> None:
    with pytest.raises(Unplannable, match=reason):
        PacketIndex(rows, depth)
