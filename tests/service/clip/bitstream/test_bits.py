"""Bits of headers: fixed lengths, Exp-Golomb codes and emulation prevention (ITU-T H.264, 7.4.1 and 9.1)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.clip.bitstream.bits import BitReader, BitWriter, escape, unescape
from service.clip.bitstream.packet_info import Unplannable

# Tables 9-2 and 9-3 of the standard: the bits of a code, and its unsigned and signed values.
CODES = [
    ("1", 0, 0),
    ("010", 1, 1),
    ("011", 2, -1),
    ("00100", 3, 2),
    ("00101", 4, -2),
    ("00110", 5, 3),
    ("00111", 6, -3),
    ("0001000", 7, 4),
    ("0001001", 8, -4),
]


def reader(bits: str) -> BitReader:
    padded = bits.ljust(-(-len(bits) // 8) * 8, "0")
    return BitReader(int(padded, 2).to_bytes(len(padded) // 8, "big"))


@pytest.mark.parametrize(("bits", "unsigned", "signed"), CODES)
def test_codes_are_those_of_the_standard(bits: str, unsigned: int, signed: int) -> None:
    for read, value in ((BitReader.ue, unsigned), (BitReader.se, signed)):
        found = reader(bits + "1")
        assert read(found) == value
        assert (found.position, found.flag()) == (len(bits), True)


def test_fixed_lengths_are_read_in_order() -> None:
    found = reader("101" + "0" + "11110000" + "1001")
    assert (found.u(3), found.flag(), found.u(8), found.position) == (5, False, 0xF0, 12)
    assert found.between(4, 12) == (0xF0, 8)
    assert found.u(4) == 9
    with pytest.raises(Unplannable, match="truncated"):
        found.u(1)


@pytest.mark.parametrize("bits", ["00000000", "00000001", "00001000"])
def test_code_beyond_the_end_is_refused(bits: str) -> None:
    with pytest.raises(Unplannable, match="truncated"):
        reader(bits).ue()


@given(st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 9)), max_size=30))
def test_what_is_written_is_read(values: list[tuple[int, int]]) -> None:
    writer = BitWriter()
    for value, extra in values:
        writer.ue(value)
        writer.u(value, value.bit_length() + extra)
    padding = -writer.count % 8
    writer.u(0, padding)
    found = BitReader(writer.value.to_bytes(writer.count // 8, "big"))
    assert [(found.ue(), found.u(value.bit_length() + extra)) for value, extra in values] == [
        (value, value) for value, _ in values
    ]


@pytest.mark.parametrize("byte", [0, 1, 2, 3, 4])
def test_bytes_that_look_like_a_start_code_are_escaped(byte: int) -> None:
    payload = bytes([7, 0, 0, byte, 9])
    expected = bytes([7, 0, 0, 3, byte, 9]) if byte < 4 else payload
    assert escape(payload) == expected
    assert unescape(expected) == payload


@given(st.lists(st.sampled_from([0, 0, 0, 1, 2, 3, 4, 255]), max_size=40).map(bytes))
def test_escaped_bytes_have_no_start_code_and_are_restored(payload: bytes) -> None:
    payload += b"\x80"  # a payload ends in a stop bit
    escaped = escape(payload)
    assert not any(escaped[i : i + 2] == b"\0\0" and escaped[i + 2] < 3 for i in range(len(escaped) - 2))
    assert unescape(escaped) == payload
