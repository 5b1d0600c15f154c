"""HEVC (ITU-T H.265): which pictures refer to which, and the order in which they are shown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from service.clip.bitstream.bits import BitReader, unescape
from service.clip.bitstream.nal import ParameterSets, full_order_count, hvcc_units, nal_units
from service.clip.bitstream.packet_info import PacketInfo, RandomAccess, Unplannable, WithoutPruner

# nal_unit_type, table 7-1.
RADL_N, RADL_R, RASL_N, RASL_R = 6, 7, 8, 9
BLA_FIRST, BLA_LAST, IDR_FIRST, IDR_LAST, CRA = 16, 18, 19, 20, 21
LAST_IRAP, LAST_PICTURE = 23, 31
VPS, SPS, PPS, END_OF_SEQUENCE, END_OF_STREAM = 32, 33, 34, 36, 37
PARAMETERS = {VPS, SPS, PPS}
# Below this type, pictures of even types are not references for their own sub-layer.
FIRST_RESERVED_IRAP = 16
START_BYTES = 40  # covers the part of a slice header that is read
SEQUENCE_STEP = 1 << 40  # display orders combine the coded video sequence with the picture order count


class HevcSps(NamedTuple):
    """A sequence parameter set, as far as slice headers depend on it."""

    separate_planes: bool
    poc_bits: int
    reorder_depth: int


class HevcPps(NamedTuple):
    """A picture parameter set, as far as slice headers depend on it."""

    sps: int
    extra_bits: int


class HevcReader(WithoutPruner):
    """`PacketReader` for HEVC.

    Args:
        header: The hvcC record of the stream, or its parameter sets between start codes.
    """

    def __init__(self, header: bytes) -> None:
        self._length_bytes = 0
        self._spss: dict[int, HevcSps] = {}
        self._ppss: dict[int, HevcPps] = {}
        self._sets = ParameterSets()
        self._sequence = 0
        self._previous_poc = 0  # of the last reference picture of the lowest sub-layer
        self._after_broken_link = self._ended = False
        self._reorder_depth = 0
        units: Iterable[memoryview]
        if header[:3] in {b"\0\0\1", b"\0\0\0"} or not header:
            units = nal_units(memoryview(header), 0)
        elif len(header) < 23:
            raise Unplannable("the stream header is truncated")
        else:
            self._length_bytes = (header[21] & 3) + 1
            units = hvcc_units(memoryview(header))
        for unit in units:
            if _unit_type(unit) in PARAMETERS and not _layer_id(unit):
                self._sets.add_from_header(self._read_parameters(unit), unit)

    @property
    def independent(self) -> bool:
        """Whether the parameter sets never change."""
        return not self._sets.changed

    def reorder_depth(self) -> int | None:
        """The largest depth that any parameter set declares."""
        return self._reorder_depth

    def read(self, packet: memoryview) -> PacketInfo:
        """Describe the next packet."""
        self._sets.start_packet()
        picture: PacketInfo | None = None
        for unit in nal_units(packet, self._length_bytes):
            if len(unit) < 3 or _layer_id(unit):
                continue
            kind = _unit_type(unit)
            if kind <= LAST_PICTURE and unit[2] & 0x80:  # first_slice_segment_in_pic_flag
                if picture:
                    raise Unplannable("a packet has several pictures")
                picture = self._read_picture(kind, unit)
            elif kind in PARAMETERS:
                if self._sets.add_from_packet((kind, _set_number(unit)), unit):
                    self._read_parameters(unit)
            elif kind in {END_OF_SEQUENCE, END_OF_STREAM}:
                self._ended = True
        if not picture:
            raise Unplannable("a packet has no picture")
        return picture

    def _read_picture(self, kind: int, unit: memoryview) -> PacketInfo:
        if self._ended:
            raise Unplannable("a sequence ends before the stream does")
        layer = (unit[1] & 7) - 1
        is_sublayer_reference = kind >= FIRST_RESERVED_IRAP or kind % 2 == 1
        # The picture order count (clause 8.3.1).
        poc_lsb, poc_span = self._read_poc(kind, unit)
        if BLA_FIRST <= kind <= IDR_LAST:
            self._sequence += 1
            poc = poc_lsb
        else:
            poc = full_order_count(poc_lsb, self._previous_poc, poc_span)
        if layer == 0 and is_sublayer_reference and kind not in {RADL_R, RASL_R}:
            self._previous_poc = poc
        display_order = self._sequence * SEQUENCE_STEP + poc
        if BLA_FIRST <= kind <= LAST_IRAP:
            self._after_broken_link = kind <= BLA_LAST
        elif kind in {RASL_N, RASL_R} and self._after_broken_link:
            raise Unplannable("a broken link has leading pictures")
        random_access = RandomAccess.NONE
        if BLA_FIRST <= kind <= CRA and self._sets.complete():
            random_access = RandomAccess.OPEN if kind == CRA else RandomAccess.CLOSED
        if self._sets.new:
            return PacketInfo(display_order, random_access)  # later pictures of any layer need the sets
        return PacketInfo(display_order, random_access, layer=layer, is_reference=is_sublayer_reference)

    def _read_poc(self, kind: int, unit: memoryview) -> tuple[int, int]:
        """Read `slice_pic_order_cnt_lsb` (clause 7.3.6.1). Return it and the number of its values."""
        bits = BitReader(unescape(bytes(unit[2:START_BYTES])))
        bits.u(1)
        if BLA_FIRST <= kind <= LAST_IRAP and bits.flag():
            raise Unplannable("pictures are discarded before display")
        pps = self._ppss.get(bits.ue())
        sps = self._spss.get(pps.sps) if pps else None
        if pps is None or sps is None:
            raise Unplannable("a picture lacks its parameter sets")
        bits.u(pps.extra_bits)
        bits.ue()  # slice_type
        if sps.separate_planes:
            bits.u(2)
        is_idr = IDR_FIRST <= kind <= IDR_LAST
        return 0 if is_idr else bits.u(sps.poc_bits), 1 << sps.poc_bits

    def _read_parameters(self, unit: memoryview) -> tuple[int, int]:
        """Read a parameter set and return its key."""
        kind = _unit_type(unit)
        bits = BitReader(unescape(bytes(unit[2:])))
        if kind == SPS:
            number, sps = read_sps(bits)
            self._spss[number] = sps
            self._reorder_depth = max(self._reorder_depth, sps.reorder_depth)
        elif kind == PPS:
            number, pps = read_pps(bits)
            self._ppss[number] = pps
        else:
            number = bits.u(4)
        return kind, number


def _unit_type(unit: memoryview) -> int:
    return unit[0] >> 1 & 63


def _layer_id(unit: memoryview) -> int:
    """Return `nuh_layer_id`; layers above 0 are additional views and scales, which are not decoded."""
    return (unit[0] & 1) << 5 | unit[1] >> 3 if len(unit) > 1 else 0


def _set_number(unit: memoryview) -> int:
    """Read the number of a parameter set."""
    bits = BitReader(unescape(bytes(unit[2:160])))
    if _unit_type(unit) == VPS:
        return bits.u(4)
    if _unit_type(unit) == SPS:
        skip_profile(bits)
    return bits.ue()


def skip_profile(bits: BitReader) -> int:
    """Skip to the number of a sequence parameter set (clause 7.3.3). Return sps_max_sub_layers_minus1."""
    bits.u(4)
    sub_layers = bits.u(3)
    bits.u(1)
    bits.u(96)
    present = [(bits.u(1), bits.u(1)) for _ in range(sub_layers)]
    if sub_layers:
        bits.u(2 * (8 - sub_layers))
    for profile, level in present:
        bits.u(88 * profile + 8 * level)
    return sub_layers


def read_sps(bits: BitReader) -> tuple[int, HevcSps]:
    """Read a sequence parameter set (clause 7.3.2.2.1). Return its number and contents."""
    sub_layers = skip_profile(bits)
    number = bits.ue()
    separate_planes = bits.ue() == 3 and bits.flag()
    bits.ue(), bits.ue()  # size
    if bits.flag():  # conformance window
        for _ in range(4):
            bits.ue()
    bits.ue(), bits.ue()  # bit depths
    poc_bits = bits.ue() + 4
    all_layers = bits.flag()
    depth = 0
    for _ in range(sub_layers + 1 if all_layers else 1):
        bits.ue()
        depth = bits.ue()
        bits.ue()
    return number, HevcSps(separate_planes, poc_bits, depth)


def read_pps(bits: BitReader) -> tuple[int, HevcPps]:
    """Read a picture parameter set (clause 7.3.2.3.1). Return its number and contents."""
    number, sps = bits.ue(), bits.ue()
    bits.u(1)
    if bits.flag():  # output_flag_present_flag
        raise Unplannable("the stream has hidden pictures")
    return number, HevcPps(sps, extra_bits=bits.u(3))
