"""Read the boxes of an mp4 or mov file that decide whether FFmpeg may open it (ISO/IEC 14496-12).

Media data (`mdat`) is skipped, so that a file of gigabytes costs no more than its index.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import BinaryIO

# Types of the first box by which FFmpeg recognizes the format.
FIRST_BOXES = frozenset(
    {
        b"ftyp",
        b"styp",
        b"moov",
        b"moof",
        b"mdat",
        b"sidx",
        b"wide",
        b"free",
        b"skip",
        b"pnot",
        b"udta",
        b"uuid",
    }
)

# An edit list: `elst`, version (0 or 1), flags, number of entries; section 8.6.6. The pattern starts with a
# constant, which `re` finds at memory speed.
EDIT_LIST = re.compile(rb"elst([\x00\x01]).{3}(.{4})", re.DOTALL)
BOX_SIZE_BYTES = 4
EDIT_LIST_BYTES = 16  # up to the first entry
EDIT_BYTES = {0: 12, 1: 20}
# An encrypted video sample entry: its type and six reserved bytes; section 8.12.
ENCRYPTED_ENTRY = b"encv" + bytes(6)

CHUNK_BYTES = 2**20
# After this many boxes the rest of the file is searched as a whole, including media data.
MAX_BOXES = 100_000


@dataclass
class Boxes:
    """The findings outside the media data.

    Attributes:
        edits: Entries of the longest edit list.
        tracks: Number of tracks.
        has_header: There is a movie header.
        has_fragments: There are movie fragments.
        is_encrypted: A video track is encrypted.
    """

    edits: int = 0
    tracks: int = 0
    has_header: bool = False
    has_fragments: bool = False
    is_encrypted: bool = False


def read_boxes(file: BinaryIO) -> Boxes:
    """Search a file for edit lists, tracks and encryption.

    FFmpeg honours edit lists in nearly any box, so the search looks at bytes, not at the nesting of boxes.
    """
    found = Boxes()
    end = file.seek(0, io.SEEK_END)
    start = 0
    for _ in range(MAX_BOXES):
        file.seek(start)
        header = file.read(16)
        size, kind = int.from_bytes(header[:4]), header[4:8]
        if size == 1:
            size = int.from_bytes(header[8:16])
        if size == 0:
            size = end - start
        if size < 8 or len(header) < 8:
            break
        found.has_header |= kind == b"moov"
        found.has_fragments |= kind == b"moof"
        if kind != b"mdat":
            _search(file, start, min(start + size, end), found)
        start += size
        if start >= end:
            break
    else:
        _search(file, start, end, found)
    return found


def _search(file: BinaryIO, start: int, end: int, found: Boxes) -> None:
    file.seek(start)
    tail = b""
    while start < end and (chunk := file.read(min(CHUNK_BYTES, end - start))):
        start += len(chunk)
        window = tail + chunk
        for match in EDIT_LIST.finditer(window):
            version, entries = match[1][0], int.from_bytes(match[2])
            size = int.from_bytes(window[max(0, match.start() - BOX_SIZE_BYTES) : match.start()])
            # Other bytes that happen to spell `elst` have no size that matches the entries.
            if size == EDIT_LIST_BYTES + entries * EDIT_BYTES[version]:
                found.edits = max(found.edits, entries)
        found.tracks += chunk.count(b"trak")  # a match across two chunks is missed
        found.is_encrypted |= ENCRYPTED_ENTRY in window
        tail = window[-EDIT_LIST_BYTES + 1 :]
