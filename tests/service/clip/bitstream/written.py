"""Writes headers bit by bit."""

from __future__ import annotations

from service.clip.bitstream.bits import BitWriter

Field = int | tuple[int, int]
"""A number to write as an unsigned Exp-Golomb code, or a number and its length in bits."""


def written(*fields: Field) -> BitWriter:
    """A writer that has the fields, one after the other."""
    writer = BitWriter()
    for each in fields:
        if isinstance(each, tuple):
            writer.u(*each)
        else:
            writer.ue(each)
    return writer


def bits(*fields: Field) -> bytes:
    """The fields one after the other, filled up with ones to whole bytes."""
    writer = written(*fields)
    rest = -writer.count % 8
    writer.u((1 << rest) - 1, rest)
    return writer.value.to_bytes(writer.count // 8)
