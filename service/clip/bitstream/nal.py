"""NAL units of H.264 and HEVC: splitting packets, picture order counts, and known parameter sets."""

from __future__ import annotations

from collections.abc import Iterator

from service.clip.bitstream.packet_info import Unplannable

START_CODE = b"\0\0\1"


def nal_units(packet: memoryview, length_bytes: int) -> Iterator[memoryview]:
    """Yield the NAL units of a packet.

    Args:
        packet: The packet.
        length_bytes: Size of the length before each unit; 0 if start codes separate the units.

    Raises:
        Unplannable: A length is 0 or exceeds the packet. FFmpeg drops such a packet as a whole.
    """
    if length_bytes:
        position, end = 0, len(packet)
        while position < end:
            start = position + length_bytes
            position = start + int.from_bytes(packet[position:start], "big")
            if position > end or start > end:
                raise Unplannable("a NAL unit is truncated")
            if position == start:
                raise Unplannable("a NAL unit is empty")
            yield packet[start:position]
        return
    data = bytes(packet)
    code = data.find(START_CODE)
    while code >= 0:
        following = data.find(START_CODE, code + 3)
        unit = packet[code + 3 : following if following >= 0 else len(packet)]
        if len(unit):
            yield unit
        code = following


def avcc_units(header: memoryview) -> Iterator[memoryview]:
    """Yield the parameter sets of an AVCDecoderConfigurationRecord (ISO/IEC 14496-15, clause 5.3.3)."""
    position = 5
    for mask in (31, 255):
        count = header[position] & mask if position < len(header) else 0
        position += 1
        for _ in range(count):
            start = position + 2
            size = int.from_bytes(header[position:start], "big")
            if not size or start + size > len(header):
                raise Unplannable("the stream header is truncated")
            yield header[start : start + size]
            position = start + size


def hvcc_units(header: memoryview) -> Iterator[memoryview]:
    """Yield the NAL units of an HEVCDecoderConfigurationRecord (ISO/IEC 14496-15, clause 8.3.3)."""
    position = 23
    for _ in range(header[22]):
        count = int.from_bytes(header[position + 1 : position + 3], "big")
        position += 3
        for _ in range(count):
            start = position + 2
            size = int.from_bytes(header[position:start], "big")
            if size < 3 or start + size > len(header):
                raise Unplannable("the stream header is truncated")
            yield header[start : start + size]
            position = start + size


def full_order_count(lsb: int, previous: int, span: int) -> int:
    """Derive a picture order count from its low bits (clause 8.2.1.1 of H.264, 8.3.1 of HEVC).

    Args:
        lsb: The low bits.
        previous: The full count of the previous reference picture.
        span: Number of values that the low bits can have.
    """
    previous_lsb = previous % span
    msb = previous - previous_lsb
    if previous_lsb - lsb >= span // 2:
        msb += span
    elif lsb - previous_lsb > span // 2:
        msb -= span
    return msb + lsb


class ParameterSets:
    """Tracks whether a decoder that starts at a packet has every parameter set it needs.

    Every decoder gets the sets of the stream header; the sets in a packet only reach decoders that
    decode that packet. A key of kind and number identifies a set.

    Attributes:
        new: Whether the current packet holds a previously unknown set.
        changed: Whether a set was ever replaced, so that a decoder that has seen later packets can no longer
            decode earlier ones.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], bytes] = {}
        self._from_header: set[tuple[int, int]] = set()
        self._from_packet: set[tuple[int, int]] = set()
        self.new = False
        self.changed = False

    def add_from_header(self, key: tuple[int, int], unit: memoryview) -> None:
        """Add a set of the stream header."""
        self._known[key] = bytes(unit).rstrip(b"\0")
        self._from_header.add(key)

    def start_packet(self) -> None:
        """Attribute the sets added from now on to a new packet."""
        self._from_packet.clear()
        self.new = False

    def add_from_packet(self, key: tuple[int, int], unit: memoryview) -> bool:
        """Add a set of the current packet. Return whether it is new."""
        self._from_packet.add(key)
        data = bytes(unit).rstrip(b"\0")  # zeros may follow a unit between start codes
        if self._known.get(key) == data:
            return False
        self.changed = self.changed or key in self._known
        self._known[key] = data
        self._from_header.discard(key)
        self.new = True
        return True

    def complete(self) -> bool:
        """Whether the header and the current packet together hold every set seen so far."""
        return self._known.keys() <= self._from_header | self._from_packet
