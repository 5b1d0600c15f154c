"""HEVC (ITU-T H.265): which pictures are referred to from where, and in which order they are shown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from service.clip.bitstream.bits import Bits, unescaped
from service.clip.bitstream.coded import Coded, Entry, NotThinned, Unplannable
from service.clip.bitstream.nal import ParameterSets, nal_units, whole_order

# Table 7-1: nal_unit_type.
RADL_N, RADL_R, RASL_N, RASL_R = 6, 7, 8, 9
BLA_FIRST, BLA_LAST, IDR_FIRST, IDR_LAST, CRA = 16, 18, 19, 20, 21
LAST_IRAP, LAST_PICTURE = 23, 31
VPS, SPS, PPS, END_OF_SEQUENCE, END_OF_STREAM = 32, 33, 34, 36, 37
PARAMETERS = {VPS, SPS, PPS}
# Below it, even types are pictures that none of the same sub-layer refers to.
FIRST_RESERVED_IRAP = 16
HEADER_BYTES = 40
SEQUENCE = 1 << 40


@dataclass(frozen=True, slots=True)
class _Sps:
    separate_colour_planes: bool
    order_bits: int
    reorder_depth: int


@dataclass(frozen=True, slots=True)
class _Pps:
    sps: int
    extra_bits: int


class HevcReader(NotThinned):
    """See `Reader`; `header` is the stream's hvcC record, or its parameter sets between start codes."""

    def __init__(self, header: bytes) -> None:
        self._length_bytes = 0
        self._sps: dict[int, _Sps] = {}
        self._pps: dict[int, _Pps] = {}
        self._sets = ParameterSets()
        self._sequence = 0
        self._previous_order = 0  # of the last picture of the lowest sub-layer that others may refer to
        self._after_broken_link = self._ended = False
        self._reorder_depth = 0
        for unit in self._header_units(header):
            kind = _kind(unit)
            if kind in PARAMETERS and not _layer(unit):
                self._sets.in_header(self._take_parameters(kind, unit), bytes(unit).rstrip(b"\0"))

    @property
    def independent(self) -> bool:
        """See `Reader`."""
        return not self._sets.changed

    def reorder_depth(self) -> int | None:
        """See `Reader`: the largest that any parameter set declares."""
        return self._reorder_depth

    def read(self, packet: memoryview) -> Coded:
        """See `Reader`."""
        self._sets.begin_packet()
        picture: Coded | None = None
        for unit in nal_units(packet, self._length_bytes):
            if len(unit) < 3 or _layer(unit):
                continue
            kind = _kind(unit)
            if kind <= LAST_PICTURE and unit[2] & 0x80:  # first_slice_segment_in_pic_flag
                if picture:
                    raise Unplannable("several pictures in a packet")
                picture = self._picture(kind, unit)
            elif kind in PARAMETERS:
                if self._sets.in_packet((kind, _number(kind, unit)), bytes(unit)):
                    self._take_parameters(kind, unit)
            elif kind in {END_OF_SEQUENCE, END_OF_STREAM}:
                self._ended = True
        if not picture:
            raise Unplannable("a packet without a picture")
        return picture

    def _picture(self, kind: int, unit: memoryview) -> Coded:
        if self._ended:
            raise Unplannable("sequences that end in mid-stream")
        layer = (unit[1] & 7) - 1
        order = self._order(kind, layer, unit)
        if BLA_FIRST <= kind <= LAST_IRAP:
            self._after_broken_link = kind <= BLA_LAST
        elif kind in {RASL_N, RASL_R} and self._after_broken_link:
            raise Unplannable("leading pictures of a broken link")
        entry = Entry.NONE
        if BLA_FIRST <= kind <= CRA and self._sets.complete():
            entry = Entry.OPEN if kind == CRA else Entry.CLOSED
        if self._sets.news:
            return Coded(order, entry)
        referenced = kind >= FIRST_RESERVED_IRAP or kind % 2 == 1
        return Coded(order, entry, layer=layer, referenced=referenced)

    def _order(self, kind: int, layer: int, unit: memoryview) -> int:
        """Clause 8.3.1."""
        lsb, span = self._order_lsb(kind, unit)
        if BLA_FIRST <= kind <= IDR_LAST:
            self._sequence += 1
            count = lsb
        else:
            count = whole_order(lsb, self._previous_order, span)
        if layer == 0 and (kind >= FIRST_RESERVED_IRAP or (kind % 2 == 1 and kind not in {RADL_R, RASL_R})):
            self._previous_order = count
        return self._sequence * SEQUENCE + count

    def _order_lsb(self, kind: int, unit: memoryview) -> tuple[int, int]:
        """`slice_pic_order_cnt_lsb` of a slice (clause 7.3.6.1), and how many values it can have."""
        bits = Bits(unescaped(bytes(unit[2:HEADER_BYTES])))
        bits.u(1)
        if BLA_FIRST <= kind <= LAST_IRAP and bits.flag():
            raise Unplannable("pictures that are thrown away unseen")
        pps = self._pps.get(bits.ue())
        sps = self._sps.get(pps.sps) if pps else None
        if pps is None or sps is None:
            raise Unplannable("a picture without its parameter sets")
        bits.u(pps.extra_bits)
        bits.ue()  # slice_type
        if sps.separate_colour_planes:
            bits.u(2)
        idr = IDR_FIRST <= kind <= IDR_LAST
        return 0 if idr else bits.u(sps.order_bits), 1 << sps.order_bits

    def _header_units(self, header: bytes) -> Iterable[memoryview]:
        if header[:3] in {b"\0\0\1", b"\0\0\0"} or not header:
            return nal_units(memoryview(header), 0)
        if len(header) < 23:
            raise Unplannable("the header is cut off")
        self._length_bytes = (header[21] & 3) + 1
        return _hvcc_units(memoryview(header))

    def _take_parameters(self, kind: int, unit: memoryview) -> tuple[int, int]:
        bits = Bits(unescaped(bytes(unit[2:])))
        if kind == SPS:
            number, sps = _read_sps(bits)
            self._sps[number] = sps
            self._reorder_depth = max(self._reorder_depth, sps.reorder_depth)
        elif kind == PPS:
            number, pps = _read_pps(bits)
            self._pps[number] = pps
        else:
            number = bits.u(4)
        return kind, number


def _kind(unit: memoryview) -> int:
    return unit[0] >> 1 & 63


def _layer(unit: memoryview) -> int:
    """`nuh_layer_id`: above 0 are other views and scales of multi-layer streams, which are not decoded."""
    return (unit[0] & 1) << 5 | unit[1] >> 3 if len(unit) > 1 else 0


def _number(kind: int, unit: memoryview) -> int:
    """The id of a parameter set."""
    bits = Bits(unescaped(bytes(unit[2:160])))
    if kind == VPS:
        return bits.u(4)
    if kind == SPS:
        _skip_to_sps_number(bits)
    return bits.ue()


def _hvcc_units(header: memoryview) -> Iterable[memoryview]:
    """The NAL units of an HEVCDecoderConfigurationRecord (ISO/IEC 14496-15, clause 8.3.3)."""
    at = 23
    for _ in range(header[22]):
        count = int.from_bytes(header[at + 1 : at + 3], "big")
        at += 3
        for _ in range(count):
            size = int.from_bytes(header[at : at + 2], "big")
            if size < 3 or at + 2 + size > len(header):
                raise Unplannable("the header is cut off")
            yield header[at + 2 : at + 2 + size]
            at += 2 + size


def _skip_to_sps_number(bits: Bits) -> int:
    """Read over profile, tier and level (clause 7.3.3); sps_max_sub_layers_minus1."""
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


def _read_sps(bits: Bits) -> tuple[int, _Sps]:
    """Clause 7.3.2.2.1."""
    sub_layers = _skip_to_sps_number(bits)
    number = bits.ue()
    separate = bits.ue() == 3 and bits.flag()
    bits.ue(), bits.ue()
    if bits.flag():  # conformance window
        for _ in range(4):
            bits.ue()
    bits.ue(), bits.ue()
    order_bits = bits.ue() + 4
    all_layers = bits.flag()
    depth = 0
    for _ in range(sub_layers + 1 if all_layers else 1):
        bits.ue()
        depth = bits.ue()
        bits.ue()
    return number, _Sps(separate, order_bits, depth)


def _read_pps(bits: Bits) -> tuple[int, _Pps]:
    """Clause 7.3.2.3.1."""
    number, sps = bits.ue(), bits.ue()
    bits.u(1)
    if bits.flag():  # output_flag_present_flag
        raise Unplannable("pictures that are not shown")
    return number, _Pps(sps, extra_bits=bits.u(3))
