"""H.264 (ITU-T H.264): which pictures are referred to, and in which order they are shown.

Only the parameter sets and the first bytes of slices are read. What real clips hardly ever use is not
followed but refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from service.clip.bitstream.bits import Bits, unescaped
from service.clip.bitstream.coded import Coded, Entry, Unplannable
from service.clip.bitstream.h264_parameters import Pps, Sps, read_pps, read_sps
from service.clip.bitstream.h264_references import H264Thinner
from service.clip.bitstream.h264_slices import I_SLICE, IDR
from service.clip.bitstream.nal import ParameterSets, nal_units, whole_order

# Table 7-1: nal_unit_type.
SLICE, PARTITION_A, SEI, SPS, PPS, SPS_EXTENSION = 1, 2, 6, 7, 8, 13
SLICES = {SLICE, PARTITION_A, IDR}
RECOVERY_POINT = 6  # SEI payload type
HEADER_BYTES = 40  # more than the part of a slice header that is read

# Orders are (coded video sequence, picture order count) in one number; counts are below 2^32 either way.
SEQUENCE = 1 << 40


class _Slice(NamedTuple):
    intra: bool
    field: bool
    bottom: bool
    order_lsb: int
    order_of_bottom: int
    discards_prior: bool


class H264Reader:
    """See `Reader`; `header` is the stream's avcC record, or its parameter sets between start codes."""

    def __init__(self, header: bytes) -> None:
        self._length_bytes = 0
        self._sps: dict[int, Sps] = {}
        self._pps: dict[int, Pps] = {}
        self._sets = ParameterSets()
        self._sequence = 0
        self._pictures = 0
        self._previous_order = self._order_bits = 0
        self._reorder_depth: int | None = 0
        for unit in self._header_units(header):
            kind = unit[0] & 31
            if kind in {SPS, PPS}:
                self._sets.in_header(self._take_parameters(kind, unit), bytes(unit).rstrip(b"\0"))

    @property
    def independent(self) -> bool:
        """See `Reader`."""
        return not self._sets.changed

    def reorder_depth(self) -> int | None:
        """See `Reader`: the largest that any parameter set declares."""
        return self._reorder_depth

    def thinner(self) -> H264Thinner | None:
        """See `Reader`."""
        return None if self._sets.changed else H264Thinner(self._sps, self._pps, self._length_bytes)

    def read(self, packet: memoryview) -> Coded:
        """See `Reader`."""
        self._sets.begin_packet()
        slices: list[tuple[int, memoryview]] = []
        recovers = False
        for unit in nal_units(packet, self._length_bytes):
            kind = unit[0] & 31
            if kind in SLICES:
                slices.append((kind, unit))
            elif kind in {SPS, PPS}:
                self._take_in_packet(kind, unit)
            elif kind == SEI:
                recovers = recovers or _is_exact_recovery_point(bytes(unit[1:]))
            elif kind == SPS_EXTENSION:
                raise Unplannable("auxiliary pictures")
        if not slices:
            raise Unplannable("a packet without a picture")
        return self._picture(slices, recovers)

    def _picture(self, slices: list[tuple[int, memoryview]], recovers: bool) -> Coded:
        beginnings = [(kind, unit) for kind, unit in slices if len(unit) > 1 and unit[1] & 0x80]
        headers = [self._slice(kind, unit) for kind, unit in beginnings]
        self._check_is_one_frame(headers)
        kind = slices[0][0]
        referenced = any(unit[0] & 0x60 for _, unit in slices)
        order = self._order(kind == IDR, referenced, headers)
        entry = Entry.NONE
        if self._sets.complete():
            if kind == IDR:
                entry = Entry.CLOSED
            elif recovers and all(_is_intra(unit) for _, unit in slices):
                entry = Entry.OPEN
        return Coded(order, entry, referenced=referenced or self._sets.news)

    def _check_is_one_frame(self, headers: list[_Slice]) -> None:
        if not headers:
            raise Unplannable("a picture without its beginning")
        fields = [header.bottom for header in headers if header.field]
        if len(headers) == 1 and fields:
            raise Unplannable("fields in packets of their own")
        if len(headers) > 1 and sorted(fields) != [False, True]:
            raise Unplannable("several pictures in a packet")
        if any(header.discards_prior for header in headers):
            raise Unplannable("pictures that are thrown away unseen")

    def _order(self, idr: bool, referenced: bool, headers: list[_Slice]) -> int:
        """Clause 8.2.1, for frames."""
        if idr:
            self._sequence += 1
            self._previous_order = 0
        self._pictures += 1
        first = headers[0]
        if first.order_lsb < 0:  # type 2: shown as they come
            return self._sequence * SEQUENCE + self._pictures
        count = whole_order(first.order_lsb, self._previous_order, 1 << self._order_bits)
        if referenced:
            self._previous_order = count
        lowest = min(header.order_lsb + min(0, header.order_of_bottom) for header in headers)
        return self._sequence * SEQUENCE + count - first.order_lsb + lowest

    def _slice(self, kind: int, unit: memoryview) -> _Slice:
        """Clause 7.3.3, as far as it is needed."""
        bits = Bits(unescaped(bytes(unit[1:HEADER_BYTES])))
        bits.ue()  # first_mb_in_slice
        intra = bits.ue() % 5 == I_SLICE
        pps, sps = self._active(bits.ue())
        self._order_bits = sps.order_bits
        if sps.separate_colour_planes:
            bits.u(2)
        bits.u(sps.frame_num_bits)
        field = bottom = False
        if not sps.frames_only and (field := bits.flag()):
            bottom = bits.flag()
        if kind == IDR:
            bits.ue()  # idr_pic_id
        lsb, of_bottom = -1, 0
        if sps.order_type == 0:
            lsb = bits.u(sps.order_bits)
            if pps.order_per_field and not field:
                of_bottom = bits.se()
        if pps.redundant_slices and bits.ue():
            raise Unplannable("redundant slices")
        discards_prior = kind == IDR and intra and bits.flag()
        return _Slice(intra, field, bottom, lsb, of_bottom, discards_prior)

    def _active(self, number: int) -> tuple[Pps, Sps]:
        pps = self._pps.get(number)
        sps = self._sps.get(pps.sps) if pps else None
        if pps is None or sps is None:
            raise Unplannable("a picture without its parameter sets")
        return pps, sps

    def _header_units(self, header: bytes) -> Iterable[memoryview]:
        if header[:1] != b"\x01":
            return nal_units(memoryview(header), 0)
        if len(header) < 7:
            raise Unplannable("the header is cut off")
        self._length_bytes = (header[4] & 3) + 1
        return _avcc_units(memoryview(header))

    def _take_in_packet(self, kind: int, unit: memoryview) -> None:
        if self._sets.in_packet((kind, _number(kind, unit)), bytes(unit)):
            self._take_parameters(kind, unit)

    def _take_parameters(self, kind: int, unit: memoryview) -> tuple[int, int]:
        bits = Bits(unescaped(bytes(unit[1:])))
        if kind == SPS:
            number, sps = read_sps(bits)
            self._sps[number] = sps
            depth = self._reorder_depth
            self._reorder_depth = (
                None if depth is None or sps.reorder_depth is None else max(depth, sps.reorder_depth)
            )
        else:
            number, pps = read_pps(bits)
            self._pps[number] = pps
        return kind, number


def _is_intra(unit: memoryview) -> bool:
    bits = Bits(unescaped(bytes(unit[1:HEADER_BYTES])))
    bits.ue()  # first_mb_in_slice
    return bits.ue() % 5 == I_SLICE


def _number(kind: int, unit: memoryview) -> int:
    """The id of a parameter set."""
    bits = Bits(unescaped(bytes(unit[1:16])))
    if kind == SPS:
        bits.u(24)
    return bits.ue()


def _avcc_units(header: memoryview) -> Iterable[memoryview]:
    """The parameter sets of an AVCDecoderConfigurationRecord (ISO/IEC 14496-15, clause 5.3.3)."""
    at = 5
    for mask in (31, 255):
        count = header[at] & mask if at < len(header) else 0
        at += 1
        for _ in range(count):
            size = int.from_bytes(header[at : at + 2], "big")
            if not size or at + 2 + size > len(header):
                raise Unplannable("the header is cut off")
            yield header[at + 2 : at + 2 + size]
            at += 2 + size


def _is_exact_recovery_point(payload: bytes) -> bool:
    """Whether an SEI unit says that what is shown from this picture on decodes exactly (clause D.2.8)."""
    at = 0
    while at + 2 < len(payload):
        kind = size = 0
        while at < len(payload) and payload[at] == 255:
            kind, at = kind + 255, at + 1
        if at < len(payload):
            kind, at = kind + payload[at], at + 1
        while at < len(payload) and payload[at] == 255:
            size, at = size + 255, at + 1
        if at < len(payload):
            size, at = size + payload[at], at + 1
        if kind == RECOVERY_POINT:
            bits = Bits(unescaped(payload[at : at + size + 2]))
            return bits.ue() == 0 and bits.flag() and not bits.flag()
        at += size
    return False
