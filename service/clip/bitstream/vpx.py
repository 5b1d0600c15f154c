"""VP8 (RFC 6386) and VP9 (the bitstream specification, version 0.6): which frames are shown.

Frames are given in the order of the packets. None can be left out: each changes the probabilities, or the
motion vectors, that the next is decoded with, whether or not it refers to its picture.
"""

from __future__ import annotations

from service.clip.bitstream.bits import Bits
from service.clip.bitstream.coded import Coded, Entry, InOrderReader, Unplannable

# RFC 6386, section 9.1: bits of the first byte of a frame.
VP8_INTER, VP8_SHOWN = 0x01, 0x10
VP9_MARKER = 2
SUPERFRAME = 0b110  # the upper bits of a superframe's last byte (annex B)


class Vp8Reader(InOrderReader):
    """See `Reader`."""

    def read(self, packet: memoryview) -> Coded:
        """See `Reader`."""
        place = self._next()
        entry = Entry.NONE if packet[0] & VP8_INTER else Entry.CLOSED
        return Coded(place, entry, shown=bool(packet[0] & VP8_SHOWN))


class Vp9Reader(InOrderReader):
    """See `Reader`."""

    def read(self, packet: memoryview) -> Coded:
        """See `Reader`."""
        place = self._next()
        frames = [_vp9_frame(frame) for frame in _vp9_frames(packet)]
        shown = sum(shown for _, shown in frames)
        if shown > 1:
            raise Unplannable("several pictures in a packet")
        entry = Entry.CLOSED if frames and frames[0] == (True, True) else Entry.NONE
        return Coded(place, entry, shown=shown == 1)


def _vp9_frames(packet: memoryview) -> list[memoryview]:
    """The frames of a packet: one, or those of a superframe (annex B)."""
    last = packet[-1]
    if last >> 5 != SUPERFRAME:
        return [packet]
    size_bytes, count = (last >> 3 & 3) + 1, (last & 7) + 1
    index_bytes = 2 + size_bytes * count
    if index_bytes > len(packet) or packet[-index_bytes] != last:
        return [packet]
    frames, at = [], 0
    for which in range(count):
        entry = len(packet) - index_bytes + 1 + which * size_bytes
        size = int.from_bytes(packet[entry : entry + size_bytes], "little")
        if not size or at + size > len(packet) - index_bytes:
            raise Unplannable("a frame is cut off")
        frames.append(packet[at : at + size])
        at += size
    return frames


def _vp9_frame(frame: memoryview) -> tuple[bool, bool]:
    """Whether it is a keyframe, and whether it is shown (uncompressed_header, clause 6.2)."""
    bits = Bits(bytes(frame[:4]))
    if bits.u(2) != VP9_MARKER:
        raise Unplannable("a frame without its marker")
    profile = bits.u(1) + 2 * bits.u(1)
    if profile == 3:
        bits.u(1)
    if bits.flag():  # show_existing_frame
        return False, True
    inter, shown = bits.flag(), bits.flag()
    return not inter, shown
