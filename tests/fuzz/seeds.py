"""The seeds of the fuzzer: all valid files of the hostile corpus."""

from __future__ import annotations

from functools import cache
from itertools import chain

from tests.hostile.by_hand import by_hand
from tests.hostile.sound import valid
from tests.hostile.unusual import unusual

LARGEST = 100_000  # bytes; in larger files most mutations only affect pixels


@cache
def seeds() -> tuple[bytes, ...]:
    """Files with different containers, codecs, layouts and timings."""
    return tuple(item.data for item in chain(valid(), unusual(), by_hand()) if len(item.data) <= LARGEST)
