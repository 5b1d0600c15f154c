"""Find the frames that a frame really refers to, and drop those that no wanted frame needs.

A reference picture is one that others may refer to. Only the slice headers of these others tell whether they
do. Encoders that search for motion in a single picture, as fast presets do, write many reference pictures
that only skipped B pictures use. A decoder notices if one is missing, because it counts reference pictures
and finds them by that count. So the headers of the remaining pictures are rewritten with new counts; no bit
of picture data changes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from service.clip.bitstream.h264.parameters import H264Pps, H264Sps
from service.clip.bitstream.h264.picture_buffer import PictureBuffer, ReferenceFrame
from service.clip.bitstream.h264.slice_header import (
    IDR,
    SliceHeader,
    SliceReferences,
    read_slice_header,
    write_slice,
)
from service.clip.bitstream.nal import nal_units
from service.clip.bitstream.packet_info import PacketRewrite, Unplannable

# nal_unit_type (clause 7.4.1) of parts of a frame whose references are not followed: slice partitions, other
# views and layers.
NOT_FOLLOWED = {2, 3, 4, 14, 20, 21}
SLICES = {1, IDR}
# The first `PROBED` pictures tell whether the encoder writes reference pictures that no reference picture
# uses. For the last `UNSURE` of these pictures it is too early to tell.
PROBED, UNSURE = 12, 4
# Bounds on the work for streams built to be expensive. The first is the standard's (clause A.3.1).
MAX_REFERENCES = 16
MAX_SLICES = 20_000  # of all pictures that a pruner reads; takes half a second


class FollowedPicture(NamedTuple):
    """A frame of the original stream.

    Attributes:
        packet: Number of its packet.
        headers: Headers of its slices.
        poc: Its picture order count.
        lists: For each slice its reference lists, as packet numbers.
        kept: Packet numbers of the frames that the decoder keeps after it.
    """

    packet: int
    headers: tuple[SliceHeader, ...]
    poc: int
    lists: tuple[tuple[tuple[int, ...], ...], ...]
    kept: frozenset[int]


class H264Pruner:
    """`ReferencePruner` for H.264.

    Args:
        spss: Sequence parameter sets by number, valid for the whole stream.
        ppss: Picture parameter sets by number, valid for the whole stream.
        length_bytes: Size of the length before each NAL unit; 0 if start codes separate the units.
    """

    def __init__(self, spss: dict[int, H264Sps], ppss: dict[int, H264Pps], length_bytes: int) -> None:
        self.spss, self.ppss = spss, ppss
        self._length_bytes = length_bytes
        self._slices = 0

    def prune(
        self, packets: Iterable[tuple[int, memoryview]], targets: Collection[int]
    ) -> dict[int, PacketRewrite | None]:
        """Return the packets to keep, each with the rewrite it needs."""
        distinct = set(self.spss.values())
        if len(distinct) != 1 or not 0 < (sps := distinct.pop()).max_references <= MAX_REFERENCES:
            raise Unplannable("references are counted in several ways, or there are too many")
        pictures: list[FollowedPicture] = []
        for picture in self.follow(packets, sps):
            pictures.append(picture)
            if len(pictures) == PROBED and not _has_unused_reference(pictures):
                raise Unplannable("all reference pictures are used")
        needed = set(targets)
        for picture in reversed(pictures):
            if picture.headers[0].is_idr:
                needed.add(picture.packet)  # decoding starts here
            if picture.packet in needed:
                needed.update(number for lists in picture.lists for each in lists for number in each)
        buffer = PictureBuffer(sps)
        return {
            picture.packet: self.renumber(picture, needed, buffer)
            for picture in pictures
            if picture.packet in needed
        }

    def follow(self, packets: Iterable[tuple[int, memoryview]], sps: H264Sps) -> Iterator[FollowedPicture]:
        """Yield the pictures of the original stream with their references."""
        buffer = PictureBuffer(sps)
        for index, (number, packet) in enumerate(packets):
            headers = tuple(self._slice_headers(packet))
            first = headers[0]
            if not index and not first.is_idr:
                raise Unplannable("the run does not start with an IDR picture")
            if any(_frame_fields(header) != _frame_fields(first) for header in headers):
                raise Unplannable("a packet has slices of several pictures")
            frame_num, poc = buffer.start_picture(first)
            if frame_num != first.references.frame_num:
                raise Unplannable("a reference frame is missing")
            lists = tuple(
                tuple(
                    tuple(frame.packet for frame in frames)
                    for frames in buffer.reference_lists(header, frame_num, poc)
                )
                for header in headers
            )
            if first.is_reference:
                buffer.store(ReferenceFrame(number, frame_num, poc), first.references.removals)
            kept = frozenset(frame.packet for frame in buffer.frames)
            yield FollowedPicture(number, headers, poc, lists, kept)

    def _slice_headers(self, packet: memoryview) -> Iterator[SliceHeader]:
        before = self._slices
        for unit in nal_units(packet, self._length_bytes):
            kind = unit[0] & 31
            if kind in NOT_FOLLOWED:
                raise Unplannable("the stream has partitions, views or layers")
            if kind in SLICES:
                self._slices += 1
                if self._slices > MAX_SLICES:
                    raise Unplannable("there are too many slices to follow")
                yield read_slice_header(unit, self.spss, self.ppss)
        if self._slices == before:
            raise Unplannable("a packet has no picture")

    def renumber(
        self, picture: FollowedPicture, needed: Collection[int], buffer: PictureBuffer
    ) -> PacketRewrite | None:
        """Advance `buffer`, which holds only pictures in `needed`, by one picture.

        Return the rewrite that the picture needs; None if its headers do not change.
        """
        first = picture.headers[0]
        frame_num, poc = buffer.start_picture(first)
        if poc != picture.poc:
            raise Unplannable("the kept pictures are too far apart in display order")
        removals = None
        if first.is_reference and not first.is_idr:
            removals = buffer.removals_to_keep(picture.kept.intersection(needed), frame_num)
        references = tuple(
            SliceReferences(frame_num, buffer.changes_to(header, frame_num, poc, lists), removals)
            for header, lists in zip(picture.headers, picture.lists, strict=True)
        )
        if first.is_reference:
            buffer.store(ReferenceFrame(picture.packet, frame_num, poc), removals)
        if references == tuple(header.references for header in picture.headers):
            return None
        return partial(
            _rewrite, length_bytes=self._length_bytes, headers=picture.headers, references=references
        )


def _frame_fields(header: SliceHeader) -> tuple[object, ...]:
    """Return the fields that all slices of a frame have in common."""
    return (
        header.is_idr,
        header.is_reference,
        header.poc_lsb,
        header.poc_bottom,
        header.references.frame_num,
        header.references.removals,
    )


def _has_unused_reference(pictures: Sequence[FollowedPicture]) -> bool:
    """Return whether there is a reference picture that no other reference picture uses."""
    references = [picture for picture in pictures if picture.headers[0].is_reference]
    used = {number for picture in references for lists in picture.lists for each in lists for number in each}
    return any(picture.packet not in used for picture in references[:-UNSURE])


def _rewrite(
    packet: memoryview,
    *,
    length_bytes: int,
    headers: Sequence[SliceHeader],
    references: Sequence[SliceReferences],
) -> bytes:
    """Return a packet with other references in the headers of its slices."""
    slices = zip(headers, references, strict=True)
    parts: list[bytes] = []
    for unit in nal_units(packet, length_bytes):
        data = write_slice(unit, *next(slices)) if unit[0] & 31 in SLICES else bytes(unit)
        if not length_bytes:
            parts.append(b"\0\0\0\1" + data)
        elif len(data) >> 8 * length_bytes:
            raise Unplannable("a NAL unit has become too long")
        else:
            parts.append(len(data).to_bytes(length_bytes, "big") + data)
    return b"".join(parts)
