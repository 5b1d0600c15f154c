from __future__ import annotations

import pytest

from service.clip.bitstream.packet_info import PacketInfo, RandomAccess, Unplannable
from service.clip.bitstream.vpx_av1 import (
    Av1Reader,
    Vp8Reader,
    Vp9Reader,
    av1_units,
    read_av1_frame,
    read_leb128,
    read_vp9_frame,
    vp9_frames,
)
from tests.service.clip.bitstream.written import bits

NONE, CLOSED = RandomAccess.NONE, RandomAccess.CLOSED


def view(*parts: bytes) -> memoryview:
    return memoryview(b"".join(parts))


def test_vp8_packets_are_described_by_their_first_byte() -> None:
    reader = Vp8Reader()
    infos = [reader.read(memoryview(bytes([first, 255]))) for first in (0xFE, 0xFF, 0xEF, 0x10, 0x00)]
    assert infos == [
        PacketInfo(1, CLOSED),
        PacketInfo(2, NONE),
        PacketInfo(3, NONE, shown=False),
        PacketInfo(4, CLOSED),
        PacketInfo(5, CLOSED, shown=False),
    ]
    assert (reader.reorder_depth(), reader.independent) == (0, True)


def vp9(*, key: bool = False, shown: bool = True, profile: int = 0, existing: bool = False) -> bytes:
    """The first bits of a frame: clause 6.2."""
    reserved = [(0, 1)] if profile == 3 else []
    return bits(
        (2, 2), (profile & 1, 1), (profile >> 1, 1), *reserved, (existing, 1), (not key, 1), (shown, 1)
    )


def superframe(*frames: bytes, size_bytes: int = 1) -> bytes:
    """Frames with the index of annex B."""
    marker = bytes([0b110 << 5 | size_bytes - 1 << 3 | len(frames) - 1])
    sizes = b"".join(len(frame).to_bytes(size_bytes, "little") for frame in frames)
    return b"".join(frames) + marker + sizes + marker


@pytest.mark.parametrize("profile", range(4))
@pytest.mark.parametrize("key", [False, True])
@pytest.mark.parametrize("shown", [False, True])
def test_vp9_headers_are_read_in_every_profile(profile: int, key: bool, shown: bool) -> None:
    assert read_vp9_frame(view(vp9(profile=profile, key=key, shown=shown))) == (key, shown)
    assert read_vp9_frame(view(vp9(profile=profile, key=key, shown=shown, existing=True))) == (False, True)


@pytest.mark.parametrize("first", [0x00, 0x40, 0xC0])
def test_vp9_frame_without_its_marker_is_unplannable(first: int) -> None:
    with pytest.raises(Unplannable, match="a frame lacks its marker"):
        read_vp9_frame(view(bytes([first, 0, 0])))


@pytest.mark.parametrize("size_bytes", [1, 2, 3, 4])
@pytest.mark.parametrize("lengths", [(1,), (3, 200), (5, 1, 2, 3, 4, 5, 6, 7)])
def test_vp9_superframes_are_split(size_bytes: int, lengths: tuple[int, ...]) -> None:
    frames = [bytes([number]) * length for number, length in enumerate(lengths)]
    assert [bytes(frame) for frame in vp9_frames(view(superframe(*frames, size_bytes=size_bytes)))] == frames


def test_vp9_packet_that_only_ends_like_an_index_is_one_frame() -> None:
    whole = superframe(b"ab", b"cde")
    for packet in (
        whole[:5] + b"\0" + whole[6:],  # the marker is not repeated
        whole[:-1] + bytes([whole[-1] & 0x1F | 0b111 << 5]),
        whole[-3:],  # too short for its index
        b"\x00",
    ):
        assert [bytes(frame) for frame in vp9_frames(view(packet))] == [packet]
    # An index alone, without any frame before it, has no room for the sizes that it states.
    with pytest.raises(Unplannable, match="a frame is truncated"):
        vp9_frames(view(whole[-4:]))


@pytest.mark.parametrize("sizes", [(0, 5), (3, 3), (6, 1)])
def test_vp9_superframe_with_wrong_sizes_is_unplannable(sizes: tuple[int, int]) -> None:
    packet = b"abcde" + bytes([0b110 << 5 | 1, *sizes, 0b110 << 5 | 1])
    with pytest.raises(Unplannable, match="a frame is truncated"):
        vp9_frames(view(packet))


def test_vp9_packet_shows_one_frame_at_most() -> None:
    reader = Vp9Reader()
    key, hidden_key = vp9(key=True), vp9(key=True, shown=False)
    inter, hidden = vp9(), vp9(shown=False)
    packets = [key, inter, superframe(hidden, inter), hidden, superframe(key, hidden), hidden_key]
    packets.append(superframe(hidden_key, inter))
    assert [reader.read(view(packet)) for packet in packets] == [
        PacketInfo(1, CLOSED),
        PacketInfo(2, NONE),
        PacketInfo(3, NONE),
        PacketInfo(4, NONE, shown=False),
        PacketInfo(5, CLOSED),
        PacketInfo(6, NONE, shown=False),
        PacketInfo(7, NONE),
    ]
    with pytest.raises(Unplannable, match="a packet has several pictures"):
        reader.read(view(superframe(inter, inter)))


@pytest.mark.parametrize(
    ("data", "value", "end"),
    [
        (b"\x00", 0, 1),
        (b"\x7f", 127, 1),
        (b"\x80\x01", 128, 2),
        (b"\xe5\x8e\x26", 624485, 3),
        (b"\x80" * 7 + b"\x01", 1 << 49, 8),
    ],
)
def test_leb128_is_read_at_any_position(data: bytes, value: int, end: int) -> None:
    assert read_leb128(view(data, b"\xff"), 0) == (value, end)
    assert read_leb128(view(b"\x55", data), 1) == (value, end + 1)


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x80" * 8 + b"\x01"])
def test_leb128_without_an_end_is_unplannable(data: bytes) -> None:
    with pytest.raises(Unplannable, match="an OBU is truncated"):
        read_leb128(view(data), 0)


def obu(kind: int, content: bytes, *, layer: int | None = None, sized: bool = True) -> bytes:
    """An open bitstream unit: clause 5.3."""
    head = bytes([kind << 3 | (layer is not None) << 2 | sized << 1])
    extension = b"" if layer is None else bytes([layer << 3])
    return head + extension + (bytes([len(content)]) if sized else b"") + content


def test_av1_units_are_split() -> None:
    packet = view(
        obu(2, b""),  # a temporal delimiter has no content
        obu(1, b"sequence"),
        obu(6, b"one", layer=0),
        obu(6, b"two", layer=3),
        obu(15, b"rest", sized=False),
    )
    assert [(kind, layer, bytes(content)) for kind, layer, content in av1_units(packet)] == [
        (1, 0, b"sequence"),
        (6, 0, b"one"),
        (6, 3, b"two"),
        (15, 0, b"rest"),
    ]


@pytest.mark.parametrize(
    "packet", [obu(6, b"abc")[:-1], bytes([6 << 3 | 4]), bytes([6 << 3 | 2]), bytes([6 << 3 | 6, 0])]
)
def test_truncated_av1_units_are_unplannable(packet: bytes) -> None:
    with pytest.raises(Unplannable, match="an OBU is truncated"):
        list(av1_units(view(packet)))


def av1(kind: int = 1, *, shown: bool = True, existing: bool = False) -> bytes:
    """The first bits of a frame header: clause 5.9.2."""
    return bits((existing, 1), (kind, 2), (shown, 1))


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (av1(0), (True, True)),
        (av1(0, shown=False), (True, False)),
        (av1(1), (False, True)),
        (av1(2), (False, True)),
        (av1(3, shown=False), (False, False)),
        (av1(0, existing=True), (False, True)),
        (av1(0, existing=True, shown=False), (False, True)),
    ],
)
def test_av1_frame_headers_are_read(header: bytes, found: tuple[bool, bool]) -> None:
    assert read_av1_frame(view(header)) == found


SEQUENCE = obu(1, b"\x00\x00")


def test_av1_decoding_starts_at_a_shown_keyframe_with_a_sequence_header() -> None:
    reader = Av1Reader()
    packets = [
        SEQUENCE + obu(6, av1(0)),
        obu(6, av1(0)),
        SEQUENCE + obu(6, av1(1)),
        obu(6, av1(1, shown=False)) + obu(3, av1(existing=True)),
        SEQUENCE + obu(6, av1(0, shown=False)) + obu(6, av1(1)),
        obu(5, b"metadata") + obu(3, av1(1)),
    ]
    starts = [CLOSED, NONE, NONE, NONE, NONE, NONE]
    assert [reader.read(view(packet)) for packet in packets] == [
        PacketInfo(number, access) for number, access in enumerate(starts, start=1)
    ]


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (SEQUENCE, "a packet has no picture or several"),
        (obu(6, av1(1, shown=False)), "a packet has no picture or several"),
        (obu(6, av1(1)) + obu(3, av1(1)), "a packet has no picture or several"),
        (obu(6, av1(1), layer=1), "the stream has spatial layers"),
        (obu(1, b"\x08") + obu(6, av1(0)), "the stream is a still picture"),
    ],
)
def test_other_av1_packets_are_unplannable(packet: bytes, reason: str) -> None:
    with pytest.raises(Unplannable, match=f"^{reason}$"):
        Av1Reader().read(view(packet))
