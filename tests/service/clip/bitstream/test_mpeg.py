from __future__ import annotations

import pytest

from service.clip.bitstream.mpeg import DisplayOrder, Mpeg2Reader, Mpeg4Reader
from service.clip.bitstream.packet_info import PacketInfo, RandomAccess, Unplannable
from tests.service.clip.bitstream.written import Field, bits

OPEN, NONE = RandomAccess.OPEN, RandomAccess.NONE
GAP = DisplayOrder.GAP
INTRA, P, B = 1, 2, 3
TOP, BOTTOM, FRAME = 1, 2, 3
END = b"\0\0\1\xb7" + bytes(12)


def test_reference_pictures_come_after_the_b_pictures_that_follow_them() -> None:
    order = DisplayOrder()
    numbers = {
        name: order.next(is_b=name.startswith("b")) for name in ("I0", "P3", "b1", "b2", "P5", "b4", "P6")
    }
    assert sorted(numbers, key=numbers.__getitem__) == ["I0", "b1", "b2", "P3", "b4", "P5", "P6"]
    assert numbers["I0"] == GAP
    assert numbers["b1"] == GAP + 1


def picture(kind: int) -> bytes:
    """A picture header: clause 6.2.3 of ISO/IEC 13818-2."""
    return b"\0\0\1\0" + bits((7, 10), (kind, 3), (0xFFFF, 16)) + b"\xff"


def extension(identifier: int, structure: int = FRAME) -> bytes:
    return b"\0\0\1\xb5" + bits((identifier, 4), (0xFFF, 12), (0x3F, 6), (structure, 2)) + b"\xff" * 3


SEQUENCE = b"\0\0\1\xb3" + b"\x14\x00\xf0" + b"\xff" * 5
SLICES = b"".join(b"\0\0\1" + bytes([row]) + b"\x55" * 12 for row in (1, 2, 0xAF))


def coded(kind: int, structure: int | None = FRAME, *more: bytes) -> bytes:
    return picture(kind) + (b"" if structure is None else extension(8, structure)) + b"".join(more) + SLICES


def read(*packets: bytes) -> list[PacketInfo]:
    reader = Mpeg2Reader()
    assert (reader.reorder_depth(), reader.independent) == (1, False)
    return [reader.read(memoryview(packet + END)) for packet in packets]


@pytest.mark.parametrize("structure", [None, FRAME])
def test_mpeg2_pictures_are_described(structure: int | None) -> None:
    infos = read(
        SEQUENCE + coded(INTRA, structure), coded(P, structure), coded(B, structure), coded(INTRA, structure)
    )
    assert infos == [
        PacketInfo(GAP, OPEN),
        PacketInfo(2 * GAP, NONE),
        PacketInfo(GAP + 1, NONE, is_reference=False),
        PacketInfo(3 * GAP, NONE),
    ]
    assert read(SEQUENCE + coded(P, structure))[0].random_access == NONE


def test_mpeg2_b_picture_that_changes_the_matrices_is_needed() -> None:
    assert read(coded(P), coded(B, FRAME, extension(3)))[1].is_reference
    assert not read(coded(P), coded(B, FRAME, extension(4)))[1].is_reference


def test_mpeg2_frame_may_be_two_fields_in_one_packet() -> None:
    infos = read(
        SEQUENCE + coded(INTRA, TOP) + coded(P, BOTTOM),
        coded(B, BOTTOM) + coded(B, TOP),
        coded(P, TOP) + coded(P, BOTTOM),
    )
    assert infos == [
        PacketInfo(GAP, OPEN),
        PacketInfo(1, NONE, is_reference=False),
        PacketInfo(2 * GAP, NONE),
    ]


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"", "a packet has no picture"),
        (SEQUENCE, "a packet has no picture"),
        (SEQUENCE + SLICES, "a packet has no picture"),
        (coded(INTRA, TOP), "fields are in separate packets"),
        (coded(INTRA, BOTTOM), "fields are in separate packets"),
        (coded(INTRA) + coded(P), "a packet has several pictures"),
        (coded(INTRA, None) + coded(P, None), "a packet has several pictures"),
        (coded(INTRA, TOP) + coded(P, TOP), "a packet has several pictures"),
        (coded(INTRA, TOP) + coded(P, FRAME), "a packet has several pictures"),
        (coded(INTRA, TOP) + coded(P, BOTTOM) + coded(P), "a packet has several pictures"),
    ],
)
def test_other_mpeg2_packets_are_unplannable(packet: bytes, reason: str) -> None:
    with pytest.raises(Unplannable, match=f"^{reason}$"):
        read(packet)


I_VOP, P_VOP, B_VOP = 0, 1, 2


def vol(
    *, resolution: int = 25, interlaced: bool = False, options: bool = False, shape: int = 0, code: int = 0x20
) -> bytes:
    """A video object layer: clause 6.2.3 of ISO/IEC 14496-2. `options` sets everything that is optional."""
    fields: list[Field] = [(0, 1), (1, 8)]
    fields += [(1, 1), (0x55, 7)] if options else [(0, 1)]
    fields += [(15, 4), (0x1234, 16)] if options else [(1, 4)]
    fields += [(1, 1), (1, 3), (1, 1), (0x5A5A, 79)] if options else [(0, 1)]
    fields += [(shape, 2), (1, 1), (resolution, 16), (1, 1)]
    fields += [(1, 1), (1, max(1, (resolution - 1).bit_length()))] if options else [(0, 1)]
    fields += [(1, 1), (320, 13), (1, 1), (240, 13), (1, 1), (interlaced, 1)]
    return b"\0\0\1" + bytes([code]) + bits(*fields) + b"\xff"


def vop(kind: int, *, time_bits: int = 5, seconds: int = 0, is_coded: bool = True) -> bytes:
    """A video object plane: clause 6.2.5."""
    fields: list[Field] = [
        (kind, 2),
        *[(1, 1)] * seconds,
        (0, 1),
        (1, 1),
        (0, time_bits),
        (1, 1),
        (is_coded, 1),
    ]
    return b"\0\0\1\xb6" + bits(*fields) + b"\x55" * 4


@pytest.mark.parametrize("options", [False, True])
@pytest.mark.parametrize(
    ("resolution", "time_bits"), [(1, 1), (2, 1), (3, 2), (25, 5), (30000, 15), (65535, 16)]
)
def test_mpeg4_pictures_are_described(options: bool, resolution: int, time_bits: int) -> None:
    reader = Mpeg4Reader(b"\0\0\1\xb0\x01" + vol(resolution=resolution, options=options) + b"\0\0\1\xb2Lavc")
    kinds = [(I_VOP, 0), (P_VOP, 1), (B_VOP, 3), (I_VOP, 0), (3, 0)]
    packets = [vop(kind, time_bits=time_bits, seconds=seconds) for kind, seconds in kinds]
    assert [reader.read(memoryview(packet)) for packet in packets] == [
        PacketInfo(GAP, OPEN),
        PacketInfo(2 * GAP, NONE),
        PacketInfo(GAP + 1, NONE, is_reference=False),
        PacketInfo(3 * GAP, OPEN),
        PacketInfo(4 * GAP, NONE),
    ]
    with pytest.raises(Unplannable, match=r"^a picture is not coded$"):
        reader.read(memoryview(vop(P_VOP, time_bits=time_bits, is_coded=False)))
    assert (reader.reorder_depth(), reader.independent) == (1, False)


@pytest.mark.parametrize("code", [0x20, 0x2F])
def test_mpeg4_layer_may_be_in_the_packets(code: int) -> None:
    reader = Mpeg4Reader(b"")
    layer = vol(code=code)
    infos = [
        reader.read(memoryview(packet)) for packet in (layer + vop(I_VOP), vop(I_VOP), layer + vop(P_VOP))
    ]
    assert [info.random_access for info in infos] == [OPEN, NONE, NONE]


@pytest.mark.parametrize("code", [0x1F, 0x30])
def test_mpeg4_pictures_need_a_layer(code: int) -> None:
    with pytest.raises(Unplannable, match=r"^a picture lacks its parameters$"):
        Mpeg4Reader(vol(code=code)).read(memoryview(vop(I_VOP)))


def test_mpeg4_b_pictures_of_interlaced_video_are_needed() -> None:
    reader = Mpeg4Reader(vol(interlaced=True, options=True))
    assert reader.read(memoryview(vop(B_VOP))).is_reference


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"\0\0\1\xb3", "a packet has no picture"),
        (vop(I_VOP) + vop(P_VOP), "a packet has several pictures"),
        (vol(resolution=24) + vop(I_VOP), "the parameters change"),
    ],
)
def test_other_mpeg4_packets_are_unplannable(packet: bytes, reason: str) -> None:
    with pytest.raises(Unplannable, match=f"^{reason}$"):
        Mpeg4Reader(vol()).read(memoryview(packet))


@pytest.mark.parametrize("shape", [1, 2, 3])
def test_mpeg4_pictures_of_other_shapes_are_unplannable(shape: int) -> None:
    with pytest.raises(Unplannable, match=r"^pictures are not rectangular$"):
        Mpeg4Reader(vol(shape=shape))
