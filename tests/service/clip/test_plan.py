"""The plan, on tables made up by hypothesis: whatever a frame depends on is decoded, and nothing needless."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.clip.bitstream.coded import Coded, Entry, Unplannable
from service.clip.plan import Row, Table


@dataclass(frozen=True)
class Picture:
    """A picture of a made-up stream, its group, whether it leads that, and the pictures that it refers to."""

    row: Row
    group: int
    leads: bool
    refers_to: frozenset[int]


def row(pts: int, coded: Coded, *, discard: bool = False) -> Row:
    return Row(
        pts=pts,
        dts=None,
        size=100,
        position=None,
        keyframe=bool(coded.entry),
        discard=discard,
        coded=coded,
    )


@st.composite
def streams(draw: st.DrawFn) -> list[Picture]:
    """Streams of groups, each of anchors followed by pictures that are shown before them, of any layer."""
    pictures: list[Picture] = []
    shown = 0
    for group in range(draw(st.integers(1, 4))):
        entry = draw(st.sampled_from([Entry.OPEN, Entry.CLOSED]))
        for anchor in range(draw(st.integers(1, 4))):
            leads = not anchor
            before = draw(st.integers(0, 3)) if anchor or (group and entry is Entry.OPEN) else 0
            made = [Coded(shown + before, Entry.NONE if anchor else entry)]
            for order in draw(st.permutations(range(shown, shown + before))):
                layer, referenced = draw(st.integers(0, 2)), draw(st.booleans())
                made.append(Coded(order, layer=layer, referenced=referenced))
            for coded in made:
                refers_to = draw(references(pictures, coded, group, leads and not coded.entry))
                pictures.append(Picture(row(10 * coded.order, coded), group, leads, refers_to))
            shown += before + 1
    return pictures


def references(
    pictures: list[Picture], coded: Coded, group: int, leads: bool
) -> st.SearchStrategy[frozenset[int]]:
    """Earlier pictures that such a picture may refer to: all that the rules of codecs allow."""

    def allowed(other: Picture) -> bool:
        within = other.group == group or (leads and other.group == group - 1)
        other_leads = other.leads and not other.row.coded.entry
        serves = other.row.coded.layer < coded.layer or (
            other.row.coded.layer == coded.layer and other.row.coded.referenced
        )
        return within and serves and (not other_leads or (leads and other.group == group))

    numbers = [number for number, other in enumerate(pictures) if allowed(other)]
    if coded.entry or not numbers:
        return st.just(frozenset[int]())
    return st.frozensets(st.sampled_from(numbers), max_size=3)


def dependencies(pictures: list[Picture], number: int) -> set[int]:
    """All pictures that one depends on, at one remove or at many, itself included."""
    found: set[int] = set()
    waiting = [number]
    while waiting:
        picture = waiting.pop()
        if picture not in found:
            found.add(picture)
            waiting += pictures[picture].refers_to
    return found


@given(streams(), st.data())
def test_whatever_a_wanted_frame_depends_on_is_decoded_before_it(
    pictures: list[Picture], data: st.DataObject
) -> None:
    table = Table([picture.row for picture in pictures], reorder_depth=16)
    wanted = data.draw(st.sets(st.integers(0, len(table.frames) - 1), min_size=1))
    runs = table.plan(wanted)
    decoded = [number for run in runs for number in run.packets]
    assert decoded == sorted(set(decoded))
    for frame in wanted:
        number = table.frames[frame]
        (run,) = (run for run in runs if number in run.packets)
        assert dependencies(pictures, number) <= set(run.packets)


@given(streams(), st.data())
def test_runs_foretell_what_their_packets_give(pictures: list[Picture], data: st.DataObject) -> None:
    table = Table([picture.row for picture in pictures], reorder_depth=16)
    wanted = data.draw(st.sets(st.integers(0, len(table.frames) - 1), min_size=1))
    for run in table.plan(wanted):
        assert pictures[run.packets[0]].row.coded.entry
        assert list(run.expected) == sorted(pictures[number].row.pts for number in run.packets)
        assert run.packets[-1] in {table.frames[frame] for frame in wanted}
    given_frames = {pts for run in table.plan(wanted) for pts in run.expected}
    assert {table.timestamps[frame] for frame in wanted} <= given_frames


GROUP = "IPbbPbbPbb"


def table_of(kinds: str) -> Table:
    """Letters in the order of the file: I begins a group, b is shown before its P and not referred to."""
    rows: list[Row] = []
    for kind, following in re.findall("([IP])(b*)", kinds):
        first = len(rows)
        rows.append(_row_of(first + len(following), Entry.CLOSED if kind == "I" else Entry.NONE, True))
        rows += [_row_of(first + at, Entry.NONE, False) for at in range(len(following))]
    return Table(rows, reorder_depth=1)


def _row_of(order: int, entry: Entry, referenced: bool) -> Row:
    return row(order, Coded(order, entry, referenced=referenced))


def decoded(table: Table, *wanted: int) -> list[list[int]]:
    return [list(run.packets) for run in table.plan(wanted)]


def test_groups_without_a_wanted_frame_are_skipped() -> None:
    assert decoded(table_of(GROUP * 3), 0, 20) == [[0], [20]]
    assert decoded(table_of(GROUP * 3), 11) == [[10, 11, 12]]


def test_pictures_that_nothing_refers_to_are_left_out() -> None:
    assert decoded(table_of(GROUP), 8) == [[0, 1, 4, 7, 9]]


def test_nothing_behind_the_last_wanted_frame_is_decoded() -> None:
    assert decoded(table_of(GROUP), 3) == [[0, 1]]


def test_leading_pictures_need_the_group_before() -> None:
    rows = [
        row(0, Coded(0, Entry.OPEN)),
        row(3, Coded(3)),
        row(1, Coded(1, referenced=False)),
        row(2, Coded(2, referenced=False)),
        row(6, Coded(6, Entry.OPEN)),
        row(4, Coded(4, referenced=False)),
        row(5, Coded(5, referenced=False)),
        row(7, Coded(7)),
    ]
    table = Table(rows, reorder_depth=1)
    assert decoded(table, 5) == [[0, 1, 4, 6]]
    assert decoded(table, 7) == [[4, 7]]
    assert [run.reset for run in table.plan([1, 7])] == [True, True]


def test_higher_layers_are_left_out_for_frames_of_lower_ones() -> None:
    rows = [
        row(0, Coded(0, Entry.CLOSED)),
        row(4, Coded(4)),
        row(2, Coded(2, layer=1)),
        row(1, Coded(1, layer=2)),
        row(3, Coded(3, layer=2, referenced=False)),
        row(8, Coded(8)),
    ]
    table = Table(rows, reorder_depth=2)
    assert decoded(table, 5) == [[0, 1, 5]]
    assert decoded(table, 3) == [[0, 1, 2, 3, 4]]
    assert decoded(table, 2) == [[0, 1, 2]]


def test_a_frame_that_is_cut_off_is_decoded_and_not_counted() -> None:
    rows = [
        row(0, Coded(0, Entry.CLOSED), discard=True),
        row(1, Coded(1), discard=True),
        row(2, Coded(2)),
        row(3, Coded(3)),
    ]
    table = Table(rows, reorder_depth=0)
    assert table.timestamps == (2, 3)
    (run,) = table.plan([0])
    assert (run.packets, run.expected) == ((0, 1, 2), (2,))


@pytest.mark.parametrize(
    ("rows", "depth", "reason"),
    [
        ([], 0, "no frame"),
        ([row(0, Coded(0))], 0, "does not begin with a keyframe"),
        ([row(0, Coded(0, Entry.CLOSED)), row(0, Coded(1))], 0, "timestamps"),
        ([row(1, Coded(0, Entry.CLOSED)), row(0, Coded(1))], 0, "timestamps"),
        ([row(0, Coded(0, Entry.CLOSED)), row(2, Coded(2)), row(1, Coded(1))], 0, "another order"),
        ([row(0, Coded(0, Entry.CLOSED)), row(2, Coded(2)), row(1, Coded(1))], None, "another order"),
        ([row(1, Coded(1, Entry.OPEN)), row(0, Coded(0))], 1, "leading pictures"),
        ([row(0, Coded(0, Entry.CLOSED), discard=True)], 0, "no frame"),
    ],
)
def test_what_proves_nothing_is_refused(rows: list[Row], depth: int | None, reason: str) -> None:
    with pytest.raises(Unplannable, match=reason):
        Table(rows, depth)
