"""Codecs whose every packet is an independent picture: ProRes, FFV1 with keyframes only, Motion JPEG."""

from __future__ import annotations

from service.clip.bitstream.packet_info import InOrderReader, PacketInfo, RandomAccess, Unplannable

# Markers, table B.1 of ITU-T T.81.
START_OF_IMAGE, START_OF_SCAN = b"\xff\xd8", 0xDA
QUANTISATION_TABLES, HUFFMAN_TABLES = 0xDB, 0xC4


class IntraReader(InOrderReader):
    """`PacketReader` for intra-only codecs."""

    def read(self, packet: memoryview) -> PacketInfo:  # noqa: ARG002 - required by the protocol
        """Describe the next packet."""
        return PacketInfo(self._next_order(), RandomAccess.CLOSED, is_reference=False)


class MotionJpegReader(IntraReader):
    """`PacketReader` for Motion JPEG; rejects streams whose pictures share tables.

    Pictures in AVI usually omit the Huffman tables and use the standard ones, with which every decoder
    starts. This fails in a stream in which other pictures have their own tables.
    """

    def __init__(self) -> None:
        super().__init__()
        self._has_huffman: bool | None = None

    def read(self, packet: memoryview) -> PacketInfo:
        """Describe the next packet."""
        markers = read_markers(packet)
        has_huffman = HUFFMAN_TABLES in markers
        if QUANTISATION_TABLES not in markers or self._has_huffman not in {None, has_huffman}:
            raise Unplannable("pictures share their tables")
        self._has_huffman = has_huffman
        return super().read(packet)


def read_markers(packet: memoryview) -> set[int]:
    """Return the markers before the first scan (ITU-T T.81, annex B)."""
    markers: set[int] = set()
    if packet[:2] != START_OF_IMAGE:
        raise Unplannable("a packet has no picture")
    position = 2
    while position + 4 <= len(packet) and packet[position] == 0xFF:
        marker = packet[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker == START_OF_SCAN:
            return markers
        markers.add(marker)
        position += 2 + int.from_bytes(packet[position + 2 : position + 4], "big")
    raise Unplannable("a picture is truncated")
