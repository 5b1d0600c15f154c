from __future__ import annotations

import io

import pytest

from service.clip.decoding.isobmff import CHUNK_BYTES, ENCRYPTED_ENTRY, Boxes, read_boxes


def box(kind: bytes, content: bytes = b"", size: int | None = None) -> bytes:
    return (8 + len(content) if size is None else size).to_bytes(4) + kind + content


def large(kind: bytes, content: bytes = b"") -> bytes:
    """A box with a size of 64 bits."""
    return (1).to_bytes(4) + kind + (16 + len(content)).to_bytes(8) + content


def edits(entries: int, version: int = 0) -> bytes:
    content = bytes([version, 0, 0, 0]) + entries.to_bytes(4) + bytes((12, 20)[version] * entries)
    return box(b"elst", content)


def found(*boxes: bytes) -> Boxes:
    return read_boxes(io.BytesIO(b"".join(boxes)))


FTYP = box(b"ftyp", b"isom")


def test_an_empty_file_has_nothing() -> None:
    assert found() == Boxes()
    assert found(b"\0\0\0\x08moo") == Boxes()


def test_headers_fragments_tracks_and_edits_are_counted() -> None:
    tracks = box(b"trak", edits(3)) + box(b"trak", edits(5, version=1)) + box(b"trak", edits(4))
    assert found(FTYP, box(b"moov", tracks)) == Boxes(edits=5, tracks=3, has_header=True)
    assert found(FTYP, box(b"moof"), box(b"mdat")) == Boxes(has_fragments=True)


@pytest.mark.parametrize("kind", [b"moov", b"moof"])
def test_the_smallest_box_has_8_bytes(kind: bytes) -> None:
    assert found(box(kind), box(b"moov", edits(1))).edits == 1
    for size in (2, 7):  # 1 announces a size of 64 bits, and 0 the rest of the file
        assert found(box(kind, bytes(8), size), box(b"moov", edits(1))) == Boxes()


def test_media_data_is_not_searched() -> None:
    inside = box(b"trak", edits(3)) + ENCRYPTED_ENTRY
    assert found(box(b"mdat", inside)) == Boxes()
    assert found(large(b"mdat", inside), box(b"moov")) == Boxes(has_header=True)
    assert found(large(b"free", inside)) == Boxes(edits=3, tracks=1, is_encrypted=True)


def test_a_box_of_size_0_reaches_to_the_end() -> None:
    assert found(FTYP, box(b"moov", edits(2), size=0)) == Boxes(edits=2, has_header=True)
    assert found(FTYP, box(b"mdat", edits(2), size=0)) == Boxes()


def test_a_box_that_ends_beyond_the_file_is_searched_to_its_end() -> None:
    assert found(box(b"moov", edits(2), size=1000)) == Boxes(edits=2, has_header=True)


@pytest.mark.parametrize("off", [-1, 1])
def test_bytes_that_spell_an_edit_list_need_the_right_size(off: int) -> None:
    listed = edits(2)
    changed = (len(listed) + off).to_bytes(4) + listed[4:]
    assert found(box(b"moov", changed)).edits == 0


@pytest.mark.parametrize("before", range(CHUNK_BYTES - 30, CHUNK_BYTES + 4))
def test_edit_lists_and_encryption_are_found_across_chunks(before: int) -> None:
    listed = edits(1)
    assert found(box(b"moov", bytes(before - 8) + listed)).edits == 1
    assert found(box(b"moov", bytes(before - 8) + ENCRYPTED_ENTRY)).is_encrypted


def test_encrypted_entries_have_six_reserved_bytes() -> None:
    assert found(box(b"moov", b"encv" + bytes(6))).is_encrypted
    assert not found(box(b"moov", b"encv" + bytes(5) + b"\x01")).is_encrypted
