"""Pruning finds the reference pictures that no wanted frame needs and rewrites the headers of the rest."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from service.clip.bitstream.bits import escape, unescape
from service.clip.bitstream.h264 import pruner as h264_pruner
from service.clip.bitstream.h264.picture_buffer import PictureBuffer
from service.clip.bitstream.h264.pruner import H264Pruner
from service.clip.bitstream.h264.reader import SEI, H264Reader
from service.clip.bitstream.h264.slice_header import P_SLICE, read_slice_header, write_slice
from service.clip.bitstream.nal import nal_units
from service.clip.bitstream.packet_info import RandomAccess, Unplannable
from service.clip.decoding import pruning
from service.clip.decoding.clips import decode_video
from service.clip.decoding.container import OpenVideo, open_video
from service.clip.decoding.packets import PacketScan, scan_packets
from service.clip.spec import ClipSpec
from service.clip.video import DecodeLimits
from tests.service.clip.decoding.exactness import ALL, assert_exact
from tests.service.clip.decoding.test_oddities import changed_midway
from tests.support.clips import numbered_clip, remuxed

LIMITS = DecodeLimits()
FRAMES = 60
FEW = 30  # few enough that frame_num, which counts modulo 16, is unique
ONE = "ref=1"


def x264(params: str = ONE, *, container: str = "mp4", frames: int = FRAMES, **changes: Any) -> bytes:
    """One group of pictures that repeats P, a B that is a reference, and two that are not."""
    options = {"preset": "veryfast", "qp": "4", "bf": "3", "b_strategy": "0", "g": "60", "threads": "1"}
    options["x264-params"] = f"scenecut=0:{params}"
    return numbered_clip(frames=frames, container=container, options=options, **changes)


def listed(data: bytes) -> PacketScan:
    with open_video(io.BytesIO(data), LIMITS, peek=False) as video:
        return scan_packets(video, LIMITS)


def pruner_of(scan: PacketScan) -> H264Pruner:
    assert isinstance(scan.pruner, H264Pruner)
    return scan.pruner


def numbered(scan: PacketScan) -> list[tuple[int, memoryview]]:
    assert scan.packets is not None
    return [(number, memoryview(packet)) for number, packet in enumerate(scan.packets)]


def slices(video: OpenVideo) -> Iterator[tuple[bytes, H264Reader]]:
    reader = H264Reader(video.header)
    for packet in video.packets():
        reader.read(memoryview(packet))
        for unit in nal_units(memoryview(packet), 0 if video.container == "mpegts" else 4):
            if unit[0] & 31 in h264_pruner.SLICES:
                yield bytes(unit).rstrip(b"\0"), reader


@pytest.mark.parametrize(
    ("params", "changes"),
    [
        (ONE, {}),
        (ONE, {"container": "ts"}),
        ("cabac=0:slices=3:ref=2", {}),
        ("ref=5:bframes=7:b-pyramid=strict", {}),
        ("ref=4:weightp=2:weightb=1", {}),
        ("ref=4:weightp=2:cabac=0", {"pix_fmt": "gray"}),
        ("no-deblock=1:direct=temporal:ref=3", {"pix_fmt": "yuv444p10le"}),
    ],
)
def test_a_slice_written_with_its_own_references_is_unchanged(params: str, changes: dict[str, Any]) -> None:
    units = 0
    with open_video(io.BytesIO(x264(params, **changes)), LIMITS, peek=False) as video:
        for unit, reader in slices(video):
            pruner = reader.pruner()
            assert pruner
            header = read_slice_header(memoryview(unit), pruner.spss, pruner.ppss)
            assert write_slice(memoryview(unit), header, header.references) == unit
            units += 1
    assert units >= FRAMES


def test_references_that_no_target_needs_are_dropped() -> None:
    """In file order: I, then repeatedly P, B, b, b, of which only P and B are references."""
    scan = listed(x264())
    needed = pruner_of(scan).prune(numbered(scan), {0, 21})
    assert [*needed] == [0, 1, 5, 9, 13, 17, 21]
    assert needed[0] is None  # nothing before it was dropped
    assert needed[1] is None
    assert needed[5] is not None


def test_a_b_picture_keeps_the_references_on_both_sides() -> None:
    scan = listed(x264())
    assert [*pruner_of(scan).prune(numbered(scan), {3})] == [0, 1, 2, 3]


def test_every_picture_in_a_reference_list_is_kept() -> None:
    scan = listed(x264("ref=3"))
    with pytest.raises(Unplannable, match="all reference pictures are used"):
        pruner_of(scan).prune(numbered(scan), {21})
    assert len(pruner_of(scan).prune(numbered(scan)[:10], {9})) >= 5


@pytest.mark.parametrize(
    ("params", "changes", "reason"),
    [
        ("ref=1:bframes=0", {}, "more than plain frames"),
        ("ref=1:interlaced=1", {"height": 96}, "more than plain frames"),
    ],
)
def test_streams_that_cannot_be_followed_are_rejected_with_a_reason(
    params: str, changes: dict[str, Any], reason: str
) -> None:
    scan = listed(x264(params, **changes))
    with pytest.raises(Unplannable, match=reason):
        pruner_of(scan).prune(numbered(scan), {21})


def test_missing_frames_are_detected() -> None:
    scan = listed(x264())
    packets = numbered(scan)
    for gone, reason in ((0, "does not start with an IDR"), (1, "missing"), (2, "missing")):
        with pytest.raises(Unplannable, match=reason):
            pruner_of(scan).prune(packets[:gone] + packets[gone + 1 :], {21})


def test_the_number_of_slices_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h264_pruner, "MAX_SLICES", 100)
    scan = listed(x264())
    pruner_of(scan).prune(numbered(scan), {21})
    with pytest.raises(Unplannable, match="too many slices"):
        pruner_of(scan).prune(numbered(scan), {21})


def test_a_stream_with_changing_parameter_sets_has_no_pruner() -> None:
    assert listed(changed_midway()).pruner is None


def test_a_plan_that_cannot_be_pruned_is_decoded_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    data, spec = x264(), ClipSpec(2, ALL)
    pruned = decode_video(data, spec).effort
    monkeypatch.setattr(pruning, "MAX_WANTED_SHARE", 0.0)
    planned = decode_video(data, spec).effort
    monkeypatch.undo()
    monkeypatch.setattr(h264_pruner, "MAX_SLICES", 0)
    assert decode_video(data, spec).effort == planned
    assert pruned.decoded < planned.decoded
    assert pruned.full_because is planned.full_because is None


def first_frame_kept() -> bytes:
    """A video whose frames always keep the first one, to which the last P refers."""
    data = x264(frames=FEW)
    scan = listed(data)
    pruner, packets = pruner_of(scan), numbered(scan)
    (sps,) = pruner.spss.values()
    pictures = [*pruner.follow(packets, sps)]
    everything = frozenset(number for number, _ in packets)
    memory = PictureBuffer(sps)
    kinds = [picture.headers[0].kind for picture in pictures]
    last = max(number for number, kind in enumerate(kinds) if kind == P_SLICE)
    rewritten: dict[int, bytes] = {}
    ps: list[int] = [0]
    for picture, (number, packet) in zip(pictures, packets, strict=True):
        if kinds[number] == P_SLICE:
            ps.append(number)
        kept = frozenset({0, number, *ps[-2:]})
        lists = (((0,),),) if number == last else picture.lists
        rewrite = pruner.renumber(picture._replace(kept=kept, lists=lists), everything, memory)
        rewritten[number] = rewrite(packet) if rewrite else bytes(packet)
    return remuxed(data, lambda index, _packet: bytearray(rewritten[index]), "mp4")


def test_a_frame_that_is_kept_for_long_is_still_found(monkeypatch: pytest.MonkeyPatch) -> None:
    data = first_frame_kept()
    scan = listed(data)
    pictures = [
        read_slice_header(unit, pruner_of(scan).spss, pruner_of(scan).ppss)
        for _, packet in numbered(scan)
        for unit in nal_units(packet, 4)
        if unit[0] & 31 in h264_pruner.SLICES
    ]
    assert sum(bool(picture.references.removals) for picture in pictures) > FEW // 6
    assert assert_exact(data, monkeypatch).reasons == {None}
    last = max(number for number, picture in enumerate(pictures) if picture.kind == P_SLICE)
    needed = pruner_of(scan).prune(numbered(scan), {last - 8, last})
    assert [*needed] == [0, *range(1, last - 7, 4), last]


def test_recovery_point_is_found_behind_a_message_with_escaped_bytes() -> None:
    with open_video(io.BytesIO(x264("open-gop=1:keyint=12")), LIMITS, peek=False) as video:
        header, packets = video.header, [bytes(packet) for packet in video.packets()]
    usual = accesses(header, packets)
    place = usual.index(RandomAccess.OPEN)
    message, *others = (bytes(unit) for unit in nal_units(memoryview(packets[place]), 4))
    assert message[0] & 31 == SEI
    # A message of type 5 with 240 bytes; each pair of zeros gets an escape byte in the file.
    longer = message[:1] + escape(bytes([5, 240]) + bytes([0, 0, 1]) * 80 + unescape(message[1:]))
    packets[place] = b"".join(len(unit).to_bytes(4, "big") + unit for unit in (longer, *others))
    assert accesses(header, packets) == usual


def accesses(header: bytes, packets: Sequence[bytes]) -> list[RandomAccess]:
    reader = H264Reader(header)
    return [reader.read(memoryview(packet)).random_access for packet in packets]
