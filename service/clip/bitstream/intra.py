"""Codecs whose every packet is a picture by itself: ProRes, FFV1 of keyframes only, Motion JPEG."""

from __future__ import annotations

from service.clip.bitstream.coded import Coded, Entry, InOrderReader, Unplannable

# ITU-T T.81, table B.1.
START_OF_IMAGE, START_OF_SCAN = b"\xff\xd8", 0xDA
QUANTISATION_TABLES, HUFFMAN_TABLES = 0xDB, 0xC4


class IntraReader(InOrderReader):
    """See `Reader`."""

    def read(self, packet: memoryview) -> Coded:
        """See `Reader`."""
        self.check(packet)
        place = self._next()
        return Coded(place, Entry.CLOSED, referenced=False)

    def check(self, packet: memoryview) -> None:
        """Raise `Unplannable` for a packet that needs others."""


class MotionJpegReader(IntraReader):
    """See `Reader`. Streams whose pictures share their tables are refused.

    AVI leaves out the Huffman tables as a rule and means the standard ones, which decoders begin with; but
    not a stream in which some pictures bring their own.
    """

    def __init__(self) -> None:
        super().__init__()
        self._brings_huffman: set[bool] = set()

    def check(self, packet: memoryview) -> None:
        """See `IntraReader`."""
        markers = _markers(packet)
        self._brings_huffman.add(HUFFMAN_TABLES in markers)
        if QUANTISATION_TABLES not in markers or len(self._brings_huffman) > 1:
            raise Unplannable("pictures that share their tables")


def _markers(packet: memoryview) -> set[int]:
    """The markers before the first scan (ITU-T T.81, annex B)."""
    found: set[int] = set()
    if packet[:2] != START_OF_IMAGE:
        raise Unplannable("a packet that is no picture")
    at = 2
    while at + 4 <= len(packet) and packet[at] == 0xFF:
        marker = packet[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == START_OF_SCAN:
            return found
        found.add(marker)
        at += 2 + int.from_bytes(packet[at + 2 : at + 4], "big")
    raise Unplannable("a picture is cut off")
