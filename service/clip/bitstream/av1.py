"""AV1 (the bitstream specification with errata 1): where decoding can begin.

Frames are given in the order of the packets, each of which is a temporal unit of exactly one shown frame.
"""

from __future__ import annotations

from collections.abc import Iterator

from service.clip.bitstream.bits import Bits
from service.clip.bitstream.coded import Coded, Entry, InOrderReader, Unplannable

# Clause 6.2.2: obu_type.
SEQUENCE_HEADER, FRAME_HEADER, FRAME = 1, 3, 6
KEY_FRAME = 0


class Av1Reader(InOrderReader):
    """See `Reader`."""

    def read(self, packet: memoryview) -> Coded:
        """See `Reader`."""
        place = self._next()
        with_header = False
        frames: list[tuple[bool, bool]] = []
        for kind, layer, content in _units(packet):
            if layer:
                raise Unplannable("spatial layers")
            if kind == SEQUENCE_HEADER:
                with_header = True
                if content[0] & 0x08:  # reduced_still_picture_header
                    raise Unplannable("a still picture")
            elif kind in {FRAME_HEADER, FRAME}:
                frames.append(_frame(content))
        if sum(shown for _, shown in frames) != 1:
            raise Unplannable("a temporal unit of another number of shown frames than one")
        begins = with_header and frames[0] == (True, True)
        return Coded(place, Entry.CLOSED if begins else Entry.NONE)


def _units(packet: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Type, spatial layer and content of each OBU (clause 5.3)."""
    at = 0
    while at < len(packet):
        head = packet[at]
        extended, sized = head & 4, head & 2
        layer = packet[at + 1] >> 3 & 3 if extended and at + 1 < len(packet) else 0
        at += 2 if extended else 1
        size, at = _leb128(packet, at) if sized else (len(packet) - at, at)
        if size < 0 or at + size > len(packet):
            raise Unplannable("an OBU is cut off")
        if size:
            yield head >> 3 & 15, layer, packet[at : at + size]
        at += size


def _leb128(packet: memoryview, at: int) -> tuple[int, int]:
    """The number at `at` (clause 4.10.5), and where it ends."""
    value = 0
    for index in range(8):
        if at >= len(packet):
            break
        byte = packet[at]
        at += 1
        value |= (byte & 0x7F) << 7 * index
        if not byte & 0x80:
            return value, at
    raise Unplannable("an OBU is cut off")


def _frame(content: memoryview) -> tuple[bool, bool]:
    """Whether it is a keyframe, and whether it is shown (uncompressed_header, clause 5.9.2)."""
    bits = Bits(bytes(content[:2]))
    if bits.flag():  # show_existing_frame
        return False, True
    return bits.u(2) == KEY_FRAME, bits.flag()
