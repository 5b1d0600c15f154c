"""Read all packets of a video once, without decoding, to learn which frames they hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias

import av

from service.clip.bitstream.intra import IntraReader
from service.clip.bitstream.packet_info import PacketReader, ReferencePruner, Unplannable
from service.clip.bitstream.readers import reader_for
from service.clip.decoding.container import OpenVideo
from service.clip.decoding.plan import IndexEntry, PacketIndex
from service.clip.video import DecodeLimits
from service.errors import Undecodable

Packet: TypeAlias = "av.Packet[av.VideoStream]"  # generic in PyAV's stub only

# Packets are kept in memory for decoding up to this total; a larger video is read a second time. The limit
# is above the service's upload limit, so the service never reads an upload twice.
KEPT_BYTES = 128 * 2**20


class Packets(Protocol):
    """Packets by number, requested in ascending order within a run."""

    def __getitem__(self, number: int, /) -> Packet:
        """Return packet `number`.

        Raises:
            Unplannable: The packet cannot be provided as planned.
        """
        ...


class SecondPass:
    """`Packets` from a second pass over the file."""

    def __init__(self, video: OpenVideo) -> None:
        self._numbered = enumerate(video.packets())

    def __getitem__(self, number: int) -> Packet:
        for current, packet in self._numbered:
            if current == number:
                return packet
        raise Unplannable("the second pass found fewer packets than the first")


@dataclass(frozen=True)
class PacketScan:
    """Result of one pass over the packets.

    Attributes:
        index: The packets and the frames they decode to; None if the packets do not tell.
        problem: Why there is no index.
        frames: Number of frames; exact with an index, otherwise an estimate from the container.
        packets: The packets, unless they are too large to keep.
        independent: Whether several decoders can share the groups of the stream.
        pruner: Finds references that the wanted frames do not need; None if the codec has none.
        pixels: Width times height according to the header.
    """

    index: PacketIndex | None
    problem: str
    frames: int
    packets: list[Packet] | None
    independent: bool
    pruner: ReferencePruner | None
    pixels: int


def scan_packets(video: OpenVideo, limits: DecodeLimits) -> PacketScan:
    """Read all packets of `video`.

    Raises:
        Undecodable: No packet holds a frame.
        OverLimit: There are more packets than frames are allowed, or their timestamps span too long.
    """
    entries: list[IndexEntry] = []
    kept: list[Packet] | None = []
    total_bytes = 0
    reader: PacketReader | None = None
    problem = ""
    try:
        reader = reader_for(video.codec, video.header)
    except Unplannable as exc:
        problem = str(exc)
    for number, packet in enumerate(video.packets(), start=1):
        limits.check_frames(number)
        total_bytes += packet.size
        if kept is not None:
            kept.append(packet)
            if total_bytes > KEPT_BYTES:
                kept = None
        if reader:
            try:
                entries.append(_index_entry(packet, reader))
            except Unplannable as exc:
                problem, reader = str(exc), None
    frames = len(video.times.shown)
    if not frames:
        raise Undecodable("the video holds no frame")
    timestamps = [pts for pts in video.times.shown if pts is not None] or [0]
    if (max(timestamps) - min(timestamps)) * video.times.time_base > limits.max_duration_s:
        # Only in this case, take the time to distinguish a long video from one with a wrong timestamp.
        limits.check_duration(video.times.timing(video.times.shown).times_s[-1])
    index: PacketIndex | None = None
    if reader:
        try:
            if video.cut_short:
                raise Unplannable("the file breaks off")
            index = PacketIndex(entries, reader.reorder_depth(), depth_is_indexed=video.depth_is_indexed)
        except Unplannable as exc:
            problem = str(exc)
    return PacketScan(
        index=index,
        problem=problem,
        frames=len(index.frames) if index else frames,
        packets=kept if index else None,
        independent=reader is not None and reader.independent,
        pruner=reader.pruner() if reader else None,
        pixels=video.width * video.height,
    )


def _index_entry(packet: Packet, reader: PacketReader) -> IndexEntry:
    if packet.pts is None:
        raise Unplannable("a packet has no timestamp")
    if packet.is_corrupt:
        raise Unplannable("a packet is damaged")
    if isinstance(reader, IntraReader) and not packet.is_keyframe:
        raise Unplannable("a picture of an intra-only codec refers to others")
    return IndexEntry(
        pts=packet.pts,
        size=packet.size,
        discard=packet.is_discard,
        info=reader.read(memoryview(packet)),
    )
