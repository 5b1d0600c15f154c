from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import pytest

from service.clip.bitstream.bits import BitReader
from service.clip.bitstream.h264.parameters import H264Pps, H264Sps, read_pps, read_sps
from service.clip.bitstream.packet_info import Unplannable
from tests.service.clip.bitstream.written import Field, bits

END = (0x2A5, 10)


def sps_fields(
    *,
    profile: int = 77,
    number: int = 0,
    chroma: int = 1,
    separate: bool = False,
    matrix: Sequence[Field] | None = None,
    frame_num_bits: int = 4,
    poc_type: int = 0,
    poc_bits: int = 4,
    references: int = 2,
    frames_only: bool = True,
    cropped: bool = False,
    vui: Sequence[Field] | None = None,
) -> list[Field]:
    """A sequence parameter set: clause 7.3.2.1.1."""
    fields: list[Field] = [(profile, 8), (0x1234, 16), number]
    if profile >= 100:
        fields += [chroma, *([(separate, 1)] if chroma == 3 else []), 1, 2, (0, 1)]
        fields += [(0, 1)] if matrix is None else [(1, 1), *matrix]
    fields += [frame_num_bits - 4, poc_type, *([poc_bits - 4] if poc_type == 0 else [])]
    fields += [references, (1, 1), 19, 14, (frames_only, 1), *([] if frames_only else [(1, 1)]), (1, 1)]
    fields += [(cropped, 1), *([1, 2, 3, 4] if cropped else [])]
    return [*fields, *([(0, 1)] if vui is None else [(1, 1), *vui])]


def read(**changes: object) -> tuple[int, H264Sps]:
    reader = BitReader(bits(*sps_fields(**changes), END))  # type: ignore[arg-type]
    found = read_sps(reader)
    if found[1].reorder_depth is None:  # otherwise the rest is not read
        assert reader.u(END[1]) == END[0]
    return found


PLAIN = H264Sps(
    separate_planes=False,
    chroma=True,
    frame_num_bits=4,
    poc_type=0,
    poc_bits=4,
    max_references=2,
    frames_only=True,
    reorder_depth=None,
)


@pytest.mark.parametrize("cropped", [False, True])
def test_plain_sequence_parameter_set_is_read(cropped: bool) -> None:
    assert read(number=3, cropped=cropped) == (3, PLAIN)


@pytest.mark.parametrize("profile", [100, 110, 122, 244, 118, 128, 138, 139, 134, 135])
def test_high_profiles_state_their_chroma(profile: int) -> None:
    assert read(profile=profile)[1] == PLAIN
    assert not read(profile=profile, chroma=0)[1].chroma
    assert read(profile=profile, chroma=2)[1].chroma
    assert read(profile=profile, chroma=3)[1].chroma
    separate = read(profile=profile, chroma=3, separate=True)[1]
    assert (separate.separate_planes, separate.chroma) == (True, False)


@pytest.mark.parametrize(("chroma", "lists"), [(1, 8), (3, 12)])
def test_scaling_lists_are_skipped(chroma: int, lists: int) -> None:
    # Deltas are signed: 1 is +1, and 15 is +8. A scale of 0 ends a list early.
    absent: list[Field] = [(0, 1)]
    steady: list[list[Field]] = [[(1, 1), *[0] * (16 if index < 6 else 64)] for index in range(lists)]
    ended: list[list[Field]] = [[(1, 1), 1, 18] for _ in range(lists)]  # 8 + 1 - 9
    wrapped: list[list[Field]] = [[(1, 1), 496] for _ in range(lists)]  # 8 - 248, which is 16 modulo 256
    for index, each in enumerate(wrapped):
        each += [0] * ((16 if index < 6 else 64) - 1)
    matrices: list[list[list[Field]]] = [[absent] * lists, steady, ended, wrapped]
    for matrix in matrices:
        fields = list(chain.from_iterable(matrix))
        assert read(profile=100, chroma=chroma, matrix=fields)[1] == PLAIN


def test_counters_have_16_bits_at_most() -> None:
    assert read(frame_num_bits=16, poc_bits=16)[1].frame_num_bits == 16
    for counter in ("frame_num_bits", "poc_bits"):
        with pytest.raises(Unplannable, match="a parameter set has counters of too many bits"):
            read(**{counter: 17})


def test_types_of_order_counts() -> None:
    in_coding_order = read(poc_type=2)[1]
    assert (in_coding_order.poc_type, in_coding_order.poc_bits) == (2, 0)
    assert in_coding_order.reorder_depth == 0
    for poc_type in (1, 3):
        with pytest.raises(Unplannable, match="picture order counts are of type 1"):
            read(poc_type=poc_type)


def test_references_and_fields() -> None:
    found = read(references=5, frames_only=False)[1]
    assert (found.max_references, found.frames_only) == (5, False)


RESTRICTION: list[Field] = [(1, 1), (1, 1), 2, 1, 10, 11, 3, 4]  # max_num_reorder_frames is 3


def hrd(count: int) -> list[Field]:
    """A hypothetical reference decoder: clause E.1.2."""
    each: list[Field] = [5, 6, (1, 1)]
    return [(1, 1), count - 1, (0x5A, 8), *each * count, (0x5A5A5, 20)]


def vui(
    *,
    aspect: Sequence[Field] = ((0, 1),),
    overscan: bool = False,
    signal: Sequence[Field] = ((0, 1),),
    location: bool = False,
    timing: bool = False,
    hrds: Sequence[Sequence[Field]] = (((0, 1),), ((0, 1),)),
    restriction: Sequence[Field] = RESTRICTION,
) -> list[Field]:
    """VUI parameters: clause E.1.1."""
    fields: list[Field] = [*aspect, (overscan, 1), *([(1, 1)] if overscan else []), *signal]
    fields += [(location, 1), *([3, 4] if location else []), (timing, 1), *([(0x5A5A, 65)] if timing else [])]
    fields += [*hrds[0], *hrds[1]]
    if len(hrds[0]) > 1 or len(hrds[1]) > 1:
        fields.append((1, 1))  # low_delay_hrd_flag
    return [*fields, (0, 1), *restriction]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"aspect": [(1, 1), (1, 8)]},
        {"aspect": [(1, 1), (254, 8)]},
        {"aspect": [(1, 1), (255, 8), (0x12345678, 32)]},
        {"overscan": True},
        {"signal": [(1, 1), (5, 4), (0, 1)]},
        {"signal": [(1, 1), (5, 4), (1, 1), (0x123456, 24)]},
        {"location": True},
        {"timing": True},
        {"hrds": [hrd(1), [(0, 1)]]},
        {"hrds": [[(0, 1)], hrd(2)]},
        {"hrds": [hrd(3), hrd(1)]},
    ],
)
def test_reorder_depth_is_read_behind_all_options(changes: dict[str, Sequence[Field]]) -> None:
    assert read(vui=vui(**changes))[1].reorder_depth == 3  # type: ignore[arg-type]
    assert read(vui=vui(**changes, restriction=[(0, 1)]))[1] == PLAIN  # type: ignore[arg-type]


def pps_fields(
    *,
    number: int = 0,
    sps: int = 0,
    cabac: bool = False,
    bottom_poc: bool = False,
    groups: int = 0,
    active: tuple[int, int] = (1, 1),
    weights_p: bool = False,
    weights_b: int = 0,
    deblocking_control: bool = False,
    redundant_slices: bool = False,
) -> list[Field]:
    """A picture parameter set: clause 7.3.2.2."""
    fields: list[Field] = [number, sps, (cabac, 1), (bottom_poc, 1), groups]
    fields += [active[0] - 1, active[1] - 1, (weights_p, 1), (weights_b, 2), 3, 4, 5]
    return [*fields, (deblocking_control, 1), (1, 1), (redundant_slices, 1)]


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        ({}, {}),
        ({"number": 4, "sps": 3}, {"sps": 3}),
        ({"cabac": True}, {"cabac": True}),
        ({"bottom_poc": True}, {"bottom_poc": True}),
        ({"active": (3, 5)}, {"default_active": (3, 5)}),
        ({"weights_p": True}, {"weights_p": True}),
        ({"weights_b": 1}, {"weights_b": True}),
        ({"weights_b": 2}, {}),
        ({"deblocking_control": True}, {"deblocking_control": True}),
        ({"redundant_slices": True}, {"redundant_slices": True}),
    ],
)
def test_picture_parameter_sets_are_read(written: dict[str, object], read_as: dict[str, object]) -> None:
    plain: dict[str, object] = {
        "sps": 0, "cabac": False, "bottom_poc": False, "default_active": (1, 1), "weights_p": False,
        "weights_b": False, "deblocking_control": False, "redundant_slices": False,
    }  # fmt: skip
    number, pps = read_pps(BitReader(bits(*pps_fields(**written))))  # type: ignore[arg-type]
    assert number == written.get("number", 0)
    assert pps == H264Pps(**plain | read_as)  # type: ignore[arg-type]


def test_flexible_macroblock_ordering_is_unplannable() -> None:
    with pytest.raises(Unplannable, match="the stream uses flexible macroblock ordering"):
        read_pps(BitReader(bits(*pps_fields(groups=1))))
