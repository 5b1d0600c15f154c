"""Wrong values in fragmented mp4 files and rare mp4 tables."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

from tests.hostile.boxes import box, find, patched, replaced
from tests.hostile.item import FRAMES, Item, base
from tests.support.clips import numbered_clip

VALUES = (0, 0x7FFFFFFF, 0xFFFFFFFF)
# Box -> offsets of its numbers: counts, sizes, offsets, times.
NUMBERS = {
    b"mfhd": (12,), b"tfhd": (8, 12, 16, 20, 24), b"tfdt": (12, 16), b"trun": (8, 12, 16, 20, 24),
    b"trex": (12, 16, 20, 24), b"mehd": (12,), b"sidx": (16, 20, 24, 28, 32, 36), b"mfra": (0,),
}  # fmt: skip


def fragments() -> Iterator[Item]:
    """Every number of a fragment in turn, then too many fragments."""
    flags = {"movflags": "frag_keyframe+empty_moov+default_base_moof+dash"}
    data = numbered_clip(frames=FRAMES, options={"g": "4"}, container_options=flags)
    for kind, places in NUMBERS.items():
        for place in places:
            for value in VALUES:
                with suppress(StopIteration):
                    at = find(data, kind) + place
                    name = f"{kind.decode()}-{place}-{value:x}"
                    yield Item("fragment", name, patched(data, at, struct.pack(">I", value)))
    moof = data[find(data, b"moof") :]
    moof = moof[: int.from_bytes(moof[:4])]
    yield Item("fragment", "moof-2000-times", data + moof * 2000)
    yield Item("fragment", "moof-of-no-track", data + box(b"moof", box(b"mfhd", bytes(8))) * 5000)
    runs = box(b"trun", struct.pack(">II", 0, 2**16)) * 2000
    yield Item("fragment", "runs-of-100-million", _with_runs(data, runs))
    # ISO/IEC 14496-12, 8.16.3: an index that references itself.
    itself = b"".join(struct.pack(">III", 0x80000000, 0, 0) for _ in range(1000))
    index = box(b"sidx", bytes(4), struct.pack(">IIIIHH", 1, 1, 0, 0, 0, 1000), itself)
    yield Item("fragment", "index-of-itself", index * 50 + data)
    table = box(b"tfra", bytes(4), struct.pack(">III", 1, 0, 2**32 - 1), bytes(5000))
    yield Item("fragment", "random-access-lies", data + box(b"mfra", table, box(b"mfro", bytes(8))))


def _with_runs(data: bytes, runs: bytes) -> bytes:
    return replaced(data, b"tfdt", lambda old: old + runs)


def rare_tables() -> Iterator[Item]:
    """Rare tables: sample groups, compact sizes, 64-bit offsets."""
    data = base()
    groups = {
        "sync": box(b"sgpd", b"\1\0\0\0", b"sync", struct.pack(">II", 1, 1), b"\x14"),
        "rap": box(b"sgpd", b"\1\0\0\0", b"rap ", struct.pack(">II", 1, 1), b"\x80"),
        "roll": box(b"sgpd", b"\1\0\0\0", b"roll", struct.pack(">II", 2, 1), b"\xff\xff"),
    }
    for name, described in groups.items():
        kind = name.encode().ljust(4)
        for count in (1, 2**20, 2**32 - 1):
            entry = struct.pack(">II", count, 1)
            group = box(b"sbgp", bytes(4), kind, struct.pack(">I", 1), entry)
            grouped = described + group
            yield Item("table", f"group-{name}-{count:x}", _beside(data, grouped))
        yield Item(
            "table",
            f"group-{name}-entries",
            _beside(data, described + box(b"sbgp", bytes(4), kind, b"\xff" * 4)),
        )
    for bits in (0, 4, 8, 16, 64):
        table = box(b"stz2", bytes(7), bytes([bits]), struct.pack(">I", FRAMES), b"\xff" * 2 * FRAMES)
        yield Item("table", f"sizes-of-{bits}-bits", replaced(data, b"stsz", partial(_instead, table)))
    for offset in (0, 2**32, 2**63, 2**64 - 1):
        table = box(b"co64", bytes(4), struct.pack(">IQ", 1, offset))
        yield Item("table", f"offset-{offset:x}", replaced(data, b"stco", partial(_instead, table)))
    for kind in (b"ctts", b"stps", b"sdtp", b"cslg", b"stsh", b"senc", b"saiz", b"saio", b"pssh", b"tenc"):
        for count in (2**16, 2**32 - 1):
            table = box(kind, bytes(4), struct.pack(">I", count), b"\x7f\xff\xff\xff" * 64)
            yield Item("table", f"{kind.decode()}-{count:x}", _beside(data, table))
    for kind in (b"pasp", b"clap", b"colr", b"mdcv", b"clli", b"st3d", b"sv3d", b"uuid", b"fiel", b"dvcC"):
        for fill in (b"\0", b"\xff"):
            extra = box(kind, fill * 40)
            name = f"beside-avcc-{kind.decode()}-{fill.hex()}"
            yield Item("table", name, _behind_config(data, extra))


def _instead(new: bytes, _old: bytes) -> bytes:
    return new


def _beside(data: bytes, more: bytes) -> bytes:
    return replaced(data, b"stsz", lambda old: old + more)


def _behind_config(data: bytes, extra: bytes) -> bytes:
    """Add a box to the sample entry and adjust the sample table."""

    def grow(table: bytes) -> bytes:
        entry = table[16:]
        entry = struct.pack(">I", len(entry) + len(extra)) + entry[4:] + extra
        return struct.pack(">I", 16 + len(entry)) + table[4:16] + entry

    return replaced(data, b"stsd", grow)
