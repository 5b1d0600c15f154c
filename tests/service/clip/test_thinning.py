"""Reference pictures that no wanted frame depends on: which they are, and the headers of what is left."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest

from service.clip import thinning
from service.clip.bitstream import h264_references
from service.clip.bitstream.coded import Unplannable
from service.clip.bitstream.h264 import H264Reader
from service.clip.bitstream.h264_references import H264Thinner
from service.clip.bitstream.h264_slices import P_SLICE, read_header, written
from service.clip.bitstream.nal import nal_units
from service.clip.container import OpenVideo, open_video
from service.clip.decode import decode_clip
from service.clip.packets import Listing, list_packets
from service.clip.spec import ClipSpec
from service.clip.video import DecodeLimits
from tests.clips import numbered_clip, remuxed
from tests.service.clip.exactness import ALL, assert_exact
from tests.service.clip.test_oddities import changed_midway

LIMITS = DecodeLimits()
FRAMES = 60
FEW = 30  # so few that no two have the same number, counted modulo 16
ONE = "ref=1"


def x264(params: str = ONE, *, container: str = "mp4", frames: int = FRAMES, **changes: Any) -> bytes:
    """One group of pictures: P, a B that may be referred to, and two that may not, time and again."""
    options = {"preset": "veryfast", "qp": "4", "bf": "3", "b_strategy": "0", "g": "60", "threads": "1"}
    options["x264-params"] = f"scenecut=0:{params}"
    return numbered_clip(frames=frames, container=container, options=options, **changes)


def listed(data: bytes) -> Listing:
    with open_video(io.BytesIO(data), LIMITS, peek=False) as video:
        return list_packets(video, LIMITS)


def thinner_of(listing: Listing) -> H264Thinner:
    assert isinstance(listing.thinner, H264Thinner)
    return listing.thinner


def numbered(listing: Listing) -> list[tuple[int, memoryview]]:
    assert listing.packets is not None
    return [(number, memoryview(packet)) for number, packet in enumerate(listing.packets)]


def slices(video: OpenVideo) -> Iterator[tuple[bytes, H264Reader]]:
    reader = H264Reader(video.header)
    for packet in video.packets():
        reader.read(memoryview(packet))
        for unit in nal_units(memoryview(packet), 0 if video.container == "mpegts" else 4):
            if unit[0] & 31 in h264_references.SLICES:
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
def test_a_header_written_with_its_own_references_is_what_it_was(
    params: str, changes: dict[str, Any]
) -> None:
    units = 0
    with open_video(io.BytesIO(x264(params, **changes)), LIMITS, peek=False) as video:
        for unit, reader in slices(video):
            thinner = reader.thinner()
            assert thinner
            header = read_header(memoryview(unit), thinner._spss, thinner._ppss)
            assert written(memoryview(unit), header, header.references) == unit
            units += 1
    assert units >= FRAMES


def test_what_no_target_depends_on_is_left_out() -> None:
    """In the order of the file: I, then P, B that may be referred to, b, b; each refers to its neighbours."""
    listing = listed(x264())
    needed = thinner_of(listing).thin(numbered(listing), {0, 21})
    assert [*needed] == [0, 1, 5, 9, 13, 17, 21]
    assert needed[0] is None  # nothing was left out before it
    assert needed[1] is None
    assert needed[5] is not None


def test_a_target_between_keeps_both_that_it_lies_between() -> None:
    listing = listed(x264())
    assert [*thinner_of(listing).thin(numbered(listing), {3})] == [0, 1, 2, 3]


def test_all_are_kept_that_a_longer_list_holds() -> None:
    listing = listed(x264("ref=3"))
    with pytest.raises(Unplannable, match="all referred to"):
        thinner_of(listing).thin(numbered(listing), {21})
    assert len(thinner_of(listing).thin(numbered(listing)[:10], {9})) >= 5


@pytest.mark.parametrize(
    ("params", "changes", "reason"),
    [
        ("ref=1:bframes=0", {}, "another kind"),
        ("ref=1:interlaced=1", {"height": 96}, "another kind"),
    ],
)
def test_what_is_not_followed_says_why(params: str, changes: dict[str, Any], reason: str) -> None:
    listing = listed(x264(params, **changes))
    with pytest.raises(Unplannable, match=reason):
        thinner_of(listing).thin(numbered(listing), {21})


def test_frames_that_are_missing_are_noticed() -> None:
    listing = listed(x264())
    packets = numbered(listing)
    for gone, reason in ((0, "before the first"), (1, "missing"), (2, "missing")):
        with pytest.raises(Unplannable, match=reason):
            thinner_of(listing).thin(packets[:gone] + packets[gone + 1 :], {21})


def test_work_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h264_references, "MOST_SLICES", 100)
    listing = listed(x264())
    thinner_of(listing).thin(numbered(listing), {21})
    with pytest.raises(Unplannable, match="too many slices"):
        thinner_of(listing).thin(numbered(listing), {21})


def test_a_stream_that_changes_its_parameters_is_left_as_planned() -> None:
    assert listed(changed_midway()).thinner is None


def test_a_plan_that_cannot_be_thinned_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    data, spec = x264(), ClipSpec(2, ALL)
    thinned = decode_clip(data, spec).effort
    monkeypatch.setattr(thinning, "MOST_WANTED", 0.0)
    planned = decode_clip(data, spec).effort
    monkeypatch.undo()
    monkeypatch.setattr(h264_references, "MOST_SLICES", 0)
    assert decode_clip(data, spec).effort == planned
    assert thinned.decoded < planned.decoded
    assert thinned.full_because is planned.full_because is None


def hoarding() -> bytes:
    """A clip whose frames say which others to keep: always the first one, to which the last P refers."""
    data = x264(frames=FEW)
    listing = listed(data)
    thinner, packets = thinner_of(listing), numbered(listing)
    (sps,) = thinner._spss.values()
    pictures = [*thinner._followed(packets, h264_references._Memory(sps))]
    everything = frozenset(number for number, _ in packets)
    memory = h264_references._Memory(sps)
    kinds = [picture.headers[0].kind for picture in pictures]
    last = max(number for number, kind in enumerate(kinds) if kind == P_SLICE)
    rewritten: dict[int, bytes] = {}
    ps: list[int] = [0]
    for picture, (number, packet) in zip(pictures, packets, strict=True):
        if kinds[number] == P_SLICE:
            ps.append(number)
        kept = frozenset({0, number, *ps[-2:]})
        lists = (((0,),),) if number == last else picture.lists
        rewriting = thinner._counted_anew(picture._replace(kept=kept, lists=lists), everything, memory)
        rewritten[number] = rewriting.of(packet) if rewriting else bytes(packet)
    return remuxed(data, lambda index, _packet: bytearray(rewritten[index]), "mp4")


def test_a_frame_that_is_kept_for_long_stays_where_it_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    data = hoarding()
    listing = listed(data)
    pictures = [
        read_header(unit, thinner_of(listing)._spss, thinner_of(listing)._ppss)
        for _, packet in numbered(listing)
        for unit in nal_units(packet, 4)
        if unit[0] & 31 in h264_references.SLICES
    ]
    assert sum(bool(picture.references.removals) for picture in pictures) > FEW // 6
    assert assert_exact(data, monkeypatch).reasons == {None}
    last = max(number for number, picture in enumerate(pictures) if picture.kind == P_SLICE)
    needed = thinner_of(listing).thin(numbered(listing), {last - 8, last})
    assert [*needed] == [0, *range(1, last - 7, 4), last]
