"""Drop reference pictures that the wanted frames do not depend on from the runs of a plan.

A plan keeps every picture that others may refer to. Slice headers tell which pictures others do refer to
(`service.clip.bitstream.h264.pruner`). Reading complete slice headers takes time, so only the headers of
planned packets are read, and only if few frames are wanted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import av

from service.clip.bitstream.packet_info import PacketRewrite, Unplannable
from service.clip.decoding.packets import Packet, Packets, PacketScan
from service.clip.decoding.plan import PacketIndex, PacketRun

# Share of wanted frames among the planned packets above which pruning is skipped: hardly any reference
# picture is then unneeded.
MAX_WANTED_SHARE = 0.3


@dataclass(frozen=True)
class RewrittenPackets:
    """`Packets`, some of them with rewritten headers."""

    packets: Sequence[Packet]
    rewrites: Mapping[int, PacketRewrite]

    def __getitem__(self, number: int, /) -> Packet:
        packet = self.packets[number]
        rewrite = self.rewrites.get(number)
        if rewrite is None:
            return packet
        copy = cast(Packet, av.Packet(rewrite(memoryview(packet))))
        copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
        copy.time_base, copy.is_keyframe = packet.time_base, packet.is_keyframe
        for data in packet.iter_sidedata():
            copy.set_sidedata(data)
        return copy


def prune_runs(
    runs: Sequence[PacketRun], index: PacketIndex, scan: PacketScan
) -> tuple[list[PacketRun], Packets | None]:
    """Return the runs without unneeded references, and their packets; None if the file must be read again."""
    packets, pruner = scan.packets, scan.pruner
    wanted_share = sum(len(run.targets) for run in runs) / sum(len(run.packets) for run in runs)
    if packets is None or not pruner or wanted_share > MAX_WANTED_SHARE:
        return list(runs), packets
    pruned: list[PacketRun] = []
    rewrites: dict[int, PacketRewrite] = {}
    for run in runs:
        numbered = ((number, memoryview(packets[number])) for number in run.packets)
        try:
            kept = pruner.prune(numbered, run.targets)
        except Unplannable:
            kept = {}  # the references of this run cannot be followed: decode it as planned
        # PyAV cannot mark a copy as discarded by an edit list, so such packets cannot be rewritten.
        can_rewrite = not any(rewrite and packets[number].is_discard for number, rewrite in kept.items())
        if can_rewrite and 0 < len(kept) < len(run.packets):
            pruned.append(index.restricted(run, kept))
            rewrites.update((number, rewrite) for number, rewrite in kept.items() if rewrite)
        else:
            pruned.append(run)
    return pruned, RewrittenPackets(packets, rewrites)
