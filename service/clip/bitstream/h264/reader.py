"""Read H.264 packets: which pictures may be references, and the order in which pictures are shown.

Only parameter sets and the first bytes of slices are read. Rare features are rejected.
"""

from __future__ import annotations

from collections.abc import Iterable

from service.clip.bitstream.bits import BitReader, unescape
from service.clip.bitstream.h264.parameters import H264Pps, H264Sps, read_pps, read_sps
from service.clip.bitstream.h264.pruner import H264Pruner
from service.clip.bitstream.h264.slice_header import (
    I_SLICE,
    IDR,
    SliceStart,
    read_slice_start,
    read_slice_type,
    slice_bits,
)
from service.clip.bitstream.nal import ParameterSets, avcc_units, full_order_count, nal_units
from service.clip.bitstream.packet_info import PacketInfo, RandomAccess, Unplannable

# nal_unit_type, table 7-1.
SLICE, PARTITION_A, SEI, SPS, PPS, SPS_EXTENSION = 1, 2, 6, 7, 8, 13
SLICES = {SLICE, PARTITION_A, IDR}
RECOVERY_POINT = 6  # SEI payload type

# Display orders combine the number of the coded video sequence with the picture order count, which is below
# 2^32 in either direction.
SEQUENCE_STEP = 1 << 40


class H264Reader:
    """`PacketReader` for H.264.

    Args:
        header: The avcC record of the stream, or its parameter sets between start codes.
    """

    def __init__(self, header: bytes) -> None:
        self._length_bytes = 0
        self._spss: dict[int, H264Sps] = {}
        self._ppss: dict[int, H264Pps] = {}
        self._sets = ParameterSets()
        self._sequence = 0
        self._pictures = 0
        self._previous_poc = 0  # of the last reference picture
        self._reorder_depth: int | None = 0
        units: Iterable[memoryview]
        if header[:1] == b"\x01":
            if len(header) < 7:
                raise Unplannable("the stream header is truncated")
            self._length_bytes = (header[4] & 3) + 1
            units = avcc_units(memoryview(header))
        else:
            units = nal_units(memoryview(header), 0)
        for unit in units:
            kind = unit[0] & 31
            if kind in {SPS, PPS}:
                self._sets.add_from_header(self._read_parameters(kind, unit), unit)

    @property
    def independent(self) -> bool:
        """Whether the parameter sets never change."""
        return not self._sets.changed

    def reorder_depth(self) -> int | None:
        """The largest depth that any parameter set declares; None if a set does not declare one."""
        return self._reorder_depth

    def pruner(self) -> H264Pruner | None:
        """Return the pruner, or None if parameter sets change."""
        return None if self._sets.changed else H264Pruner(self._spss, self._ppss, self._length_bytes)

    def read(self, packet: memoryview) -> PacketInfo:
        """Describe the next packet."""
        self._sets.start_packet()
        slices: list[tuple[int, memoryview]] = []
        is_recovery_point = False
        for unit in nal_units(packet, self._length_bytes):
            kind = unit[0] & 31
            if kind in SLICES:
                slices.append((kind, unit))
            elif kind in {SPS, PPS}:
                if self._sets.add_from_packet((kind, _set_number(kind, unit)), unit):
                    self._read_parameters(kind, unit)
            elif kind == SEI:
                is_recovery_point = is_recovery_point or _is_exact_recovery_point(unescape(bytes(unit[1:])))
            elif kind == SPS_EXTENSION:
                raise Unplannable("the stream has auxiliary pictures")
        if not slices:
            raise Unplannable("a packet has no picture")
        is_idr = slices[0][0] == IDR
        is_reference = any(unit[0] & 0x60 for _, unit in slices)
        starts = [
            self._read_start(kind, unit)
            for kind, unit in slices
            if len(unit) > 1 and unit[1] & 0x80  # first_mb_in_slice is 0
        ]
        if not starts:
            raise Unplannable("a picture lacks its first slice")
        bottoms = [start.is_bottom for start in starts if start.is_field]
        if len(starts) == 1 and bottoms:
            raise Unplannable("fields are in separate packets")
        if len(starts) > 1 and sorted(bottoms) != [False, True]:
            raise Unplannable("a packet has several pictures")
        display_order = self._display_order(starts, is_idr=is_idr, is_reference=is_reference)
        random_access = RandomAccess.NONE
        if self._sets.complete():
            if is_idr:
                random_access = RandomAccess.CLOSED
            elif is_recovery_point and all(
                read_slice_type(slice_bits(unit)) == I_SLICE for _, unit in slices
            ):
                random_access = RandomAccess.OPEN
        return PacketInfo(display_order, random_access, is_reference=is_reference or self._sets.new)

    def _read_start(self, kind: int, unit: memoryview) -> SliceStart:
        bits = slice_bits(unit)
        start = read_slice_start(bits, self._spss, self._ppss, is_idr=kind == IDR)
        # The reference lists are empty here, so no_output_of_prior_pics_flag follows.
        if kind == IDR and start.kind == I_SLICE and bits.flag():
            raise Unplannable("pictures are discarded before display")
        return start

    def _display_order(self, starts: list[SliceStart], *, is_idr: bool, is_reference: bool) -> int:
        """Derive the order from picture order counts (clause 8.2.1)."""
        if is_idr:
            self._sequence += 1
            self._previous_poc = 0
        self._pictures += 1
        first = starts[0]
        if first.poc_lsb is None:
            return self._sequence * SEQUENCE_STEP + self._pictures
        poc = full_order_count(first.poc_lsb, self._previous_poc, 1 << first.sps.poc_bits)
        if is_reference:
            self._previous_poc = poc
        lowest = min((start.poc_lsb or 0) + min(0, start.poc_bottom) for start in starts)
        return self._sequence * SEQUENCE_STEP + poc - first.poc_lsb + lowest

    def _read_parameters(self, kind: int, unit: memoryview) -> tuple[int, int]:
        """Read a parameter set and return its key."""
        bits = BitReader(unescape(bytes(unit[1:])))
        if kind == SPS:
            number, sps = read_sps(bits)
            self._spss[number] = sps
            if self._reorder_depth is None or sps.reorder_depth is None:
                self._reorder_depth = None
            else:
                self._reorder_depth = max(self._reorder_depth, sps.reorder_depth)
        else:
            number, pps = read_pps(bits)
            self._ppss[number] = pps
        return kind, number


def _set_number(kind: int, unit: memoryview) -> int:
    """Read the number of a parameter set."""
    bits = BitReader(unescape(bytes(unit[1:16])))
    if kind == SPS:
        bits.u(24)
    return bits.ue()


def _is_exact_recovery_point(payload: bytes) -> bool:
    """Whether an SEI unit states that all pictures shown from this one on decode exactly (clause D.2.8)."""

    def read_number(position: int) -> tuple[int, int]:
        """Read a number of any size. Return the number and the position after it."""
        value = 0
        while position < len(payload):
            value, position = value + payload[position], position + 1
            if payload[position - 1] != 255:
                break
        return value, position

    position = 0
    while position + 2 < len(payload):
        kind, position = read_number(position)
        size, position = read_number(position)
        if kind == RECOVERY_POINT:
            bits = BitReader(payload[position : position + size])
            return bits.ue() == 0 and bits.flag() and not bits.flag()
        position += size
    return False
