from __future__ import annotations

from collections.abc import Sequence

import pytest

from service.clip.bitstream.h264.picture_buffer import PictureBuffer, ReferenceFrame
from service.clip.bitstream.h264.slice_header import (
    B_SLICE,
    I_SLICE,
    P_SLICE,
    BitPositions,
    ListChange,
    SliceHeader,
    SliceReferences,
)
from service.clip.bitstream.packet_info import Unplannable
from tests.service.clip.bitstream.h264.test_slice_header import SPS  # counters of 5 and 6 bits, 4 references

NOWHERE = BitPositions(0, 0, 0, 0, 0, 0, 0)


def header(
    kind: int = P_SLICE,
    poc: int = 0,
    *,
    idr: bool = False,
    reference: bool = True,
    bottom: int = 0,
    sizes: tuple[int, ...] = (),
    changes: tuple[tuple[ListChange, ...], ...] | None = None,
) -> SliceHeader:
    changes = ((),) * len(sizes) if changes is None else changes
    references = SliceReferences(0, changes, None)
    return SliceHeader(idr, reference, kind, poc % 64, bottom, sizes, references, False, NOWHERE)


def buffer(*frames: tuple[int, int]) -> PictureBuffer:
    """A buffer with these frame numbers and order counts; the packets are numbered from 0."""
    made = PictureBuffer(SPS)
    made.frames = [ReferenceFrame(packet, *each) for packet, each in enumerate(frames)]
    return made


def packets(lists: Sequence[Sequence[ReferenceFrame]]) -> list[list[int]]:
    return [[frame.packet for frame in each] for each in lists]


def test_reference_frames_are_counted_modulo_their_span() -> None:
    frames = buffer((1, 1))
    assert frames.start_picture(header(I_SLICE, 5, idr=True)) == (0, 5)
    assert frames.frames == []
    for number in range(1, 40):
        assert frames.start_picture(header(poc=5 + number)) == (number % 32, 5 + number)
        assert frames.start_picture(header(poc=6 + number, reference=False)) == (
            (number + 1) % 32,
            6 + number,
        )
    assert frames.start_picture(header(I_SLICE, 60, idr=True)) == (0, -4)  # near 0, where counts start again


def test_order_count_of_a_frame_is_that_of_its_first_field() -> None:
    assert buffer().start_picture(header(I_SLICE, 8, idr=True, bottom=1)) == (0, 8)
    assert buffer().start_picture(header(I_SLICE, 8, idr=True, bottom=-1)) == (0, 7)


def test_p_slices_refer_to_the_latest_frames_first() -> None:
    frames = buffer((30, 0), (31, 8), (0, 4), (1, 2))
    assert packets(frames.initial_lists(header(sizes=(1,)), 2, 10)) == [[3, 2, 1, 0]]
    assert packets(frames.initial_lists(header(sizes=(1,)), 1, 10)) == [[3, 2, 1, 0]]
    assert packets(frames.initial_lists(header(sizes=(1,)), 0, 10)) == [[2, 1, 0, 3]]
    assert frames.initial_lists(header(I_SLICE), 2, 10) == []


def test_b_slices_refer_to_the_nearest_frames_in_display_order_first() -> None:
    frames = buffer((0, 0), (1, 8), (2, 4), (3, 12))
    assert packets(frames.initial_lists(header(B_SLICE, sizes=(1, 1)), 4, 6)) == [[2, 0, 1, 3], [1, 3, 2, 0]]
    # The frame with the same order count is in neither list.
    assert packets(frames.initial_lists(header(B_SLICE, sizes=(1, 1)), 4, 4)) == [[0, 1, 3], [1, 3, 0]]


def test_equal_lists_of_a_b_slice_are_told_apart() -> None:
    frames = buffer((0, 0), (1, 8), (2, 4))
    assert packets(frames.initial_lists(header(B_SLICE, sizes=(1, 1)), 3, 20)) == [[1, 2, 0], [2, 1, 0]]
    assert packets(buffer((0, 0), (1, 8)).initial_lists(header(B_SLICE, sizes=(1, 1)), 2, 20)) == [
        [1, 0],
        [0, 1],
    ]
    assert packets(buffer((0, 0)).initial_lists(header(B_SLICE, sizes=(1, 1)), 1, 20)) == [[0], [0]]


FOUR = ((28, 0), (29, 2), (30, 4), (31, 6))


@pytest.mark.parametrize(
    ("size", "changes", "expected"),
    [
        (1, (), [3]),
        (4, (), [3, 2, 1, 0]),
        (1, (ListChange(0, 3),), [0]),
        (4, (ListChange(0, 3),), [0, 3, 2, 1]),
        (4, (ListChange(0, 2), ListChange(1, 0)), [1, 2, 3, 0]),
        (2, (ListChange(0, 2), ListChange(0, 0)), [1, 0]),
        (4, (ListChange(0, 0), ListChange(0, 0), ListChange(0, 0)), [3, 2, 1, 0]),
        (3, (ListChange(0, 1), ListChange(1, 31)), [2, 2, 3]),
    ],
)
def test_changes_move_frames_to_the_front(
    size: int, changes: tuple[ListChange, ...], expected: list[int]
) -> None:
    found = buffer(*FOUR).reference_lists(header(sizes=(size,), changes=(changes,)), 0, 8)
    assert packets(found) == [expected]


@pytest.mark.parametrize(
    ("size", "changes"),
    [
        (5, ()),
        (4, (ListChange(0, 4),)),
        (4, (ListChange(1, 0),)),
        (1, (ListChange(0, 0), ListChange(0, 0))),
    ],
)
def test_missing_references_are_unplannable(size: int, changes: tuple[ListChange, ...]) -> None:
    with pytest.raises(Unplannable, match="a reference is missing"):
        buffer(*FOUR).reference_lists(header(sizes=(size,), changes=(changes,)), 0, 8)


@pytest.mark.parametrize("frame_num", [0, 5, 31])
@pytest.mark.parametrize("wanted", [[3], [3, 2], [0], [1, 3, 0], [2, 2, 1], [0, 1, 2, 3]])
def test_changes_lead_to_the_wanted_lists(frame_num: int, wanted: list[int]) -> None:
    frames = buffer(*[((frame_num - back) % 32, 2 * (4 - back)) for back in (4, 3, 2, 1)])
    plain = header(sizes=(len(wanted),))
    (changes,) = frames.changes_to(plain, frame_num, 8, [wanted])
    assert (not changes) == (wanted in ([3], [3, 2]))
    changed = header(sizes=(len(wanted),), changes=(changes,))
    assert packets(frames.reference_lists(changed, frame_num, 8)) == [wanted]
    # The shorter way round, except from a frame to itself, which is the whole way.
    farthest = 31 if len(set(wanted)) < len(wanted) else 15
    assert all(0 <= change.difference <= farthest for change in changes)


def test_both_lists_of_a_b_slice_are_changed() -> None:
    frames = buffer((0, 0), (1, 8), (2, 4))
    changes = frames.changes_to(header(B_SLICE, sizes=(1, 1)), 3, 6, [[0], [1]])
    assert changes == ((ListChange(0, 2),), ())


def test_full_buffer_forgets_the_oldest_frame() -> None:
    frames = buffer(*FOUR[:3])
    frames.store(ReferenceFrame(7, 31, 6), None)
    assert [frame.frame_num for frame in frames.frames] == [28, 29, 30, 31]
    frames.store(ReferenceFrame(8, 0, 8), None)
    assert [frame.frame_num for frame in frames.frames] == [29, 30, 31, 0]


def test_removals_forget_certain_frames() -> None:
    frames = buffer(*FOUR)
    frames.store(ReferenceFrame(8, 0, 8), (0, 2))
    assert [frame.frame_num for frame in frames.frames] == [28, 30, 0]
    frames.store(ReferenceFrame(9, 1, 8), ())
    assert [frame.frame_num for frame in frames.frames] == [28, 30, 0, 1]


def test_buffers_that_do_not_add_up_are_unplannable() -> None:
    with pytest.raises(Unplannable, match="a reference is missing"):
        buffer(*FOUR).store(ReferenceFrame(8, 0, 8), (4,))
    more = "the stream keeps more references than it declares or can tell apart"
    with pytest.raises(Unplannable, match=more):
        buffer(*FOUR).store(ReferenceFrame(8, 0, 8), ())
    with pytest.raises(Unplannable, match=more):
        buffer((0, 0), (1, 2)).store(ReferenceFrame(8, 0, 8), None)


@pytest.mark.parametrize(
    ("kept", "removals"),
    [
        ({1, 2, 3}, None),  # the oldest goes anyway
        ({0, 1, 2}, (0,)),
        ({0, 3}, (2, 1)),
        (set(), (3, 2, 1, 0)),
    ],
)
def test_removals_keep_only_what_is_needed(kept: set[int], removals: tuple[int, ...] | None) -> None:
    frames = buffer(*FOUR)
    assert frames.removals_to_keep(kept, 0) == removals
    frames.store(ReferenceFrame(8, 0, 8), removals)
    assert {frame.packet for frame in frames.frames} == kept | {8}


def test_nothing_is_removed_from_a_buffer_with_room() -> None:
    assert buffer(*FOUR[:2]).removals_to_keep({0, 1}, 0) is None
    assert buffer(*FOUR[:2]).removals_to_keep({1}, 0) == (3,)
