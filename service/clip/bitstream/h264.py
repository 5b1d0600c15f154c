"""H.264 (ITU-T H.264): which pictures are referred to, and in which order they are shown.

Only the parameter sets and the first bytes of slices are read. What real clips hardly ever use is not
followed but refused: flexible macroblock ordering, picture order counts of type 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from service.clip.bitstream.bits import Bits, unescaped
from service.clip.bitstream.coded import Coded, Entry, Unplannable
from service.clip.bitstream.nal import ParameterSets, nal_units, whole_order

# Table 7-1: nal_unit_type.
SLICE, PARTITION_A, IDR, SEI, SPS, PPS, SPS_EXTENSION = 1, 2, 5, 6, 7, 8, 13
SLICES = {SLICE, PARTITION_A, IDR}
# Clause 7.3.2.1.1: profiles whose parameter sets tell the chroma format.
PROFILES_WITH_CHROMA = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}
I_SLICE = 2  # slice_type modulo 5
RECOVERY_POINT = 6  # SEI payload type
HEADER_BYTES = 40  # more than the part of a slice header that is read
EXTENDED_SAR = 255

# Orders are (coded video sequence, picture order count) in one number; counts are below 2^32 either way.
SEQUENCE = 1 << 40


@dataclass(frozen=True, slots=True)
class _Sps:
    separate_colour_planes: bool
    frame_num_bits: int
    order_type: int
    order_bits: int
    frames_only: bool
    reorder_depth: int | None


@dataclass(frozen=True, slots=True)
class _Pps:
    sps: int
    order_per_field: bool
    redundant_slices: bool


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
        self._sps: dict[int, _Sps] = {}
        self._pps: dict[int, _Pps] = {}
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

    def _active(self, number: int) -> tuple[_Pps, _Sps]:
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
            number, sps = _read_sps(bits)
            self._sps[number] = sps
            depth = self._reorder_depth
            self._reorder_depth = (
                None if depth is None or sps.reorder_depth is None else max(depth, sps.reorder_depth)
            )
        else:
            number, pps = _read_pps(bits)
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


def _read_sps(bits: Bits) -> tuple[int, _Sps]:
    """Clause 7.3.2.1.1."""
    profile = bits.u(8)
    bits.u(16)
    number = bits.ue()
    separate = _skip_chroma(bits) if profile in PROFILES_WITH_CHROMA else False
    frame_num_bits = bits.ue() + 4
    order_type = bits.ue()
    if order_type not in {0, 2}:
        raise Unplannable("picture order counts of type 1")
    order_bits = bits.ue() + 4 if order_type == 0 else 0
    bits.ue()  # max_num_ref_frames
    bits.u(1)  # gaps_in_frame_num_value_allowed_flag
    bits.ue(), bits.ue()  # size
    frames_only = bits.flag()
    if not frames_only:
        bits.u(1)
    bits.u(1)  # direct_8x8_inference_flag
    if bits.flag():  # cropping
        for _ in range(4):
            bits.ue()
    depth = _declared_depth(bits) if bits.flag() else None
    if order_type == 2:
        depth = 0
    return number, _Sps(separate, frame_num_bits, order_type, order_bits, frames_only, depth)


def _skip_chroma(bits: Bits) -> bool:
    """Read over chroma format, depth and scaling lists; whether the colour planes are coded apart."""
    chroma = bits.ue()
    separate = chroma == 3 and bits.flag()
    bits.ue(), bits.ue()
    bits.u(1)
    if bits.flag():
        for index in range(12 if chroma == 3 else 8):
            if bits.flag():
                _skip_scaling_list(bits, 16 if index < 6 else 64)
    return separate


def _skip_scaling_list(bits: Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.se()) % 256
        last = following or last


def _declared_depth(bits: Bits) -> int | None:
    """`max_num_reorder_frames` of the VUI parameters (clause E.1.1), if there."""
    if bits.flag() and bits.u(8) == EXTENDED_SAR:
        bits.u(32)
    if bits.flag():  # overscan
        bits.u(1)
    if bits.flag():  # video signal
        bits.u(4)
        if bits.flag():
            bits.u(24)
    if bits.flag():  # chroma location
        bits.ue(), bits.ue()
    if bits.flag():  # timing
        bits.u(65)
    if sum([_skip_hrd(bits), _skip_hrd(bits)]):  # of NAL units, of the coded video alone
        bits.u(1)
    bits.u(1)  # pic_struct_present_flag
    if not bits.flag():
        return None
    bits.u(1)
    for _ in range(4):
        bits.ue()
    return bits.ue()


def _skip_hrd(bits: Bits) -> bool:
    """Read over the parameters of a hypothetical decoder (clause E.1.2); whether they were there."""
    if not bits.flag():
        return False
    count = bits.ue() + 1
    bits.u(8)
    for _ in range(count):
        bits.ue(), bits.ue()
        bits.u(1)
    bits.u(20)
    return True


def _read_pps(bits: Bits) -> tuple[int, _Pps]:
    """Clause 7.3.2.2."""
    number, sps = bits.ue(), bits.ue()
    bits.u(1)
    order_per_field = bits.flag()
    if bits.ue():
        raise Unplannable("flexible macroblock ordering")
    bits.ue(), bits.ue()
    bits.u(3)
    bits.se(), bits.se(), bits.se()
    bits.u(2)
    return number, _Pps(sps, order_per_field, redundant_slices=bits.flag())


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
