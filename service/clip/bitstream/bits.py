"""Bits of a header: fixed lengths and Exp-Golomb codes (ITU-T H.264, clause 9.1)."""

from __future__ import annotations

import re

from service.clip.bitstream.coded import Unplannable

EMULATION_PREVENTION = b"\0\0\3"
TO_ESCAPE = re.compile(rb"\0\0(?=[\0-\3])")


class Bits:
    """Reads bits from the front of some bytes."""

    __slots__ = ("_left", "_size", "_value")

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = self._size = 8 * len(data)

    @property
    def position(self) -> int:
        """How many were read."""
        return self._size - self._left

    def between(self, start: int, end: int) -> tuple[int, int]:
        """The number that the bits from one position up to another make, and how many they are."""
        return self._value >> self._size - end & (1 << end - start) - 1, end - start

    def u(self, count: int) -> int:
        """The next `count` bits as an unsigned number.

        Raises:
            Unplannable: there are not so many left.
        """
        self._left -= count
        if self._left < 0:
            raise Unplannable("a header is cut off")
        return self._value >> self._left & (1 << count) - 1

    def flag(self) -> bool:
        """The next bit."""
        return self.u(1) == 1

    def ue(self) -> int:
        """The next unsigned Exp-Golomb code."""
        zeros = self._left - (self._value & (1 << self._left) - 1).bit_length()
        return self.u(2 * zeros + 1) - 1

    def se(self) -> int:
        """The next signed Exp-Golomb code."""
        code = self.ue()
        return (code + 1) // 2 if code % 2 else -(code // 2)


class BitsWritten:
    """Bits put one behind the other."""

    __slots__ = ("count", "value")

    def __init__(self) -> None:
        self.value = self.count = 0

    def u(self, value: int, count: int) -> None:
        """Add an unsigned number of `count` bits."""
        self.value = self.value << count | value
        self.count += count

    def ue(self, value: int) -> None:
        """Add an unsigned Exp-Golomb code."""
        self.u(value + 1, 2 * (value + 1).bit_length() - 1)


def escaped(payload: bytes) -> bytes:
    """The payload of a NAL unit with its emulation prevention (clause 7.4.1); it must not end in zeros."""
    return TO_ESCAPE.sub(EMULATION_PREVENTION, payload)


def unescaped(data: bytes) -> bytes:
    """The payload of a NAL unit without its emulation prevention."""
    return data.replace(EMULATION_PREVENTION, b"\0\0")
