"""The sound clips that fuzzing begins with: every unusual one of the hostile corpus that is right."""

from __future__ import annotations

from functools import cache
from itertools import chain

from tests.hostile.by_hand import by_hand
from tests.hostile.sound import valid
from tests.hostile.unusual import unusual

LARGEST = 100_000  # bytes; of a larger one, most mutations only meet pixels


@cache
def seeds() -> tuple[bytes, ...]:
    """Containers, codecs, layouts and timings, each in a file of its own."""
    return tuple(item.data for item in chain(valid(), unusual(), by_hand()) if len(item.data) <= LARGEST)
