"""Leaves out of a plan's runs what no wanted frame really depends on, where the packets tell.

The plan goes by classes of pictures; slice headers tell more (`service.clip.bitstream.h264_references`), but
to read them whole takes time, so that only those are read that would be decoded, and if few are wanted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import av

from service.clip.bitstream.coded import Rewriting, Thinner, Unplannable
from service.clip.packets import Listing, Packet
from service.clip.plan import Run, Table

# The part of the packets to decode that may be wanted for it to pay: more wanted frames hardly leave a
# picture that none of them depends on.
MOST_WANTED = 0.3


class Packets(Protocol):
    """Packets by their numbers, to be asked for in rising order within a run."""

    def __getitem__(self, number: int, /) -> Packet:
        """The packet with a number."""
        ...


@dataclass(frozen=True)
class Thinned:
    """Packets, some with other headers."""

    packets: Sequence[Packet]
    rewritings: Mapping[int, Rewriting]

    def __getitem__(self, number: int, /) -> Packet:
        """See `Packets`.

        Raises:
            Unplannable: it cannot be rewritten.
        """
        packet = self.packets[number]
        rewriting = self.rewritings.get(number)
        return rewritten(packet, rewriting) if rewriting else packet


def thin(runs: Sequence[Run], table: Table, listing: Listing) -> tuple[list[Run], Packets | None]:
    """The runs without what is not needed, and where to take their packets; None: the file."""
    packets, thinner = listing.packets, listing.thinner
    wanted = sum(len(run.targets) for run in runs) / sum(len(run.packets) for run in runs)
    if packets is None or not thinner or wanted > MOST_WANTED:
        return list(runs), packets
    thinned: list[Run] = []
    rewritings: dict[int, Rewriting] = {}
    for run in runs:
        needed = _needed(run, packets, thinner)
        thinned.append(run if needed is None else table.thinned(run, needed))
        rewritings.update((number, how) for number, how in (needed or {}).items() if how)
    return thinned, Thinned(packets, rewritings)


def _needed(run: Run, packets: Sequence[Packet], thinner: Thinner) -> Mapping[int, Rewriting | None] | None:
    """What of a run is needed; None: all of it, as it is."""
    try:
        needed = thinner.thin(((number, memoryview(packets[number])) for number in run.packets), run.targets)
    except Unplannable:  # the plan stands
        return None
    # A copy cannot be marked as cut off by an edit list.
    can_be_written = not any(how and packets[number].is_discard for number, how in needed.items())
    return needed if len(needed) < len(run.packets) and can_be_written else None


def rewritten(packet: Packet, rewriting: Rewriting) -> Packet:
    """A packet with other headers.

    Raises:
        Unplannable: it cannot be rewritten.
    """
    copy = cast(Packet, av.Packet(rewriting.of(memoryview(packet))))
    copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
    copy.time_base, copy.is_keyframe = packet.time_base, packet.is_keyframe
    for data in packet.iter_sidedata():
        copy.set_sidedata(data)
    return copy
