"""VP8 (RFC 6386), VP9 (bitstream specification 0.6) and AV1 (specification with errata 1).

These codecs output frames in packet order. No frame can be skipped within a group, since each changes the
probabilities or motion vectors with which the next one is decoded.
"""

from __future__ import annotations

from collections.abc import Iterator

from service.clip.bitstream.bits import BitReader
from service.clip.bitstream.packet_info import InOrderReader, PacketInfo, RandomAccess, Unplannable

VP8_INTER, VP8_SHOWN = 0x01, 0x10  # bits of a frame's first byte, RFC 6386, section 9.1
VP9_MARKER = 2
VP9_SUPERFRAME = 0b110  # upper bits of a superframe's last byte, annex B
SEQUENCE_HEADER, FRAME_HEADER, FRAME = 1, 3, 6  # obu_type, clause 6.2.2 of AV1
REDUCED_STILL_PICTURE = 0x08  # in the first byte of a sequence header
AV1_KEY_FRAME = 0


class Vp8Reader(InOrderReader):
    """`PacketReader` for VP8."""

    def read(self, packet: memoryview) -> PacketInfo:
        """Describe the next packet."""
        random_access = RandomAccess.NONE if packet[0] & VP8_INTER else RandomAccess.CLOSED
        return PacketInfo(self._next_order(), random_access, shown=bool(packet[0] & VP8_SHOWN))


class Vp9Reader(InOrderReader):
    """`PacketReader` for VP9."""

    def read(self, packet: memoryview) -> PacketInfo:
        """Describe the next packet."""
        frames = [read_vp9_frame(frame) for frame in vp9_frames(packet)]
        shown = sum(is_shown for _, is_shown in frames)
        if shown > 1:
            raise Unplannable("a packet has several pictures")
        starts = bool(frames) and frames[0] == (True, True)
        random_access = RandomAccess.CLOSED if starts else RandomAccess.NONE
        return PacketInfo(self._next_order(), random_access, shown=shown == 1)


def vp9_frames(packet: memoryview) -> list[memoryview]:
    """Split a packet into the frames of a superframe (annex B), if it is one."""
    last = packet[-1]
    size_bytes, count = (last >> 3 & 3) + 1, (last & 7) + 1
    index_bytes = 2 + size_bytes * count
    is_superframe = last >> 5 == VP9_SUPERFRAME and index_bytes <= len(packet)
    if not is_superframe or packet[-index_bytes] != last:
        return [packet]
    frames: list[memoryview] = []
    start, index_start = 0, len(packet) - index_bytes
    for position in range(index_start + 1, len(packet) - 1, size_bytes):
        size = int.from_bytes(packet[position : position + size_bytes], "little")
        if not size or start + size > index_start:
            raise Unplannable("a frame is truncated")
        frames.append(packet[start : start + size])
        start += size
    return frames


def read_vp9_frame(frame: memoryview) -> tuple[bool, bool]:
    """Return whether a frame is a keyframe, and whether it is shown (uncompressed_header, clause 6.2)."""
    bits = BitReader(bytes(frame[:4]))
    if bits.u(2) != VP9_MARKER:
        raise Unplannable("a frame lacks its marker")
    profile = bits.u(1) + 2 * bits.u(1)
    if profile == 3:
        bits.u(1)
    if bits.flag():  # show_existing_frame
        return False, True
    is_inter, is_shown = bits.flag(), bits.flag()
    return not is_inter, is_shown


class Av1Reader(InOrderReader):
    """`PacketReader` for AV1, where each packet must be a temporal unit with exactly one shown frame."""

    def read(self, packet: memoryview) -> PacketInfo:
        """Describe the next packet."""
        has_sequence_header = False
        frames: list[tuple[bool, bool]] = []
        for kind, layer, content in av1_units(packet):
            if layer:
                raise Unplannable("the stream has spatial layers")
            if kind == SEQUENCE_HEADER:
                has_sequence_header = True
                if content[0] & REDUCED_STILL_PICTURE:
                    raise Unplannable("the stream is a still picture")
            elif kind in {FRAME_HEADER, FRAME}:
                frames.append(read_av1_frame(content))
        if sum(is_shown for _, is_shown in frames) != 1:
            raise Unplannable("a packet has no picture or several")
        starts = has_sequence_header and frames[0] == (True, True)
        return PacketInfo(self._next_order(), RandomAccess.CLOSED if starts else RandomAccess.NONE)


def av1_units(packet: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Yield type, spatial layer and content of each OBU that has content (clause 5.3)."""
    position = 0
    while position < len(packet):
        head = packet[position]
        has_extension, has_size = head & 4, head & 2
        layer = packet[position + 1] >> 3 & 3 if has_extension and position + 1 < len(packet) else 0
        position += 2 if has_extension else 1
        size = len(packet) - position
        if has_size:
            size, position = read_leb128(packet, position)
        if size < 0 or position + size > len(packet):
            raise Unplannable("an OBU is truncated")
        if size:
            yield head >> 3 & 15, layer, packet[position : position + size]
        position += size


def read_leb128(packet: memoryview, position: int) -> tuple[int, int]:
    """Read the number at `position` (clause 4.10.5). Return the number and the position after it."""
    value = 0
    for index, byte in enumerate(packet[position : position + 8]):
        value |= (byte & 0x7F) << 7 * index
        if not byte & 0x80:
            return value, position + index + 1
    raise Unplannable("an OBU is truncated")


def read_av1_frame(content: memoryview) -> tuple[bool, bool]:
    """Return whether a frame is a keyframe, and whether it is shown (uncompressed_header, clause 5.9.2)."""
    bits = BitReader(bytes(content[:2]))
    if bits.flag():  # show_existing_frame
        return False, True
    return bits.u(2) == AV1_KEY_FRAME, bits.flag()
