"""NAL units of H.264 and HEVC: how they lie in a packet, and which parameter sets a decoder has seen."""

from __future__ import annotations

from collections.abc import Iterator

from service.clip.bitstream.coded import Unplannable

START_CODE = b"\0\0\1"


def nal_units(packet: memoryview, length_bytes: int) -> Iterator[memoryview]:
    """The NAL units of a packet, each behind its length, or, if `length_bytes` is 0, between start codes.

    Raises:
        Unplannable: the lengths lead beyond the packet.
    """
    return _length_prefixed(packet, length_bytes) if length_bytes else _between_start_codes(packet)


def _length_prefixed(packet: memoryview, length_bytes: int) -> Iterator[memoryview]:
    at, end = 0, len(packet)
    while at < end:
        start = at + length_bytes
        at = start + int.from_bytes(packet[at:start], "big")
        if at > end or start > end:
            raise Unplannable("a NAL unit is cut off")
        if at > start:
            yield packet[start:at]


def _between_start_codes(packet: memoryview) -> Iterator[memoryview]:
    data = bytes(packet)
    start = data.find(START_CODE)
    while start >= 0:
        end = data.find(START_CODE, start + 3)
        unit = packet[start + 3 : end if end >= 0 else len(packet)]
        if len(unit):
            yield unit
        start = end


def whole_order(lsb: int, previous: int, span: int) -> int:
    """A picture order count from its low bits and the last that counts (8.2.1.1 of H.264, 8.3.1 of HEVC)."""
    previous_lsb = previous % span
    msb = previous - previous_lsb
    if previous_lsb - lsb >= span // 2:
        msb += span
    elif lsb - previous_lsb > span // 2:
        msb -= span
    return msb + lsb


class ParameterSets:
    """Which parameter sets were seen, and whether a decoder that begins at a packet has all it needs.

    A set in the stream's header reaches every decoder; one in a packet only those that are fed it. `key`
    tells sets apart, by kind and number. `changed`: whether a set was ever replaced by another, so that a
    decoder which has seen later packets can no longer decode earlier ones.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], bytes] = {}
        self._from_header: set[tuple[int, int]] = set()
        self._packet: set[tuple[int, int]] = set()
        self.news = False
        self.changed = False

    def in_header(self, key: tuple[int, int], unit: bytes) -> None:
        """Take note of a set that comes with the stream's header."""
        self._known[key] = unit
        self._from_header.add(key)

    def begin_packet(self) -> None:
        """Take the sets seen from now on as one packet's."""
        self._packet.clear()
        self.news = False

    def in_packet(self, key: tuple[int, int], unit: bytes) -> bool:
        """Take note of a set in the current packet; whether it says anything new."""
        self._packet.add(key)
        unit = unit.rstrip(b"\0")  # between start codes zeros may follow a unit
        if self._known.get(key) == unit:
            return False
        self.changed = self.changed or key in self._known
        self._known[key] = unit
        self._from_header.discard(key)
        self.news = True
        return True

    def complete(self) -> bool:
        """Whether the header and the current packet together hold every set that was ever seen."""
        return self._known.keys() <= self._from_header | self._packet
