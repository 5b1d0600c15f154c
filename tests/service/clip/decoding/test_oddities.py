"""Planned decoding returns the pixels of a full decode, in many containers, codecs and timings."""

from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av
import pytest

from service.clip.decoding import packets
from service.clip.decoding.clips import decode_video
from service.clip.decoding.container import OpenVideo, open_video
from service.clip.sampling import uniform_indices
from service.clip.spec import ClipSpec
from service.clip.video import DecodeLimits
from tests.service.clip.decoding.exactness import ALL, assert_exact
from tests.service.clip.decoding.odd_clips import (
    hidden_vp8,
    joined_midway,
    repeated_by_edit_list,
    superframes,
)
from tests.service.clip.decoding.undeclared import without_reorder_depth
from tests.service.clip.fields import field_coded_clip
from tests.support.clips import ClipRecipe, audio_clip, numbered_clip, read_numbers, remuxed

X264 = {"preset": "veryfast", "qp": "4", "bf": "3", "b_strategy": "0", "g": "12", "threads": "1"}
NO_B = X264 | {"bf": "0"}
LONG = X264 | {"g": "60"}
FIXED = "scenecut=0:"
ONE = "ref=1:"  # many reference pictures are then used by none of the kept ones
X265 = "log-level=none:pools=none:keyint=12:min-keyint=12:scenecut=0:"
EVERYDAY: dict[str, Any] = {"frames": 60}
STILL = {"width": 352, "height": 288}  # smaller pictures leave this encoder nothing to code


def h264(container: str = "mp4", *, params: str = "", **changes: Any) -> Callable[[], bytes]:
    options = changes.pop("options", X264) | {"x264-params": FIXED + params}
    return lambda: numbered_clip(
        ClipRecipe(**EVERYDAY | {"container": container, "options": options} | changes)
    )


def hevc(container: str = "mp4", *, params: str = "") -> Callable[[], bytes]:
    options = {"preset": "veryfast", "x265-params": X265 + "lossless=1:" + params}
    return lambda: numbered_clip(frames=60, codec="libx265", container=container, options=options)


def coded(container: str, codec: str, **changes: Any) -> Callable[[], bytes]:
    return lambda: numbered_clip(ClipRecipe(**EVERYDAY | {"container": container, "codec": codec} | changes))


def late(container: str) -> Callable[[], bytes]:
    """The first timestamp is one hour."""
    return h264(
        container,
        times=tuple(range(90_000, 90_060)),
        time_base=Fraction(1, 25),
        container_options={"avoid_negative_ts": "disabled"},
    )


def trimmed(options: dict[str, str]) -> Callable[[], bytes]:
    """An edit list cuts off the first 17 frames, more than a group of pictures."""
    return h264(
        options=options,
        times=tuple(range(-17, 43)),
        time_base=Fraction(1, 25),
        container_options={"avoid_negative_ts": "disabled", "use_editlist": "1"},
    )


def uneven(container: str, codec: str = "libx264", **changes: Any) -> Callable[[], bytes]:
    times = tuple(int(1000 * (index / 30 if index < 20 else 5 + index / 10)) for index in range(60))
    return coded(container, codec, times=times, time_base=Fraction(1, 1000), **changes)


def joined(*parts: bytes) -> bytes:
    """Concatenate transport streams of 30 frames, with continuing timestamps."""
    file = io.BytesIO()
    with av.open(file, "w", format="mpegts") as target:
        stream = None
        for number, part in enumerate(parts):
            with av.open(io.BytesIO(part), "r") as source:
                template = source.streams.video[0]
                stream = stream or target.add_stream_from_template(template)
                for index, packet in enumerate(one for one in source.demux(template) if one.size):
                    copy = av.Packet(bytes(memoryview(packet)))
                    copy.stream, copy.time_base = stream, Fraction(1, 25)
                    copy.pts = copy.dts = 30 * number + index
                    copy.is_keyframe = packet.is_keyframe
                    target.mux(copy)
    return file.getvalue()


def grown() -> bytes:
    """The frames become larger in the middle."""
    small, large = (
        h264("ts", options=NO_B, frames=30, width=width, height=height)()
        for width, height in ((96, 64), (128, 96))
    )
    return joined(small, large)


def without_pts(data: bytes, container: str) -> bytes:
    """Replace the presentation timestamps by decoding timestamps."""
    file = io.BytesIO()
    with av.open(io.BytesIO(data), "r") as source, av.open(file, "w", format=container) as target:
        template = source.streams.video[0]
        stream = target.add_stream_from_template(template)
        for index, packet in enumerate(packet for packet in source.demux(template) if packet.size):
            copy = av.Packet(bytes(memoryview(packet)))
            copy.stream, copy.time_base, copy.is_keyframe = stream, Fraction(1, 25), packet.is_keyframe
            copy.pts = copy.dts = index
            target.mux(copy)
    return file.getvalue()


def with_sound(container: str) -> bytes:
    """Interleave packets of sound with those of the video."""
    file = io.BytesIO()
    with (
        av.open(io.BytesIO(h264("ts")()), "r") as picture,
        av.open(io.BytesIO(audio_clip("mp4", "aac")), "r") as sound,
        av.open(file, "w", format=container) as target,
    ):
        sources = (picture.streams.video[0], sound.streams.audio[0])
        streams = [target.add_stream_from_template(source) for source in sources]
        parts: list[Any] = [*picture.demux(video=0), *sound.demux(audio=0)]
        for packet in sorted((one for one in parts if one.size), key=lambda one: one.dts * one.time_base):
            packet.stream = streams[packet.stream.type == "audio"]
            target.mux(packet)
    return file.getvalue()


def told_once(data: bytes) -> bytes:
    """Keep only the parameter sets of the first packet of each of two concatenated streams.

    The other groups start with a keyframe but cannot be decoded without that packet.
    """
    return remuxed(
        data,
        lambda index, packet: packet if index in {0, 30} else without_parameters(packet),
        "matroska",
    )


def without_parameters(packet: bytearray) -> bytearray:
    """Remove the parameter sets from a packet of H.264."""
    units = [unit.rstrip(b"\0") for unit in bytes(packet).split(b"\0\0\1")]
    return bytearray(b"".join(b"\0\0\0\1" + unit for unit in units if unit and unit[0] & 31 not in {7, 8}))


def changed_midway() -> bytes:
    """Two encodings of the same size whose different parameter sets have the same number.

    A decoder that has seen the second has lost those of the first, which only its first packet brings.
    """
    parts = (
        h264("ts", options=NO_B | {"qp": qp, "profile": profile}, frames=30)()
        for qp, profile in (("4", "baseline"), ("30", "high"))
    )
    return told_once(joined(*parts))


def several_to_a_packet(options: dict[str, str]) -> bytes:
    """Write a transport stream in which only every third picture has a timestamp."""
    file = io.BytesIO()
    waiting: list[Any] = []
    with (
        av.open(io.BytesIO(h264("ts", options=options)()), "r") as source,
        av.open(file, "w", "mpegts") as target,
    ):
        template = source.streams.video[0]
        stream = target.add_stream_from_template(template)
        for packet in (packet for packet in source.demux(template) if packet.size):
            waiting.append(packet)
            if len(waiting) == 3:
                joined = av.Packet(b"".join(bytes(memoryview(part)) for part in waiting))
                joined.stream, joined.time_base = stream, packet.time_base
                joined.pts, joined.dts = waiting[0].pts, waiting[0].dts
                joined.is_keyframe = waiting[0].is_keyframe
                target.mux(joined)
                waiting.clear()
    return file.getvalue()


def undeclared(container: str, params: str = "", *, options: dict[str, str] = X264) -> Callable[[], bytes]:
    """B-frames without a declared reorder depth."""
    return lambda: without_reorder_depth(h264("ts", options=options, params=params)(), container=container)


def with_empty_unit(data: bytes, container: str) -> bytes:
    """Start packet 30 with a NAL unit of length 0, for which FFmpeg drops the whole packet."""
    return remuxed(data, lambda index, packet: bytearray(4) + packet if index == 30 else packet, container)


PYRAMID = "b-pyramid=normal:ref=4:bframes=7:"


def deeper_midway(container: str) -> Callable[[], bytes]:
    """The first 30 frames have no B-frames, the last 30 a pyramid; the reorder depth is undeclared."""
    parts = [
        h264("ts", options=options, params=params, frames=30)
        for options, params in ((NO_B, "ref=4:"), (X264, PYRAMID))
    ]
    return lambda: without_reorder_depth(*(part() for part in parts), container=container)


def fields(container: str, *, packet_per_field: bool = False) -> Callable[[], bytes]:
    return lambda: field_coded_clip(60, container=container, packet_per_field=packet_per_field)


# Videos that are planned, each with the number of packets that 2 sampled frames must save at least.
PLANNED: dict[str, tuple[Callable[[], bytes], int]] = {
    "mp4 H.264, B-frames": (h264(), 40),
    "mp4 H.264, no B-frames": (h264(options=NO_B), 36),
    "mp4 H.264, B pyramid": (h264(params="b-pyramid=normal:ref=4:bframes=7:"), 40),
    "mp4 H.264, one group": (h264(options=X264 | {"g": "250"}), 30),
    "mp4 H.264, all intra": (h264(options=NO_B | {"g": "1"}), 56),
    "mp4 H.264, one reference": (h264(options=LONG, params=ONE), 43),
    "mp4 H.264, one reference, strict pyramid": (h264(options=LONG, params=ONE + "b-pyramid=strict:"), 43),
    "mp4 H.264, one reference, seven B-frames": (h264(options=LONG, params=ONE + "bframes=7:"), 49),
    "mp4 H.264, one reference, no arithmetic coding": (h264(options=LONG, params=ONE + "cabac=0:"), 43),
    "mp4 H.264, one reference, four slices": (h264(options=LONG, params=ONE + "slices=4:cabac=0:"), 43),
    "mp4 H.264, one reference, temporal direct": (h264(options=LONG, params=ONE + "direct=temporal:"), 43),
    "mp4 H.264, one reference, weights": (h264(options=LONG, params=ONE + "weightb=1:weightp=2:"), 43),
    "mp4 H.264, one reference, 10 bit": (h264(options=LONG, params=ONE, pix_fmt="yuv420p10le"), 43),
    "mp4 H.264, one reference, groups": (h264(params=ONE), 50),
    "mp4 H.264, one reference, open GOP": (h264(params=ONE + "open-gop=1:"), 20),
    "mp4 H.264, one reference, trimmed": (trimmed(LONG | {"x264-params": FIXED + ONE}), 25),
    "ts H.264, one reference": (h264("ts", options=LONG, params=ONE), 43),
    "mkv H.264, one reference": (h264("mkv", options=LONG, params=ONE), 43),
    "mp4 H.264, two references": (h264(options=LONG, params="ref=2:"), 33),
    "mp4 H.264, four slices a picture": (h264(params="slices=4:"), 40),
    "mp4 H.264, MBAFF": (h264(params="interlaced=1:", height=96), 36),
    "mp4 H.264, fields, two to a packet": (fields("mp4"), 40),
    "mkv H.264, fields, two to a packet": (fields("matroska"), 40),
    "mp4 H.264, intra refresh": (h264(options=NO_B, params="intra-refresh=1:"), 10),
    "mkv H.264, cut off": (lambda: h264("mkv")()[:-300], 30),
    "ts H.264, with sound": (lambda: with_sound("mpegts"), 40),
    "mkv H.264, with sound": (lambda: with_sound("matroska"), 40),
    "mkv H.264, parameters change, told once": (changed_midway, 20),
    "mkv H.264, size changes, told once": (lambda: told_once(grown()), 10),
    "mp4 H.264, one frame": (h264(frames=1), 0),
    "mp4 H.264, two frames": (h264(frames=2), 0),
    "mp4 H.264, lossless": (h264(options=X264 | {"qp": "0"}), 40),
    "mp4 H.264, 4:4:4 of 10 bit": (h264(pix_fmt="yuv444p10le"), 40),
    "mp4 H.264, weighted prediction": (h264(params="weightp=2:weightb=1:ref=3:"), 40),
    "mp4 H.264, open GOP": (h264(params="open-gop=1:"), 20),
    "mp4 H.264, fragmented": (h264(container_options={"movflags": "frag_keyframe+empty_moov"}), 40),
    "mp4 H.264, index first": (h264(container_options={"movflags": "faststart"}), 40),
    "mp4 H.264, trimmed": (trimmed(X264), 25),
    "mp4 H.264, trimmed, no B-frames": (trimmed(NO_B), 20),
    "mp4 H.264, repeated by an edit list": (lambda: repeated_by_edit_list(h264(options=NO_B)(), 3), 120),
    "mp4 H.264, turned": (h264(rotation=90), 40),
    "mp4 H.264, variable rate": (uneven("mp4", options=X264), 20),
    "mov H.264": (h264("mov"), 40),
    "mp4 H.264, reorder depth undeclared": (undeclared("mp4"), 40),
    "mov H.264, reorder depth undeclared": (undeclared("mov"), 40),
    "mkv H.264, reorder depth undeclared": (undeclared("matroska"), 40),
    "ts H.264, reorder depth undeclared": (undeclared("mpegts"), 40),
    "mov H.264, reorder depth undeclared, B pyramid": (undeclared("mov", PYRAMID), 40),
    "mkv H.264, reorder depth undeclared, B pyramid": (undeclared("matroska", PYRAMID), 40),
    "ts H.264, reorder depth undeclared, B pyramid": (undeclared("mpegts", PYRAMID), 40),
    "mov H.264, reorder depth undeclared, open GOP": (undeclared("mov", "open-gop=1:"), 20),
    "mov H.264, reorder depth undeclared, one reference": (undeclared("mov", ONE, options=LONG), 43),
    "mkv H.264, reorder depth undeclared, one reference": (undeclared("matroska", ONE, options=LONG), 43),
    "mkv H.264, reorder depth undeclared, no B-frames": (undeclared("matroska", options=NO_B), 36),
    "mov H.264, reorder depth undeclared and growing": (deeper_midway("mov"), 20),
    "mkv H.264": (h264("mkv"), 40),
    "mkv H.264, open GOP": (h264("mkv", params="open-gop=1:"), 20),
    "mkv H.264, variable rate": (uneven("mkv", options=X264), 20),
    "mkv H.264, an hour late": (late("mkv"), 40),
    "ts H.264": (h264("ts"), 40),
    "ts H.264, an hour late": (late("ts"), 40),
    "ts H.264, size changes": (grown, 20),
    "flv H.264": (h264("flv"), 40),
    "flv H.264, an hour late": (late("flv"), 40),
    "avi H.264, no B-frames": (h264("avi", options=NO_B), 36),
    "mp4 HEVC": (hevc(params="open-gop=0:bframes=3:"), 36),
    "mp4 HEVC, open GOP": (hevc(params="open-gop=1:bframes=3:"), 20),
    "mp4 HEVC, B pyramid": (hevc(params="open-gop=0:bframes=7:b-pyramid=1:ref=4:"), 36),
    "mp4 HEVC, temporal layers": (hevc(params="open-gop=0:bframes=3:temporal-layers=3:"), 36),
    "mp4 HEVC, intra": (hevc(params="keyint=1:"), 56),
    "mkv HEVC": (hevc("mkv", params="open-gop=0:bframes=3:"), 36),
    "ts HEVC, open GOP": (hevc("ts", params="open-gop=1:bframes=3:"), 20),
    "webm VP8": (coded("webm", "libvpx", options={"g": "12", "keyint_min": "12"}), 30),
    "webm VP8, hidden frames": (hidden_vp8, 0),
    "webm VP8, alternate reference frames": (
        coded(
            "webm",
            "libvpx",
            options={"deadline": "good", "auto-alt-ref": "1", "lag-in-frames": "16", "g": "24"},
        ),
        0,
    ),
    "webm VP9": (coded("webm", "libvpx-vp9", options={"g": "12", "keyint_min": "12"}), 30),
    "webm VP9, hidden frames": (
        coded(
            "webm",
            "libvpx-vp9",
            options={"deadline": "good", "auto-alt-ref": "1", "lag-in-frames": "16", "g": "24"},
        ),
        12,
    ),
    "webm VP9, variable rate": (uneven("webm", "libvpx-vp9", options={"g": "12", "keyint_min": "12"}), 20),
    "mp4 AV1": (coded("mp4", "libsvtav1", width=128, height=96, options={"g": "12"}), 20),
    "mkv AV1": (coded("mkv", "libsvtav1", width=128, height=96, options={"g": "12"}), 20),
    "ts MPEG-2": (coded("ts", "mpeg2video", options={"g": "12", "bf": "2"}), 30),
    "ts MPEG-2, no B-frames": (coded("ts", "mpeg2video", options={"g": "12"}), 30),
    "mpeg MPEG-2": (coded("mpeg", "mpeg2video", options={"g": "12", "bf": "2"}), 30),
    "mpeg MPEG-1": (
        coded("mpeg", "mpeg1video", options={"g": "12", "bf": "2", "qscale": "2", "flags": "qscale"}),
        30,
    ),
    "mp4 MPEG-4": (coded("mp4", "mpeg4", options={"g": "12"}), 30),
    "mp4 MPEG-4, B-frames": (coded("mp4", "mpeg4", options={"g": "12", "bf": "2"}), 30),
    "mkv MPEG-4, B-frames": (coded("mkv", "mpeg4", options={"g": "12", "bf": "2"}), 30),
    "avi MPEG-4": (coded("avi", "mpeg4", options={"g": "12"}), 30),
    "avi Motion JPEG": (coded("avi", "mjpeg", pix_fmt="yuvj420p"), 56),
    "mov Motion JPEG": (coded("mov", "mjpeg", pix_fmt="yuvj420p"), 56),
    "mov ProRes": (coded("mov", "prores_ks", pix_fmt="yuv422p10le"), 56),
    "mkv FFV1": (coded("mkv", "ffv1", pix_fmt="bgr0", options={"g": "1"}), 56),
    "odd sizes": (
        coded("webm", "libvpx-vp9", width=97, height=65, options={"g": "12", "keyint_min": "12"}),
        30,
    ),
}


@pytest.mark.parametrize("kind", PLANNED)
def test_planned_frames_are_those_of_a_full_decode(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, dropped = PLANNED[kind]
    found = assert_exact(make(), monkeypatch)
    assert found.reasons == {None}
    assert found.dropped["2 frames"] >= dropped


@pytest.mark.parametrize("kind", [kind for kind in PLANNED if "size" not in kind and "cut" not in kind])
def test_planned_frames_show_their_numbers(kind: str) -> None:
    clip = decode_video(PLANNED[kind][0](), ClipSpec(5, ALL))
    shown, meant = read_numbers(clip.inputs["frames"][0]), uniform_indices(clip.video.frames, 5)
    if "trimmed" in kind:
        meant = tuple(index + 60 - clip.video.frames for index in meant)
    if "told once" in kind or "growing" in kind:
        meant = tuple(index % 30 for index in meant)
    if "repeated" in kind:
        meant = tuple(index % 60 for index in meant)
    if "hidden" not in kind or "VP8" not in kind:
        assert tuple(shown) == meant


# Videos that are decoded in full, and the reason.
UNPLANNED: dict[str, tuple[Callable[[], bytes], str]] = {
    "gif": (coded("gif", "gif", pix_fmt="rgb8"), "packets of this codec are not read"),
    "avi raw": (coded("avi", "rawvideo", pix_fmt="bgr24"), "packets of this codec are not read"),
    "flv Sorenson": (coded("flv", "flv1", **STILL), "packets of this codec are not read"),
    "mkv FFV1, frames that refer to others": (
        coded("mkv", "ffv1", pix_fmt="bgr0", options={"g": "12", "level": "1", "context": "1"}),
        "a picture of an intra-only codec refers to others",
    ),
    "avi H.264, B-frames": (h264("avi"), "timestamps do not ascend in display order"),
    "mp4 H.264, decoding for presentation timestamps": (
        lambda: without_pts(h264()(), "mp4"),
        "timestamps do not ascend in display order",
    ),
    "ts H.264, B-frames, times missing": (
        lambda: several_to_a_packet(X264),
        "a packet has no timestamp",
    ),
    "ts H.264, times missing": (lambda: several_to_a_packet(NO_B), "a packet has no timestamp"),
    "ts H.264, a packet for each field": (
        fields("mpegts", packet_per_field=True),
        "fields are in separate packets",
    ),
    "MPEG-1 in no container": (coded("mpeg1video", "mpeg1video", frames=5), "a packet has no timestamp"),
    "H.264 in no container": (h264("h264"), "a packet has no timestamp"),
    "webm VP9, two frames a packet": (superframes, "a packet has several pictures"),
    "ts H.264, joined midway": (joined_midway, "the stream does not start with a keyframe"),
    "mp4 H.264, an empty NAL unit": (
        lambda: with_empty_unit(h264(options=NO_B)(), "mp4"),
        "a NAL unit is empty",
    ),
    "mp4 HEVC, an empty NAL unit": (lambda: with_empty_unit(hevc()(), "mp4"), "a NAL unit is empty"),
    "mkv H.264, reorder depth undeclared and growing": (
        deeper_midway("matroska"),
        "the reorder depth grows and is not declared",
    ),
    "mp4 H.264, two streams in a row": (
        lambda: h264("ts")() + h264("ts", width=128)(),
        "timestamps do not ascend in display order",
    ),
}


@pytest.mark.parametrize("kind", UNPLANNED)
def test_a_video_that_cannot_be_planned_is_decoded_in_full_for_the_stated_reason(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, reason = UNPLANNED[kind]
    found = assert_exact(make(), monkeypatch)
    assert found.reasons == {reason}
    assert set(found.dropped.values()) == {0}


def test_lost_frames_are_detected_and_lead_to_a_full_decode(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A decoder that has to guess the reorder depth drops frames at first."""
    monkeypatch.setattr(OpenVideo, "set_reorder_depth", lambda _video, _frames: None)
    found = assert_exact(undeclared("matroska", PYRAMID)(), monkeypatch)
    assert "the decoder returned other frames than planned" in found.reasons
    assert found.clips["16 frames"].video.frames == 60


def test_packets_that_exceed_the_memory_limit_are_read_a_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packets, "KEPT_BYTES", 1000)
    for make in (h264(), h264("ts", params="open-gop=1:"), trimmed(X264)):
        data = make()
        assert len(data) > packets.KEPT_BYTES
        found = assert_exact(data, monkeypatch)
        assert found.reasons == {None}
        assert found.dropped["2 frames"] >= 15


@pytest.mark.parametrize(
    ("make", "independent"), [(h264(), True), (h264("ts"), True), (changed_midway, False)]
)
def test_groups_are_not_decoded_in_parallel_if_parameter_sets_change(
    make: Callable[[], bytes], independent: bool
) -> None:
    with open_video(io.BytesIO(make()), DecodeLimits(), peek=False) as video:
        assert packets.scan_packets(video, DecodeLimits()).independent == independent
