"""Read and write header bits: fixed lengths and Exp-Golomb codes (ITU-T H.264, clause 9.1)."""

from __future__ import annotations

import re

from service.clip.bitstream.packet_info import Unplannable

EMULATION_PREVENTION = b"\0\0\3"
NEEDS_ESCAPE = re.compile(rb"\0\0(?=[\0-\3])")


class BitReader:
    """Reads bits from the front of `data`."""

    __slots__ = ("_left", "_size", "_value")

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = self._size = 8 * len(data)

    @property
    def position(self) -> int:
        """Number of bits read so far."""
        return self._size - self._left

    def between(self, start: int, end: int) -> tuple[int, int]:
        """Return the bits between two positions as an unsigned number, and their count."""
        return self._value >> self._size - end & (1 << end - start) - 1, end - start

    def u(self, count: int) -> int:
        """Read `count` bits as an unsigned number.

        Raises:
            Unplannable: Fewer bits are left.
        """
        self._left -= count
        if self._left < 0:
            raise Unplannable("a header is truncated")
        return self._value >> self._left & (1 << count) - 1

    def flag(self) -> bool:
        """Read one bit."""
        return self.u(1) == 1

    def ue(self) -> int:
        """Read an unsigned Exp-Golomb code."""
        zeros = self._left - (self._value & (1 << self._left) - 1).bit_length()
        return self.u(2 * zeros + 1) - 1

    def se(self) -> int:
        """Read a signed Exp-Golomb code."""
        code = self.ue()
        return (code + 1) // 2 if code % 2 else -(code // 2)


class BitWriter:
    """Appends bits to the number `value` of `count` bits."""

    __slots__ = ("count", "value")

    def __init__(self) -> None:
        self.value = self.count = 0

    def u(self, value: int, count: int) -> None:
        """Append an unsigned number of `count` bits."""
        self.value = self.value << count | value
        self.count += count

    def ue(self, value: int) -> None:
        """Append an unsigned Exp-Golomb code."""
        self.u(value + 1, 2 * (value + 1).bit_length() - 1)


def escape(payload: bytes) -> bytes:
    """Add emulation prevention bytes to a NAL unit (clause 7.4.1); `payload` must not end in zeros."""
    return NEEDS_ESCAPE.sub(EMULATION_PREVENTION, payload)


def unescape(data: bytes) -> bytes:
    """Remove the emulation prevention bytes of a NAL unit."""
    return data.replace(EMULATION_PREVENTION, b"\0\0")
