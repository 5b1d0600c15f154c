"""The table of a video's packets, from one pass over the file without decoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import av

from service.clip.bitstream.coded import Reader, Thinner, Unplannable
from service.clip.bitstream.intra import IntraReader
from service.clip.bitstream.readers import reader_for
from service.clip.container import OpenVideo
from service.clip.plan import Row, Table
from service.clip.video import DecodeLimits
from service.errors import Undecodable

Packet: TypeAlias = "av.Packet[av.VideoStream]"  # generic in PyAV's stub only

# Packets up to so many bytes in all stay in memory for decoding; those of a larger file are read again.
# More than an upload may have, so that in the service it is never both file and packets that are read
# twice.
KEPT_BYTES = 128 * 2**20


@dataclass(frozen=True)
class Listing:
    """What one pass over the packets found.

    Attributes:
        table: What they decode to; None if that cannot be told.
        problem: Why it cannot, if so.
        frames: Frames that the packets hold, as far as can be told: exactly, if there is a table.
        timestamps: Those that packets of frames have, rising, in units of the stream's time base.
        packets: The packets themselves, unless there are too many bytes of them.
        independent: Whether several decoders can share the stream's groups.
        thinner: What tells more of the packets, if anything does.
        pixels: Width times height, as the header has them.
    """

    table: Table | None
    problem: str
    frames: int
    timestamps: tuple[int, ...]
    packets: list[Packet] | None
    independent: bool
    thinner: Thinner | None
    pixels: int


class ReadAgain:
    """The packets of a second pass, by their numbers, to be asked for in rising order."""

    def __init__(self, video: OpenVideo) -> None:
        self._numbered = enumerate(video.packets())

    def __getitem__(self, number: int) -> Packet:
        for other, packet in self._numbered:
            if other == number:
                return packet
        raise Unplannable("fewer packets than at first")


def list_packets(video: OpenVideo, limits: DecodeLimits) -> Listing:
    """Read all packets of `video`.

    Raises:
        Undecodable: there is none that holds a frame.
        OverLimit: more packets than frames are allowed, or longer between their timestamps.
    """
    lister = _Lister(video)
    for number, packet in enumerate(video.packets(), start=1):
        limits.check_frames(number)
        lister.add(packet)
    if lister.timestamps:
        ticks = max(lister.timestamps) - min(lister.timestamps)
        limits.check_duration(float(ticks * video.time_base))
    if not lister.frames:
        raise Undecodable("the video holds no frame")
    return lister.listing()


class _Lister:
    """Goes through the packets; gives up on a table, but not on the packets, at the first that bars one."""

    def __init__(self, video: OpenVideo) -> None:
        self._video = video
        self._rows: list[Row] = []
        self._packets: list[Packet] | None = []
        self._bytes = 0
        self._problem = ""
        self._reader: Reader | None = None
        self.frames = 0
        self.timestamps: list[int] = []
        try:
            self._reader = reader_for(video.codec, video.header)
        except Unplannable as exc:
            self._problem = str(exc)

    def add(self, packet: Packet) -> None:
        """Take the next packet."""
        if self._video.shows_frame(packet):
            self.frames += 1
            if packet.pts is not None:
                self.timestamps.append(packet.pts)
        self._keep(packet)
        if self._reader:
            try:
                self._rows.append(_row(packet, self._reader))
            except Unplannable as exc:
                self._problem, self._reader = str(exc), None

    def _keep(self, packet: Packet) -> None:
        self._bytes += packet.size
        if self._bytes > KEPT_BYTES:
            self._packets = None
        if self._packets is not None:
            self._packets.append(packet)

    def listing(self) -> Listing:
        """What was found."""
        table = None
        if self._reader:
            try:
                table = self._table(self._reader)
            except Unplannable as exc:
                self._problem = str(exc)
        return Listing(
            table=table,
            problem=self._problem,
            frames=len(table.frames) if table else self.frames,
            timestamps=tuple(sorted(self.timestamps)),
            packets=self._packets if table else None,
            independent=bool(self._reader and self._reader.independent),
            thinner=self._reader.thinner() if self._reader else None,
            pixels=self._video.width * self._video.height,
        )

    def _table(self, reader: Reader) -> Table:
        if self._video.cut_short:
            raise Unplannable("a file that breaks off")
        return Table(self._rows, reader.reorder_depth())


def _row(packet: Packet, reader: Reader) -> Row:
    if packet.pts is None:
        raise Unplannable("packets without a timestamp")
    if packet.is_corrupt:
        raise Unplannable("damaged packets")
    if isinstance(reader, IntraReader) and not packet.is_keyframe:
        raise Unplannable("pictures that refer to others, in a codec where they should not")
    return Row(
        pts=packet.pts,
        dts=packet.dts,
        size=packet.size,
        position=packet.pos,
        keyframe=packet.is_keyframe,
        discard=packet.is_discard,
        coded=reader.read(memoryview(packet)),
    )
