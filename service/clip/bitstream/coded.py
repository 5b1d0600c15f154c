"""What is to be known of a packet before it is decoded."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from enum import IntEnum
from typing import NamedTuple, Protocol


class Unplannable(Exception):
    """Why one cannot tell what a video's packets decode to; everything then has to be decoded.

    No error of the video's: many sound files are so.
    """


class Entry(IntEnum):
    """Whether decoding can begin at a packet.

    At an open one it can, but for the leading pictures: they follow in the file, are shown earlier, and may
    refer to what came before. A closed one resets the decoder, so that nothing behind it depends on anything
    before it.
    """

    NONE = 0
    OPEN = 1
    CLOSED = 2


class Coded(NamedTuple):
    """One packet, as its codec has it.

    Attributes:
        order: The decoder gives its frames in rising order of this, over the whole stream.
        entry: Whether decoding can begin here.
        shown: Whether it gives a frame; the others are there to be referred to.
        layer: Pictures refer to those of their own and lower layers only; 0 is the lowest.
        referenced: Whether pictures of the same layer may refer to it.
    """

    order: int
    entry: Entry = Entry.NONE
    shown: bool = True
    layer: int = 0
    referenced: bool = True


class Rewriting(Protocol):
    """A packet with other headers, and the same picture."""

    def of(self, packet: memoryview) -> bytes:
        """The packet so.

        Raises:
            Unplannable: it does not fit its container.
        """
        ...


class Thinner(Protocol):
    """Tells which of some packets others do not depend on, though by their class they might."""

    def thin(
        self, packets: Iterable[tuple[int, memoryview]], targets: Collection[int]
    ) -> Mapping[int, Rewriting | None]:
        """Those that are needed, by their numbers, and how each has to be written once the rest is left out.

        Args:
            packets: What to decode, with their numbers; the first resets the decoder.
            targets: The numbers of those whose frames are wanted.

        Raises:
            Unplannable: it cannot be told.
        """
        ...


class Reader(Protocol):
    """Reads the packets of one stream, each once, in the order of the file."""

    @property
    def independent(self) -> bool:
        """Whether a decoder may take the groups read so far in any order, whatever it decoded before."""
        ...

    def read(self, packet: memoryview) -> Coded:
        """What the packet is.

        Raises:
            Unplannable: it cannot be told for this packet, and so not for the stream.
        """
        ...

    def reorder_depth(self) -> int | None:
        """How many frames the decoder holds back to bring them in order, as the stream declares it.

        None if it does not: the decoder then guesses, and may lose frames to the guess.
        """
        ...

    def thinner(self) -> Thinner | None:
        """What tells more of packets that were read; None if nothing does."""
        ...


class NotThinned:
    """What readers share that cannot tell more than the class of a picture."""

    def thinner(self) -> None:
        """See `Reader`."""
        return


class InOrderReader(NotThinned):
    """What readers share whose decoders give frames in the order of the packets, and hold none back."""

    independent = True

    def __init__(self) -> None:
        self._packets = 0

    def reorder_depth(self) -> int | None:
        """See `Reader`."""
        return 0

    def _next(self) -> int:
        """The place of the next packet."""
        self._packets += 1
        return self._packets
