from __future__ import annotations

import pytest

from service.clip.decoding.formats import (
    ASF_ENCRYPTION,
    TS_PACKET_BYTES,
    container_name,
    is_container,
    is_encrypted,
)

MOV = "mov,mp4,m4a,3gp,3g2,mj2"


@pytest.mark.parametrize(
    ("demuxer", "head", "name"),
    [
        (MOV, b"\0\0\0\x14ftypqt  ", "mov"),
        (MOV, b"\0\0\0\x14ftypisom", "mp4"),
        (MOV, b"\0\0\0\x14moov....", "mov"),
        (MOV, b"\0\0\0\x14moovqt  ", "mov"),
        ("matroska,webm", b"\x1aE\xdf\xa3" + bytes(56) + b"webm", "webm"),
        ("matroska,webm", b"\x1aE\xdf\xa3" + bytes(57) + b"webm", "matroska"),
        ("yuv4mpegpipe", b"", "y4m"),
        ("avi", b"", "avi"),
    ],
)
def test_containers_have_their_everyday_names(demuxer: str, head: bytes, name: str) -> None:
    assert container_name(demuxer, head) == name


def packet(control: int = 0x10, sync: int = 0x47) -> bytes:
    """A packet of a transport stream, with its scrambling and adaptation control."""
    return bytes([sync, 0, 0, control]).ljust(TS_PACKET_BYTES, b"\xff")


SCRAMBLED = packet(0xD0)


@pytest.mark.parametrize(
    ("head", "accepted"),
    [
        (b"RIFF\0\0\0\0AVI LIST", True),
        (b"RIFF\0\0\0\0WAVEfmt ", False),
        (b"RIFX\0\0\0\0AVI LIST", False),
        (b"FLV\x01", True),
        (b"GIF89a", True),
        (b"", False),
        (3 * packet(), True),
        (2 * packet() + b"\x47", True),
        (2 * packet(), False),
        (2 * packet() + b"\x48", False),
        (packet() + packet(sync=0x46) + packet(), False),
    ],
)
def test_heads_of_containers_are_recognized(head: bytes, accepted: bool) -> None:
    assert is_container(head) is accepted


@pytest.mark.parametrize(
    ("head", "encrypted"),
    [
        (3 * SCRAMBLED, True),
        (2 * SCRAMBLED, False),  # too short to tell
        (2 * SCRAMBLED + b"\x47\0\0\xd0", True),
        (2 * SCRAMBLED + b"\x47\0\0", False),
        (3 * packet(0x50), True),  # the lower of the two bits
        (3 * packet(0x90), True),  # the upper one
        (3 * packet(0x30), False),
        (2 * packet() + 2 * SCRAMBLED, False),  # half of the packets
        (2 * packet() + 3 * SCRAMBLED, True),
        (packet() + 2 * SCRAMBLED, True),
        (packet(sync=0x46) + 3 * SCRAMBLED, False),
        *((b"0&\xb2u" + guid, True) for guid in ASF_ENCRYPTION),
        (b"0&\xb2u" + ASF_ENCRYPTION[0][:-1], False),
    ],
)
def test_declared_encryption_is_recognized(head: bytes, encrypted: bool) -> None:
    assert is_encrypted(head) is encrypted
