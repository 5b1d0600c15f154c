"""The corpus: every file with its category, name and expected properties.

The files are generated deterministically. An address and a path are written
into files that try to make the service fetch or open something.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

from tests.hostile.bombs import bombs
from tests.hostile.by_hand import by_hand
from tests.hostile.clocks import clocks, restarted
from tests.hostile.damage import damaged_packets, flipped, truncated
from tests.hostile.fragments import fragments, rare_tables
from tests.hostile.isobmff import atoms, edit_lists, lies
from tests.hostile.item import Item, Lure
from tests.hostile.lures import fetching, names, referring
from tests.hostile.matroska import matroska
from tests.hostile.no_video import not_media, photographs, streams
from tests.hostile.plain import plain_bombs, plain_damaged, plain_lies
from tests.hostile.riff import riff_and_others
from tests.hostile.sound import valid
from tests.hostile.structure import structure
from tests.hostile.unusual import unusual


def corpus(lure: Lure) -> Iterator[Item]:
    """All files, the valid ones first."""
    makers: tuple[Callable[[], Iterator[Item]], ...] = (
        valid, unusual, by_hand, restarted, clocks, lies, atoms, edit_lists, fragments, rare_tables,
        structure, matroska, riff_and_others, bombs, streams, photographs, not_media, truncated, flipped,
        damaged_packets, plain_damaged, plain_lies, plain_bombs,
    )  # fmt: skip
    return chain(*(maker() for maker in makers), fetching(lure), referring(lure), names(lure))
