from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from service.clip.bitstream.bits import BitReader
from service.clip.bitstream.h264.parameters import H264Pps, H264Sps
from service.clip.bitstream.h264.slice_header import (
    B_SLICE,
    I_SLICE,
    MAX_ACTIVE,
    P_SLICE,
    ListChange,
    SliceReferences,
    read_list_changes,
    read_removals,
    read_slice_header,
    read_slice_start,
    read_slice_type,
    slice_bits,
    write_slice,
)
from service.clip.bitstream.packet_info import Unplannable
from tests.service.clip.bitstream.written import Field, bits

SPS = H264Sps(
    separate_planes=False,
    chroma=True,
    frame_num_bits=5,
    poc_type=0,
    poc_bits=6,
    max_references=4,
    frames_only=True,
    reorder_depth=None,
)
PPS = H264Pps(
    sps=0,
    cabac=False,
    bottom_poc=False,
    default_active=(1, 2),
    weights_p=False,
    weights_b=False,
    deblocking_control=False,
    redundant_slices=False,
)
DATA_BITS = 16
DATA = (0x1357, DATA_BITS)
IDR, OTHER = 5, 1
WEIGHTS: dict[bool, list[Field]] = {
    # Denominators, then the weights of a reference with all of them and of one with none.
    True: [3, 2, (1, 1), 4, 5, (1, 1), 6, 7, 8, 9, (0, 1), (0, 1)],
    False: [3, (1, 1), 4, 5, (0, 1)],
}


def start_fields(
    sps: H264Sps,
    pps: H264Pps,
    *,
    kind: int = I_SLICE,
    number: int = 0,
    frame_num: int = 3,
    field: bool | None = None,
    idr: bool = False,
    poc: int = 9,
    bottom: int = 0,
    redundant: int = 0,
) -> list[Field]:
    """A slice header up to its reference lists: clause 7.3.3."""
    fields: list[Field] = [0, kind, number, *([(1, 2)] if sps.separate_planes else [])]
    fields.append((frame_num, sps.frame_num_bits))
    if not sps.frames_only:
        fields += [(field is not None, 1), *([(field, 1)] if field is not None else [])]
    fields += [7] if idr else []
    if sps.poc_type == 0:
        fields.append((poc, sps.poc_bits))
        fields += [bottom] if pps.bottom_poc and field is None else []
    return [*fields, *([redundant] if pps.redundant_slices else [])]


@pytest.mark.parametrize("kind", range(10))
def test_slice_types_have_two_codes(kind: int) -> None:
    assert read_slice_type(BitReader(bits(11, kind, DATA))) == kind % 5


@pytest.mark.parametrize("idr", [False, True])
@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize("field", [None, False, True])
@pytest.mark.parametrize("poc_type", [0, 2])
@pytest.mark.parametrize("options", [False, True])
def test_start_of_a_header_is_read(
    idr: bool, planes: bool, field: bool | None, poc_type: int, options: bool
) -> None:
    sps = replace(SPS, separate_planes=planes, frames_only=field is None, poc_type=poc_type)
    pps = replace(PPS, sps=2, bottom_poc=options, redundant_slices=options)
    reader = BitReader(bits(*start_fields(sps, pps, kind=5, number=1, field=field, idr=idr, bottom=3), DATA))
    start = read_slice_start(reader, {2: sps}, {1: pps}, is_idr=idr)
    assert (start.kind, start.sps, start.pps, start.frame_num) == (P_SLICE, sps, pps, 3)
    assert (start.is_field, start.is_bottom) == (field is not None, bool(field))
    assert start.poc_lsb == (9 if poc_type == 0 else None)
    assert start.poc_bottom == (2 if options and field is None and poc_type == 0 else 0)
    assert reader.u(DATA_BITS) == DATA[0]
    before = BitReader(bits(*start_fields(sps, pps, kind=5, number=1, field=field, idr=idr), DATA))
    assert before.between(start.frame_num_end - 5, start.frame_num_end) == (3, 5)


def test_frame_in_a_stream_of_fields() -> None:
    sps = replace(SPS, frames_only=False)
    pps = replace(PPS, bottom_poc=True)
    reader = BitReader(bits(*start_fields(sps, pps, bottom=2), DATA))
    start = read_slice_start(reader, {0: sps}, {0: pps}, is_idr=False)
    assert (start.is_field, start.is_bottom, start.poc_lsb, start.poc_bottom) == (False, False, 9, -1)


@pytest.mark.parametrize("sets", [({}, {0: PPS}), ({0: SPS}, {}), ({1: SPS}, {0: PPS})])
def test_unknown_parameter_sets_are_unplannable(
    sets: tuple[dict[int, H264Sps], dict[int, H264Pps]],
) -> None:
    with pytest.raises(Unplannable, match="a picture lacks its parameter sets"):
        read_slice_start(BitReader(bits(*start_fields(SPS, PPS), DATA)), *sets, is_idr=False)


def test_redundant_slices_are_unplannable() -> None:
    pps = replace(PPS, redundant_slices=True)
    with pytest.raises(Unplannable, match="the stream has redundant slices"):
        read_slice_start(
            BitReader(bits(*start_fields(SPS, pps, redundant=1), DATA)), {0: SPS}, {0: pps}, is_idr=False
        )


def changes_fields(changes: Sequence[ListChange]) -> list[Field]:
    written = [field for change in changes for field in change]
    return [(1, 1), *written, 3] if changes else [(0, 1)]


def removals_fields(removals: Sequence[int] | None) -> list[Field]:
    if removals is None:
        return [(0, 1)]
    return [(1, 1), *[field for removal in removals for field in (1, removal)], 0]


CHANGES = (ListChange(0, 4), ListChange(1, 0))


def slice_unit(
    kind: int,
    *,
    sps: H264Sps = SPS,
    pps: H264Pps = PPS,
    idr: bool = False,
    reference: bool = True,
    sizes: Sequence[int] = (),
    changes: Sequence[Sequence[ListChange]] = (),
    removals: Sequence[int] | None = None,
    discarded: int = 0,
    deblocking: int = 0,
    frame_num: int = 3,
) -> bytes:
    """A whole slice, as far as its header tells its length, with some data behind it."""
    fields = start_fields(sps, pps, kind=kind, idr=idr, frame_num=frame_num)
    if kind != I_SLICE:
        fields += [(1, 1)] if kind == B_SLICE else []
        fields += [(bool(sizes), 1), *[size - 1 for size in sizes]]
        for each in changes:
            fields += changes_fields(each)
        if pps.weights_p if kind == P_SLICE else pps.weights_b:
            fields += WEIGHTS[sps.chroma]
    if reference:
        fields += [(discarded, 2)] if idr else removals_fields(removals)
    fields += [2] if pps.cabac and kind != I_SLICE else []
    fields += [5]
    if pps.deblocking_control:
        fields += [deblocking, *([3, 4] if deblocking != 1 else [])]
    header = bits(*fields) if pps.cabac else b""
    return bytes([0x60 * reference | (IDR if idr else OTHER)]) + (
        header + b"\x13\x57" if pps.cabac else bits(*fields, DATA)
    )


CASES = [
    pytest.param({"kind": I_SLICE, "idr": True}, id="IDR"),
    pytest.param({"kind": I_SLICE, "reference": False}, id="I, not a reference"),
    pytest.param({"kind": I_SLICE, "removals": ()}, id="I, removes nothing"),
    pytest.param({"kind": P_SLICE, "changes": ((),)}, id="P"),
    pytest.param({"kind": P_SLICE, "sizes": (3,), "changes": (CHANGES,)}, id="P with changes"),
    pytest.param({"kind": P_SLICE, "changes": ((),), "removals": (0, 2)}, id="P with removals"),
    pytest.param({"kind": B_SLICE, "changes": ((), ()), "reference": False}, id="B"),
    pytest.param(
        {"kind": B_SLICE, "sizes": (1, 3), "changes": ((), CHANGES), "removals": (1,)}, id="B with all"
    ),
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("cabac", [False, True])
@pytest.mark.parametrize("deblocking", [None, 0, 1, 2])
def test_headers_are_read_and_written_back(
    case: dict[str, object], cabac: bool, deblocking: int | None
) -> None:
    pps = replace(PPS, cabac=cabac, deblocking_control=deblocking is not None)
    unit = slice_unit(**case, pps=pps, deblocking=deblocking or 0)  # type: ignore[arg-type]
    header = read_slice_header(memoryview(unit), {0: SPS}, {0: pps})
    kind = case["kind"]
    assert (header.kind, header.is_idr, header.is_reference) == (
        kind,
        case.get("idr", False),
        case.get("reference", True),
    )
    default = {I_SLICE: (), P_SLICE: (1,), B_SLICE: (1, 2)}[kind]  # type: ignore[index]
    assert header.list_sizes == case.get("sizes", default)
    assert header.references == SliceReferences(3, case.get("changes", ()), case.get("removals"))  # type: ignore[arg-type]
    assert (header.poc_lsb, header.poc_bottom, header.cabac) == (9, 0, cabac)
    assert write_slice(memoryview(unit), header, header.references) == unit


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("cabac", [False, True])
def test_headers_are_written_with_other_references(case: dict[str, object], cabac: bool) -> None:
    pps = replace(PPS, cabac=cabac)
    before = slice_unit(**case, pps=pps)  # type: ignore[arg-type]
    header = read_slice_header(memoryview(before), {0: SPS}, {0: pps})
    changed: dict[str, object] = {"frame_num": 30}
    if header.list_sizes:
        changed["changes"] = tuple((ListChange(1, 7),) for _ in header.list_sizes)
        changed["sizes"] = case.get("sizes", ())
    if header.is_reference and not header.is_idr:
        changed["removals"] = (3,) if header.references.removals is None else None
    after = slice_unit(**case | changed, pps=pps)  # type: ignore[arg-type]
    wanted = read_slice_header(memoryview(after), {0: SPS}, {0: pps})
    for old, read, new, expected in ((before, header, after, wanted), (after, wanted, before, header)):
        written = write_slice(memoryview(old), read, expected.references)
        end = expected.positions.end + DATA_BITS  # what follows fills the last bytes
        assert BitReader(written[1:]).between(0, end) == BitReader(new[1:]).between(0, end)
        assert abs(len(written) - len(new)) <= 1


@pytest.mark.parametrize("chroma", [False, True])
@pytest.mark.parametrize(
    ("kind", "weights", "sizes"),
    [
        (P_SLICE, {"weights_p": True}, (2,)),
        (B_SLICE, {"weights_b": True}, (1, 1)),
        (P_SLICE, {"weights_b": True}, (2,)),
        (B_SLICE, {"weights_p": True}, (1, 1)),
    ],
)
def test_prediction_weights_are_skipped(
    chroma: bool, kind: int, weights: dict[str, bool], sizes: tuple[int, ...]
) -> None:
    sps, pps = replace(SPS, chroma=chroma), replace(PPS, **weights)  # type: ignore[arg-type]
    unit = slice_unit(kind, sps=sps, pps=pps, sizes=sizes, changes=((),) * len(sizes), removals=(4,))
    header = read_slice_header(memoryview(unit), {0: sps}, {0: pps})
    assert header.references.removals == (4,)
    assert write_slice(memoryview(unit), header, header.references) == unit


@pytest.mark.parametrize(
    ("sps", "kind", "reason"),
    [
        (SPS, 3, "the stream has switching slices"),
        (SPS, 4, "the stream has switching slices"),
        (replace(SPS, poc_type=2), I_SLICE, "the stream has more than plain frames"),
        (replace(SPS, frames_only=False), I_SLICE, "the stream has more than plain frames"),
        (replace(SPS, separate_planes=True), I_SLICE, "the stream has more than plain frames"),
    ],
)
def test_other_slices_are_unplannable(sps: H264Sps, kind: int, reason: str) -> None:
    unit = bytes([OTHER]) + bits(*start_fields(sps, PPS, kind=kind), *[(0x5555, 16)] * 8)
    with pytest.raises(Unplannable, match=reason):
        read_slice_header(memoryview(unit), {0: sps}, {0: PPS})


@pytest.mark.parametrize("discarded", [1, 2, 3])
def test_pictures_that_discard_others_are_unplannable(discarded: int) -> None:
    unit = slice_unit(I_SLICE, idr=True, discarded=discarded)
    with pytest.raises(Unplannable, match="pictures are discarded before display"):
        read_slice_header(memoryview(unit), {0: SPS}, {0: PPS})


@pytest.mark.parametrize(("kind", "sizes"), [(P_SLICE, (32,)), (B_SLICE, (32, 1)), (B_SLICE, (1, 32))])
def test_lists_have_32_references_at_most(kind: int, sizes: tuple[int, ...]) -> None:
    changes: tuple[tuple[ListChange, ...], ...] = ((),) * len(sizes)
    unit = slice_unit(kind, sizes=sizes, changes=changes)
    assert read_slice_header(memoryview(unit), {0: SPS}, {0: PPS}).list_sizes == sizes
    sizes = tuple(33 if size == 32 else size for size in sizes)
    unit = slice_unit(kind, sizes=sizes, changes=changes)
    with pytest.raises(Unplannable, match="a slice has too many references"):
        read_slice_header(memoryview(unit), {0: SPS}, {0: PPS})


def test_header_longer_than_usual_is_read() -> None:
    changes = tuple(ListChange(0, 30) for _ in range(MAX_ACTIVE))
    unit = slice_unit(B_SLICE, sizes=(32, 32), changes=(changes, changes), removals=(1,) * 20)
    assert read_slice_header(memoryview(unit), {0: SPS}, {0: PPS}).references.changes == (changes, changes)
    with pytest.raises(Unplannable, match="a header is truncated"):
        read_slice_header(memoryview(unit[:60]), {0: SPS}, {0: PPS})


def test_bits_of_a_header_begin_behind_the_type_of_the_unit() -> None:
    unit = memoryview(b"\x65" + bytes(range(1, 100)))
    assert slice_bits(unit).u(16) == 0x0102
    with pytest.raises(Unplannable):
        slice_bits(unit).u(8 * 39 + 1)
    slice_bits(unit).u(8 * 39)
    assert slice_bits(memoryview(b"\x65\0\0\3\1"), 5).u(24) == 1  # without the emulation prevention byte


@pytest.mark.parametrize("direction", [2, 4])
def test_changes_to_long_term_references_are_unplannable(direction: int) -> None:
    with pytest.raises(Unplannable, match="the stream has long-term references"):
        read_list_changes(BitReader(bits((1, 1), direction, 0, 3, DATA)))


def test_lists_have_32_changes_at_most() -> None:
    most = [ListChange(0, 0)] * MAX_ACTIVE
    assert read_list_changes(BitReader(bits(*changes_fields(most)))) == tuple(most)
    with pytest.raises(Unplannable, match="a slice has too many references"):
        read_list_changes(BitReader(bits(*changes_fields([*most, ListChange(0, 0)]))))


@pytest.mark.parametrize("operation", [2, 3, 4, 5, 6])
def test_operations_on_long_term_references_are_unplannable(operation: int) -> None:
    with pytest.raises(Unplannable, match="the stream has long-term references"):
        read_removals(BitReader(bits((1, 1), operation, 0, 0, DATA)), is_idr=False)
