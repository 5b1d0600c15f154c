from __future__ import annotations

from collections.abc import Sequence

import pytest

from service.clip.bitstream.bits import BitReader
from service.clip.bitstream.hevc import (
    SEQUENCE_STEP,
    HevcPps,
    HevcReader,
    HevcSps,
    read_pps,
    read_sps,
)
from service.clip.bitstream.packet_info import PacketInfo, RandomAccess, Unplannable
from tests.service.clip.bitstream.written import Field, bits

NONE, OPEN, CLOSED = RandomAccess.NONE, RandomAccess.OPEN, RandomAccess.CLOSED
TRAIL_N, TRAIL_R, RADL_N, RADL_R, RASL_N, RASL_R, RSV_R15 = 0, 1, 6, 7, 8, 9, 15
BLA, BLA_N_LP, IDR, IDR_N_LP, CRA, RSV_IRAP = 16, 18, 19, 20, 21, 23
VPS, SPS, PPS, AUD, EOS, EOB = 32, 33, 34, 35, 36, 37
IRAP = range(16, 24)


def unit(kind: int, *fields: Field, layer_id: int = 0, temporal: int = 0) -> bytes:
    """A NAL unit, with the header of clause 7.3.1.2."""
    return bits((0, 1), (kind, 6), (layer_id, 6), (temporal + 1, 3)) + bits(*fields)


def profile(sub_layers: Sequence[tuple[bool, bool]] = ()) -> list[Field]:
    """Up to the number of a sequence parameter set; each sub-layer may have a profile and a level."""
    fields: list[Field] = [(0, 4), (len(sub_layers), 3), (1, 1), (0x5A, 96)]
    fields += [(present, 1) for layer in sub_layers for present in layer]
    if sub_layers:
        fields.append((0, 2 * (8 - len(sub_layers))))
    for has_profile, has_level in sub_layers:
        fields += [(0x5A, 88)] * has_profile + [(0x5A, 8)] * has_level
    return fields


def sps_fields(
    *,
    number: int = 0,
    chroma: int = 1,
    separate: bool = False,
    window: bool = False,
    poc_bits: int = 4,
    depths: Sequence[int] = (2,),
    sub_layers: Sequence[tuple[bool, bool]] = (),
) -> list[Field]:
    """A sequence parameter set: clause 7.3.2.2.1."""
    fields = [*profile(sub_layers), number, chroma, *([(separate, 1)] if chroma == 3 else [])]
    fields += [320, 240, (window, 1), *([1, 2, 3, 4] if window else []), 0, 0, poc_bits - 4]
    fields.append((len(depths) > 1, 1))
    for depth in depths:
        fields += [4, depth, 0]
    return fields


def pps_fields(*, number: int = 0, sps: int = 0, hidden: bool = False, extra_bits: int = 0) -> list[Field]:
    """A picture parameter set: clause 7.3.2.3.1."""
    return [number, sps, (1, 1), (hidden, 1), (extra_bits, 3)]


def picture(
    kind: int,
    poc: int = 0,
    *,
    first: bool = True,
    layer_id: int = 0,
    temporal: int = 0,
    discarded: bool = False,
    pps: int = 0,
    extra_bits: int = 0,
    plane: bool = False,
    poc_bits: int = 4,
) -> bytes:
    """The first slice of a picture: clause 7.3.6.1."""
    fields: list[Field] = [
        (first, 1),
        *([(discarded, 1)] if kind in IRAP else []),
        pps,
        ((1 << extra_bits) - 1, extra_bits),
    ]
    fields += [1, *([(2, 2)] if plane else [])]
    if kind not in (IDR, IDR_N_LP):
        fields.append((poc % (1 << poc_bits), poc_bits))
    return unit(kind, *fields, (0x5555, 16), layer_id=layer_id, temporal=temporal)


def annexb(*units: bytes) -> bytes:
    return b"".join(b"\0\0\1" + each for each in units)


SETS = [unit(VPS, (0, 4), (0x555, 12)), unit(SPS, *sps_fields()), unit(PPS, *pps_fields())]


def read(reader: HevcReader, *units: bytes) -> PacketInfo:
    return reader.read(memoryview(annexb(*units)))


def started() -> HevcReader:
    return HevcReader(annexb(*SETS))


@pytest.mark.parametrize(
    "sub_layers", [(), ((True, True),), ((True, False), (False, True)), ((False, False),) * 6]
)
@pytest.mark.parametrize("window", [False, True])
@pytest.mark.parametrize(("chroma", "separate"), [(1, False), (3, False), (3, True), (0, False)])
def test_sequence_parameter_sets_are_read(
    sub_layers: Sequence[tuple[bool, bool]], window: bool, chroma: int, separate: bool
) -> None:
    fields = sps_fields(
        number=3, chroma=chroma, separate=separate, window=window, poc_bits=9, sub_layers=sub_layers
    )
    assert read_sps(BitReader(bits(*fields))) == (3, HevcSps(separate, 9, 2))


def test_reorder_depth_is_that_of_the_highest_sub_layer() -> None:
    layers = ((False, False),) * 2
    assert read_sps(BitReader(bits(*sps_fields(depths=(0, 1, 3), sub_layers=layers))))[1].reorder_depth == 3
    # Only one is written for all of them.
    assert read_sps(BitReader(bits(*sps_fields(depths=(4,), sub_layers=layers))))[1].reorder_depth == 4


def test_reorder_depth_of_a_stream_is_the_largest() -> None:
    depths = [
        unit(SPS, *sps_fields(number=number, depths=(depth,))) for number, depth in enumerate((1, 4, 2))
    ]
    assert HevcReader(annexb(*depths)).reorder_depth() == 4


def test_picture_parameter_sets_are_read() -> None:
    assert read_pps(BitReader(bits(*pps_fields(number=5, sps=3, extra_bits=6)))) == (5, HevcPps(3, 6))
    with pytest.raises(Unplannable, match="the stream has hidden pictures"):
        read_pps(BitReader(bits(*pps_fields(hidden=True))))


def test_pictures_are_numbered_in_display_order() -> None:
    reader = started()
    pictures = [(IDR, 0), (TRAIL_R, 8), (TRAIL_R, 4), (TRAIL_N, 2), (TRAIL_R, 12), (TRAIL_R, 19), (CRA, 26)]
    orders = [read(reader, picture(kind, poc)).display_order for kind, poc in pictures]
    assert orders == [SEQUENCE_STEP + poc for _, poc in pictures]
    assert read(reader, picture(IDR_N_LP)).display_order == 2 * SEQUENCE_STEP
    assert read(reader, picture(BLA_N_LP, 5)).display_order == 3 * SEQUENCE_STEP + 5
    assert (reader.reorder_depth(), reader.independent) == (2, True)


@pytest.mark.parametrize(
    ("kind", "temporal", "counts"),
    [
        (TRAIL_R, 0, True),
        (RSV_R15, 0, True),
        (TRAIL_N, 0, False),
        (TRAIL_R, 1, False),
        (RADL_R, 0, False),
        (RASL_R, 0, False),
    ],
)
def test_order_counts_follow_the_last_reference_of_the_lowest_layer(
    kind: int, temporal: int, counts: bool
) -> None:
    reader = started()
    read(reader, picture(IDR))
    assert read(reader, picture(kind, 7, temporal=temporal)).display_order == SEQUENCE_STEP + 7
    # 14 is near 7, but nearer to 0 from the other side.
    expected = 14 if counts else -2
    assert read(reader, picture(TRAIL_N, 14)).display_order == SEQUENCE_STEP + expected


@pytest.mark.parametrize(
    ("kind", "random_access", "is_reference"),
    [
        (TRAIL_N, NONE, False),
        (TRAIL_R, NONE, True),
        (RADL_N, NONE, False),
        (RADL_R, NONE, True),
        (14, NONE, False),
        (RSV_R15, NONE, True),
        (BLA, CLOSED, True),
        (17, CLOSED, True),
        (BLA_N_LP, CLOSED, True),
        (IDR, CLOSED, True),
        (IDR_N_LP, CLOSED, True),
        (CRA, OPEN, True),
        (22, NONE, True),
        (RSV_IRAP, NONE, True),
        (24, NONE, True),
    ],
)
def test_types_of_pictures_say_where_decoding_can_start(
    kind: int, random_access: RandomAccess, is_reference: bool
) -> None:
    reader = started()
    read(reader, picture(IDR))
    info = read(reader, picture(kind, 3, temporal=2))
    assert (info.random_access, info.is_reference, info.layer, info.shown) == (
        random_access,
        is_reference,
        2,
        True,
    )


def test_parameter_sets_select_how_slices_are_read() -> None:
    sets = [
        unit(VPS, (0, 4), (0x555, 12)),
        unit(SPS, *sps_fields(number=1, chroma=3, separate=True, poc_bits=8)),
        unit(PPS, *pps_fields(number=2, sps=1, extra_bits=3)),
    ]
    reader = HevcReader(annexb(*sets))
    read(reader, picture(IDR, pps=2, extra_bits=3, plane=True))
    info = read(reader, picture(TRAIL_R, 100, pps=2, extra_bits=3, plane=True, poc_bits=8))
    assert info.display_order == SEQUENCE_STEP + 100


def test_lengths_and_sets_may_come_from_an_hvcc_record() -> None:
    record = b"\x01".ljust(21, b"\0") + bytes([0b11111101, 3])
    for kind, each in zip((VPS, SPS, PPS), SETS, strict=True):
        record += bytes([kind]) + (1).to_bytes(2) + len(each).to_bytes(2) + each
    reader = HevcReader(record)
    packet = b"".join(len(each).to_bytes(2) + each for each in (unit(AUD, (0, 8)), picture(IDR)))
    assert reader.read(memoryview(packet)) == PacketInfo(SEQUENCE_STEP, CLOSED)
    assert HevcReader(b"\x01".ljust(23, b"\0")).reorder_depth() == 0
    with pytest.raises(Unplannable, match="the stream header is truncated"):
        HevcReader(b"\x01".ljust(22, b"\0"))


def test_sets_in_packets_are_needed_by_all_that_follows() -> None:
    reader = HevcReader(b"")
    first = read(reader, *SETS, picture(IDR, temporal=1))
    assert first == PacketInfo(SEQUENCE_STEP, CLOSED)  # of the lowest layer, because of the sets
    assert read(reader, picture(IDR)).random_access == NONE
    assert read(reader, *SETS, picture(IDR)).random_access == CLOSED
    assert read(reader, *SETS[1:], picture(CRA)).random_access == NONE
    assert (reader.independent, reader.reorder_depth()) == (True, 2)
    changed = unit(SPS, *sps_fields(depths=(5,)))
    assert read(reader, SETS[0], changed, SETS[2], picture(CRA)).random_access == OPEN
    assert (reader.independent, reader.reorder_depth()) == (False, 5)


@pytest.mark.parametrize("number", [0, 3])
def test_sets_of_other_numbers_are_other_sets(number: int) -> None:
    reader = started()
    more = [
        unit(VPS, (number, 4), (0x555, 12)),
        unit(SPS, *sps_fields(number=number)),
        unit(PPS, *pps_fields(number=number)),
    ]
    read(reader, *more, picture(IDR))
    assert reader.independent
    assert read(reader, picture(IDR)).random_access == (NONE if number else CLOSED)


def test_units_of_other_layers_and_continued_pictures_are_skipped() -> None:
    reader = started()
    other = [picture(TRAIL_R, 3, layer_id=layer) for layer in (1, 32, 63)]
    info = read(reader, *other, picture(IDR), picture(IDR, first=False), b"\x26\x01")
    assert info.display_order == SEQUENCE_STEP
    in_header = HevcReader(annexb(*SETS, unit(SPS, *sps_fields(depths=(5,)), layer_id=1)))
    assert in_header.reorder_depth() == 2


@pytest.mark.parametrize(
    ("units", "reason"),
    [
        ([unit(AUD, (0, 8))], "a packet has no picture"),
        ([picture(IDR, first=False)], "a packet has no picture"),
        ([picture(IDR), picture(TRAIL_R, 1)], "a packet has several pictures"),
        ([picture(IDR, discarded=True)], "pictures are discarded before display"),
        ([picture(RSV_IRAP, discarded=True)], "pictures are discarded before display"),
        ([picture(IDR, pps=1)], "a picture lacks its parameter sets"),
        (
            [unit(PPS, *pps_fields(number=1, sps=4)), picture(IDR, pps=1)],
            "a picture lacks its parameter sets",
        ),
        ([unit(PPS, *pps_fields(number=1, hidden=True)), picture(IDR)], "the stream has hidden pictures"),
    ],
)
def test_other_packets_are_unplannable(units: list[bytes], reason: str) -> None:
    with pytest.raises(Unplannable, match=reason):
        read(started(), *units)


@pytest.mark.parametrize("end", [EOS, EOB])
def test_pictures_after_the_end_of_a_sequence_are_unplannable(end: int) -> None:
    reader = started()
    read(reader, picture(IDR), unit(end, (0, 8)))
    with pytest.raises(Unplannable, match="a sequence ends before the stream does"):
        read(reader, picture(IDR))


@pytest.mark.parametrize("leading", [RASL_N, RASL_R])
def test_leading_pictures_of_a_broken_link_are_unplannable(leading: int) -> None:
    for start, broken in ((BLA, True), (BLA_N_LP, True), (IDR, False), (CRA, False)):
        reader = started()
        read(reader, picture(start, 4))
        if broken:
            with pytest.raises(Unplannable, match="a broken link has leading pictures"):
                read(reader, picture(leading, 3))
            read(reader, picture(RADL_R, 3))
            read(reader, picture(CRA, 8))
        read(reader, picture(leading, 7 if broken else 3))
