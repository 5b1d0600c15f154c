"""Facts about packets that are known before decoding, and the protocol of the readers that find them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from enum import IntEnum
from typing import NamedTuple, Protocol, TypeAlias


class Unplannable(Exception):
    """The packets do not tell which frames they decode to, so the whole video has to be decoded.

    This is not an error in the video: it is true of many intact files.
    """


class RandomAccess(IntEnum):
    """Whether decoding can start at a packet.

    At an open random access point decoding can start, but the leading pictures (later in the file, shown
    earlier) may refer to pictures before it. A closed one resets the decoder: no later picture depends on
    an earlier one.
    """

    NONE = 0
    OPEN = 1
    CLOSED = 2


class PacketInfo(NamedTuple):
    """The properties of one packet.

    Attributes:
        display_order: The decoder outputs frames in ascending order of this number, over the whole stream.
        random_access: Whether decoding can start here.
        shown: Whether the packet outputs a frame; other packets only serve as references.
        layer: Temporal layer. Pictures only refer to pictures of the same or lower layers.
        is_reference: Whether pictures of the same layer may refer to it.
    """

    display_order: int
    random_access: RandomAccess = RandomAccess.NONE
    shown: bool = True
    layer: int = 0
    is_reference: bool = True


PacketRewrite: TypeAlias = Callable[[memoryview], bytes]
"""Returns the packet with other headers and the same picture; raises `Unplannable` if it no longer fits."""


class ReferencePruner(Protocol):
    """Finds reference pictures that the wanted frames do not depend on."""

    def prune(
        self, packets: Iterable[tuple[int, memoryview]], targets: Collection[int]
    ) -> Mapping[int, PacketRewrite | None]:
        """Return the numbers of the packets to keep, each with the rewrite it needs once the rest is dropped.

        Args:
            packets: Packets to decode with their numbers; the first one resets the decoder.
            targets: Numbers of the packets whose frames are wanted.

        Raises:
            Unplannable: The references cannot be followed.
        """
        ...


class PacketReader(Protocol):
    """Reads the packets of one stream, each once, in file order."""

    @property
    def independent(self) -> bool:
        """Whether a decoder can decode the groups read so far in any order."""
        ...

    def read(self, packet: memoryview) -> PacketInfo:
        """Describe the next packet.

        Raises:
            Unplannable: The packet cannot be described, so the stream cannot be planned.
        """
        ...

    def reorder_depth(self) -> int | None:
        """Number of frames that the decoder holds back for reordering; None if undeclared."""
        ...

    def pruner(self) -> ReferencePruner | None:
        """Return the pruner for the packets read so far; None if the codec has none."""
        ...


class WithoutPruner:
    """Base of readers whose codec has no reference pruner."""

    def pruner(self) -> None:
        """Return None: there is no pruner."""
        return


class InOrderReader(WithoutPruner):
    """Base of readers for codecs that output frames in packet order and hold none back."""

    independent = True

    def __init__(self) -> None:
        self._packets = 0

    def reorder_depth(self) -> int | None:
        """No frame is held back."""
        return 0

    def _next_order(self) -> int:
        """Return the display order of the next packet."""
        self._packets += 1
        return self._packets
