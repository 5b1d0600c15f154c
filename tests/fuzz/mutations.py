"""Structure-aware mutations of videos: boxes, EBML elements, NAL units, and plain bytes."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable

from tests.hostile.boxes import boxes, find, patched

Mutation = Callable[[random.Random, bytes], bytes]

TELLING = (0, 1, 2, 7, 8, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
EBML_IDS = re.compile(
    rb"\x1aE\xdf\xa3|\x18S\x80g|\x16T\xaek|\xae|\xe0|\x1fC\xb6u|\xa3|\x15I\xa9f|\x2a\xd7\xb1|D\x89"
)
START_CODES = re.compile(rb"\x00\x00\x01")


def mutated(generator: random.Random, data: bytes, other: bytes) -> bytes:
    """Apply one to six mutations to a video; `other` provides bytes to insert."""
    for _ in range(generator.randint(1, 6)):
        change = generator.choice(MUTATIONS)
        data = change(generator, data) if data else other
    if generator.random() < 0.05:
        data = data[: generator.randrange(len(data) + 1)] + other[generator.randrange(len(other)) :]
    return data


def flip_bits(generator: random.Random, data: bytes) -> bytes:
    """Flip random bits."""
    spoilt = bytearray(data)
    for _ in range(generator.choice((1, 2, 8, 64))):
        spoilt[generator.randrange(len(spoilt))] ^= 1 << generator.randrange(8)
    return bytes(spoilt)


def write_number(generator: random.Random, data: bytes) -> bytes:
    """Overwrite four bytes with a boundary value in either byte order."""
    order = generator.choice((">I", "<I"))
    return patched(data, generator.randrange(len(data)), struct.pack(order, generator.choice(TELLING)))[
        : len(data)
    ]


def cut(generator: random.Random, data: bytes) -> bytes:
    """Remove a range."""
    start = generator.randrange(len(data))
    return data[:start] + data[start + generator.choice((1, 4, 100, 5000)) :]


def repeat(generator: random.Random, data: bytes) -> bytes:
    """Repeat a range."""
    start = generator.randrange(len(data))
    piece = data[start : start + generator.choice((4, 64, 2000))]
    return data[:start] + piece * generator.choice((2, 3, 50)) + data[start:]


def spoil_box(generator: random.Random, data: bytes) -> bytes:
    """Change an mp4 box: its size, kind or a number in it."""
    found = list(boxes(data))
    if not found:
        return flip_bits(generator, data)
    start, end, _ = generator.choice(found)
    match generator.randrange(4):
        case 0:
            return patched(data, start, struct.pack(">I", generator.choice(TELLING)))
        case 1:
            return patched(data, start + 4, generator.choice(found)[2])
        case 2:
            return patched(
                data,
                generator.randrange(start, max(start + 1, end - 4)),
                struct.pack(">I", generator.choice(TELLING)),
            )
        case _:
            return data[:end] + data[start:end] * generator.choice((1, 2, 40)) + data[end:]


def spoil_table(generator: random.Random, data: bytes) -> bytes:
    """Change entries of a sample table without changing the count."""
    kind = generator.choice((b"stts", b"stsc", b"stsz", b"stco", b"stss", b"ctts", b"elst", b"trun", b"tfhd"))
    try:
        start = find(data, kind)
    except StopIteration:
        return write_number(generator, data)
    size = int.from_bytes(data[start : start + 4])
    return patched(
        data, start + 8 + generator.randrange(max(1, size - 8)), struct.pack(">I", generator.choice(TELLING))
    )


def spoil_element(generator: random.Random, data: bytes) -> bytes:
    """Change the size of a Matroska element."""
    return _behind(
        generator,
        data,
        EBML_IDS,
        bytes([generator.choice((0x80, 0xFF, 0x01, 0x40, 0x08))]) + generator.randbytes(2),
    )


def spoil_unit(generator: random.Random, data: bytes) -> bytes:
    """Change the bytes after a start code: the NAL unit type or a header."""
    return _behind(generator, data, START_CODES, generator.randbytes(generator.choice((1, 2, 6))))


def _behind(generator: random.Random, data: bytes, pattern: re.Pattern[bytes], new: bytes) -> bytes:
    ends = [match.end() for match in pattern.finditer(data)]
    return patched(data, generator.choice(ends), new) if ends else flip_bits(generator, data)


MUTATIONS: tuple[Mutation, ...] = (
    flip_bits, flip_bits, write_number, cut, repeat, spoil_box, spoil_box, spoil_table, spoil_element,
    spoil_unit,
)  # fmt: skip
