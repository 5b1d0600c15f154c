from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.clip.bitstream.nal import (
    ParameterSets,
    avcc_units,
    full_order_count,
    hvcc_units,
    nal_units,
)
from service.clip.bitstream.packet_info import Unplannable

UNITS = [b"\x67one", b"\x68", b"\x65" + b"\x55" * 300]


@pytest.mark.parametrize("length_bytes", [2, 4])
def test_units_with_lengths_are_split(length_bytes: int) -> None:
    packet = b"".join(len(unit).to_bytes(length_bytes) + unit for unit in UNITS)
    assert [bytes(unit) for unit in nal_units(memoryview(packet), length_bytes)] == UNITS


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"\0\x02a", "a NAL unit is truncated"),
        (b"\0\x01a\0", "a NAL unit is truncated"),
        (b"\0", "a NAL unit is truncated"),
        (b"\0\x01a\0\0", "a NAL unit is empty"),
        (b"\0\0\0\x01a", "a NAL unit is empty"),
    ],
)
def test_wrong_lengths_are_unplannable(packet: bytes, reason: str) -> None:
    with pytest.raises(Unplannable, match=reason):
        list(nal_units(memoryview(packet), 2))


@pytest.mark.parametrize(
    ("packet", "units"),
    [
        (b"", []),
        (b"no code", []),
        (b"\0\0\1", []),
        (b"\0\0\1a\0\0\1\0\0\1bc", [b"a", b"bc"]),
        (b"\0\0\0\1a\0\0\0\1b", [b"a\0", b"b"]),
        (b"before\0\0\1a", [b"a"]),
    ],
)
def test_units_between_start_codes_are_split(packet: bytes, units: list[bytes]) -> None:
    assert [bytes(unit) for unit in nal_units(memoryview(packet), 0)] == units


def with_length(unit: bytes) -> bytes:
    return len(unit).to_bytes(2) + unit


def avcc(spss: list[bytes], ppss: list[bytes], reserved: int = 0xE0) -> bytes:
    """An AVCDecoderConfigurationRecord: clause 5.3.3 of ISO/IEC 14496-15."""
    record = b"\x01\x64\x00\x28\xff" + bytes([reserved | len(spss)]) + b"".join(map(with_length, spss))
    return record + bytes([len(ppss)]) + b"".join(map(with_length, ppss))


@pytest.mark.parametrize("reserved", [0, 0xE0])
@pytest.mark.parametrize("ppss", [0, 1, 40])
def test_parameter_sets_of_an_h264_header_are_read(reserved: int, ppss: int) -> None:
    spss = [b"\x67a", b"\x67" + b"b" * 300]
    header = avcc(spss, [b"\x68"] * ppss, reserved) + b"\xfd\xf8\xf8\0"
    assert [bytes(unit) for unit in avcc_units(memoryview(header))] == spss + [b"\x68"] * ppss


def test_short_h264_header_has_no_parameter_sets() -> None:
    assert list(avcc_units(memoryview(b"\x01\x64\x00\x28\xff"))) == []
    assert list(avcc_units(memoryview(b"\x01\x64\x00\x28\xff\xe0"))) == []


@pytest.mark.parametrize(
    "header", [avcc([b""], []), avcc([b"\x67a"], [])[:8], avcc([b"\x67"], [b"\x68"])[:-1]]
)
def test_truncated_h264_header_is_unplannable(header: bytes) -> None:
    with pytest.raises(Unplannable, match="the stream header is truncated"):
        list(avcc_units(memoryview(header)))


def hvcc(*arrays: list[bytes]) -> bytes:
    """An HEVCDecoderConfigurationRecord: clause 8.3.3 of ISO/IEC 14496-15."""
    record = b"\x01".ljust(22, b"\xff") + bytes([len(arrays)])
    for kind, units in enumerate(arrays, start=32):
        record += bytes([0x80 | kind]) + len(units).to_bytes(2) + b"".join(map(with_length, units))
    return record


def test_parameter_sets_of_an_hevc_header_are_read() -> None:
    arrays = [[b"\x40\x01v"], [], [b"\x44\x01a", b"\x44\x01" + b"b" * 300]]
    read = [bytes(unit) for unit in hvcc_units(memoryview(hvcc(*arrays)))]
    assert read == [unit for units in arrays for unit in units]
    assert list(hvcc_units(memoryview(hvcc()))) == []


@pytest.mark.parametrize("header", [hvcc([b"\x40\x01"]), hvcc([b"\x40\x01v"])[:-1]])
def test_truncated_hevc_header_is_unplannable(header: bytes) -> None:
    with pytest.raises(Unplannable, match="the stream header is truncated"):
        list(hvcc_units(memoryview(header)))


@pytest.mark.parametrize(
    ("lsb", "previous", "count"),
    [
        (0, 0, 0),
        (7, 0, 7),
        (8, 0, 8),  # half of the span ahead
        (9, 0, -7),
        (0, 8, 16),  # half of the span behind
        (0, 7, 0),
        (1, 8, 1),
        (2, 15, 18),
        (15, 16, 15),
        (15, 32, 31),
        (3, -2, 3),
        (15, -16, -17),
    ],
)
def test_order_count_is_the_nearest_one_with_the_low_bits(lsb: int, previous: int, count: int) -> None:
    assert full_order_count(lsb, previous, 16) == count


@given(st.integers(-1000, 1000), st.integers(-7, 8), st.sampled_from([16, 32, 256]))
def test_order_count_is_recovered_from_its_low_bits(previous: int, step: int, span: int) -> None:
    count = previous + step
    assert full_order_count(count % span, previous, span) == count


A, B = (7, 0), (8, 0)


def test_sets_of_the_header_are_known_to_every_decoder() -> None:
    sets = ParameterSets()
    sets.add_from_header(A, memoryview(b"one\0\0"))
    sets.start_packet()
    assert not sets.add_from_packet(A, memoryview(b"one\0"))
    assert (sets.new, sets.changed, sets.complete()) == (False, False, True)
    sets.start_packet()
    assert sets.complete()


def test_set_of_a_packet_is_known_to_decoders_of_that_packet() -> None:
    sets = ParameterSets()
    sets.start_packet()
    assert sets.add_from_packet(A, memoryview(b"one"))
    assert (sets.new, sets.changed, sets.complete()) == (True, False, True)
    sets.start_packet()
    assert (sets.new, sets.complete()) == (False, False)
    assert not sets.add_from_packet(A, memoryview(b"one"))  # repeated
    assert (sets.new, sets.changed, sets.complete()) == (False, False, True)
    assert sets.add_from_packet(B, memoryview(b"two"))
    sets.start_packet()
    sets.add_from_packet(A, memoryview(b"one"))
    assert not sets.complete()


def test_replaced_set_is_a_change() -> None:
    sets = ParameterSets()
    sets.add_from_header(A, memoryview(b"one"))
    sets.start_packet()
    assert sets.add_from_packet(A, memoryview(b"other"))
    assert (sets.new, sets.changed, sets.complete()) == (True, True, True)
    sets.start_packet()
    assert (sets.new, sets.changed, sets.complete()) == (False, True, False)  # the header's is out of date
