"""Files with too many parts."""

from __future__ import annotations

import operator
import struct
from collections.abc import Iterator
from functools import partial

from tests.hostile.boxes import ebml, find, number, replaced
from tests.hostile.item import Item, base
from tests.hostile.matroska import mkv_of, spliced


def structure() -> Iterator[Item]:
    """Many tracks, attachments and programs."""
    data = base()
    trak = data[find(data, b"trak") :]
    trak = trak[: int.from_bytes(trak[:4])]
    for count in (63, 65, 900, 3000):
        many = replaced(data, b"trak", partial(operator.mul, count))
        yield Item("structure", f"tracks-{count}", many)
    track = ebml(
        "AE", ebml("D7", number(1)) + ebml("73C5", number(1)) + ebml("83", number(2)) + ebml("86", b"A_AAC")
    )
    for count in (60, 5000):
        yield Item("structure", f"mkv-tracks-{count}", mkv_of(ebml("1654AE6B", track * count)))
    attached = ebml(
        "61A7",
        ebml("466E", b"font.ttf")
        + ebml("4660", b"font/ttf")
        + ebml("465C", b"x" * 10)
        + ebml("46AE", number(7)),
    )
    yield Item("structure", "mkv-attachments-1000", spliced(ebml("1941A469", attached * 1000)))
    tags = ebml("1254C367", ebml("7373", ebml("67C8", ebml("45A3", b"K") + ebml("4487", b"V" * 50))) * 5000)
    yield Item("structure", "mkv-tags-5000", spliced(tags))
    chapter = ebml("B6", ebml("73C4", number(1)) + ebml("91", number(0)))
    yield Item("structure", "mkv-chapters-5000", spliced(ebml("1043A770", ebml("45B9", chapter * 5000))))
    pat = b"\x00\xb0\xfd\x00\x01\xc1\x00\x00" + b"".join(
        struct.pack(">HH", n, 0xE000 | (100 + n)) for n in range(1, 43)
    )
    packet = (b"\x47\x40\x00\x10\x00" + pat).ljust(188, b"\xff")
    yield Item("structure", "ts-programmes", (packet + base("ts")) * 4)
    pids = b"".join(
        (struct.pack(">BHB", 0x47, 0x4000 | pid, 0x10) + b"\x00\x00\x01\xe0").ljust(188, b"\0")
        for pid in range(32, 2500)
    )
    yield Item("structure", "ts-pids-2500", pids)
