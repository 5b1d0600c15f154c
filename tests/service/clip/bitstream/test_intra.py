from __future__ import annotations

import pytest

from service.clip.bitstream.intra import (
    HUFFMAN_TABLES,
    QUANTISATION_TABLES,
    IntraReader,
    MotionJpegReader,
    read_markers,
)
from service.clip.bitstream.packet_info import PacketInfo, RandomAccess, Unplannable

START = b"\xff\xd8"
SCAN = b"\xff\xda\x00\x02"


def segment(marker: int, content: bytes = b"\xda" * 3) -> bytes:
    return bytes([0xFF, marker]) + (2 + len(content)).to_bytes(2) + content


TABLES = segment(QUANTISATION_TABLES)
HUFFMAN = segment(HUFFMAN_TABLES)


def test_every_packet_can_be_decoded_alone() -> None:
    reader = IntraReader()
    assert [reader.read(memoryview(b"picture")) for _ in range(2)] == [
        PacketInfo(number, RandomAccess.CLOSED, is_reference=False) for number in (1, 2)
    ]


@pytest.mark.parametrize(
    ("packet", "markers"),
    [
        (START + SCAN, set()),
        (START + TABLES + segment(0xE0, b"") + SCAN, {QUANTISATION_TABLES, 0xE0}),
        (START + b"\xff\xff" + TABLES + b"\xff" + SCAN, {QUANTISATION_TABLES}),
        (START + segment(0xE1, b"\xff\xda" * 400) + HUFFMAN + SCAN, {0xE1, HUFFMAN_TABLES}),
    ],
)
def test_markers_before_the_scan_are_read(packet: bytes, markers: set[int]) -> None:
    assert read_markers(memoryview(packet)) == markers


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"", "a packet has no picture"),
        (b"\xff\xd9" + SCAN, "a packet has no picture"),
        (START, "a picture is truncated"),
        (START + SCAN[:-1], "a picture is truncated"),
        (START + TABLES, "a picture is truncated"),
        (START + TABLES + b"\x00" + SCAN, "a picture is truncated"),
    ],
)
def test_packets_without_a_scan_are_unplannable(packet: bytes, reason: str) -> None:
    with pytest.raises(Unplannable, match=f"^{reason}$"):
        read_markers(memoryview(packet))


@pytest.mark.parametrize("tables", [TABLES, TABLES + HUFFMAN])
def test_pictures_with_their_own_tables_are_independent(tables: bytes) -> None:
    reader = MotionJpegReader()
    packet = memoryview(START + tables + SCAN)
    assert [reader.read(packet).display_order for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize(
    "packets",
    [
        [START + SCAN],
        [START + HUFFMAN + SCAN],
        [START + TABLES + SCAN, START + TABLES + HUFFMAN + SCAN],
        [START + TABLES + HUFFMAN + SCAN, START + TABLES + SCAN],
    ],
)
def test_pictures_that_share_tables_are_unplannable(packets: list[bytes]) -> None:
    reader = MotionJpegReader()
    for packet in packets[:-1]:
        reader.read(memoryview(packet))
    with pytest.raises(Unplannable, match=r"^pictures share their tables$"):
        reader.read(memoryview(packets[-1]))
