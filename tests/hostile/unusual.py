"""Valid files with rare containers, codecs, pixel formats, sizes, rates and tracks."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
from av.stream import Disposition

from tests.hostile.item import FRAMES, SIZE, Item, base
from tests.support.clips import audio_clip, numbered_clip, remuxed

# Muxer (or common name) and encoder -> options of the video or the muxer.
CONTAINERS: dict[tuple[str, str], dict[str, Any]] = {
    ("3g2", "libx264"): {}, ("f4v", "libx264"): {}, ("ismv", "libx264"): {}, ("ipod", "libx264"): {},
    ("vob", "mpeg2video"): {}, ("svcd", "mpeg2video"): {}, ("mpeg", "libx264"): {},
    ("ts", "libx265"): {}, ("mp4", "libvpx-vp9"): {}, ("mp4", "mpeg2video"): {},
    ("flv", "flv"): {}, ("flv", "libx265"): {}, ("flv", "libsvtav1"): {}, ("avi", "libx264"): {"options": {"bf": "0"}},
    ("ogg", "libvpx"): {},
    ("asf", "wmv1"): {}, ("asf", "wmv2"): {}, ("asf", "msmpeg4"): {}, ("asf", "libx264"): {},
    ("avi", "msmpeg4v2"): {}, ("avi", "msmpeg4"): {},
    ("mxf", "mpeg2video"): {"pix_fmt": "yuv422p"}, ("mxf", "libx264"): {"pix_fmt": "yuv422p10le"},
    ("yuv4mpegpipe", "rawvideo"): {}, ("ivf", "libvpx"): {}, ("ivf", "libvpx-vp9"): {},
    ("ivf", "libsvtav1"): {}, ("obu", "libsvtav1"): {},
    ("h264", "libx264"): {}, ("hevc", "libx265"): {}, ("mpeg1video", "mpeg1video"): {},
    ("mpeg2video", "mpeg2video"): {}, ("m4v", "mpeg4"): {},
    ("apng", "apng"): {"pix_fmt": "rgb24"}, ("dv", "dvvideo"): {"width": 720, "height": 576},
    ("mov", "dvvideo"): {"width": 720, "height": 480, "rate": 30, "pix_fmt": "yuv411p", "time_base": Fraction(1001, 30000)},
    ("mov", "dnxhd"): {"width": 320, "height": 240, "pix_fmt": "yuv422p", "options": {"profile": "dnxhr_lb"}},
    ("avi", "huffyuv"): {"pix_fmt": "rgb24"}, ("avi", "ffvhuff"): {}, ("avi", "utvideo"): {},
    ("mov", "qtrle"): {"pix_fmt": "rgb24"}, ("mov", "png"): {"pix_fmt": "rgba"}, ("mov", "v210"): {"pix_fmt": "yuv422p10le"},
    ("mkv", "mjpeg"): {"pix_fmt": "yuvj422p"}, ("mp4", "mjpeg"): {"pix_fmt": "yuvj420p"},
    ("3gp", "h263"): {"width": 176, "height": 144},
}  # fmt: skip

PIXELS = (
    ("mp4", "libx264", "yuv422p"), ("mp4", "libx264", "yuv444p"), ("mp4", "libx264", "yuv420p10le"),
    ("mkv", "libx264", "yuv444p10le"), ("mp4", "libx264", "gray"), ("mp4", "libx264", "nv12"),
    ("mkv", "libx264rgb", "rgb24"), ("mp4", "libx265", "yuv420p10le"), ("mp4", "libx265", "yuv444p12le"),
    ("mp4", "libx265", "gray"), ("mp4", "libx265", "gbrp"), ("webm", "libvpx-vp9", "yuv444p"),
    ("webm", "libvpx-vp9", "yuv440p"), ("webm", "libvpx-vp9", "yuva420p"), ("webm", "libvpx", "yuva420p"),
    ("mp4", "libsvtav1", "yuv420p10le"), ("mkv", "ffv1", "gray16le"), ("mkv", "ffv1", "yuva444p"),
    ("mkv", "ffv1", "gbrap16le"), ("mkv", "ffv1", "bgra"), ("avi", "ffv1", "yuv411p"),
    ("mov", "prores_ks", "yuva444p10le"), ("avi", "rawvideo", "rgb555le"),
    ("avi", "rawvideo", "yuyv422"), ("mov", "rawvideo", "rgb24"), ("mov", "rawvideo", "argb"),
    ("mkv", "rawvideo", "yuv420p"), ("mov", "png", "gray16be"), ("mov", "png", "monob"),
    ("avi", "mjpeg", "yuvj444p"),
)  # fmt: skip

SIZES = (
    ("mkv", "libx264", "yuv444p", ((1, 1), (1, 3), (97, 65), (33, 127))),
    ("mp4", "libx264", "yuv420p", ((2, 2), (16, 2), (2, 16), (4096, 64), (64, 4096))),
    ("webm", "libvpx", "yuv420p", ((1, 1), (3, 1), (97, 65), (8192, 128))),
    ("webm", "libvpx-vp9", "yuv420p", ((1, 1), (5, 7), (97, 65), (128, 8192))),
    ("avi", "mpeg4", "yuv420p", ((1, 1), (97, 65))),
    ("mkv", "ffv1", "yuv420p", ((1, 1), (5, 8), (16_000, 250))),
    ("avi", "rawvideo", "bgr24", ((1, 1), (3, 3), (97, 65))),
    ("avi", "mjpeg", "yuvj420p", ((1, 1), (97, 65))),
    ("gif", "gif", "rgb8", ((1, 1), (97, 65))),
    ("apng", "apng", "gray", ((1, 1), (97, 65))),
    ("mpeg", "mpeg1video", "yuv420p", ((1, 3), (97, 65))),
)  # fmt: skip

RATES = (Fraction(1, 10), Fraction(1), Fraction(24_000, 1001), Fraction(240), Fraction(1000))


def unusual() -> Iterator[Item]:
    """All files with their number of frames and size."""
    for (container, codec), changes in CONTAINERS.items():
        data = numbered_clip(frames=5, container=container, codec=codec, **changes)
        size = (changes.get("width", SIZE[0]), changes.get("height", SIZE[1]))
        yield Item("valid", f"in-{container}-{codec}", data, 5, size)
    for container, codec, pix_fmt in PIXELS:
        options = {"auto-alt-ref": "0"} if codec == "libvpx" else {}
        data = numbered_clip(frames=3, container=container, codec=codec, pix_fmt=pix_fmt, options=options)
        yield Item("valid", f"pixels-{container}-{codec}-{pix_fmt}", data, 3, SIZE)
    for container, codec, pix_fmt, sizes in SIZES:
        for width, height in sizes:
            data = numbered_clip(
                frames=3, container=container, codec=codec, pix_fmt=pix_fmt, width=width, height=height
            )
            yield Item("valid", f"size-{codec}-{width}x{height}", data, 3, (width, height))
    for container, codec in (("mp4", "libx264"), ("mkv", "libx264"), ("webm", "libvpx"), ("avi", "mpeg4")):
        for rate in RATES:
            data = numbered_clip(
                frames=4, container=container, codec=codec, rate=rate, time_base=1 / rate, times=(0, 1, 2, 3)
            )
            yield Item("valid", f"rate-{container}-{float(rate):.0f}", data, 4, SIZE)
    yield from layouts()
    yield from tracks()
    yield from surrounded()


LAYOUTS = (
    "frag_keyframe", "frag_keyframe+separate_moof+empty_moov", "dash", "cmaf", "frag_keyframe+delay_moov",
    "frag_keyframe+negative_cts_offsets+empty_moov", "negative_cts_offsets", "isml+frag_keyframe+empty_moov",
    "rtphint",
)  # fmt: skip
ORDERED = {"bf": "2", "g": "6"}


def layouts() -> Iterator[Item]:
    """Different layouts and timings of the same packets."""
    for flags in LAYOUTS:
        data = numbered_clip(frames=20, options=ORDERED, container_options={"movflags": flags})
        yield Item("valid", f"layout-{flags}", data, 20, SIZE)
    whole = numbered_clip(frames=20, options=ORDERED)
    for container in ("matroska", "mpegts", "flv", "mov"):
        data = remuxed(whole, lambda _, body: body, container)
        yield Item("valid", f"b-frames-{container}", data, 20, SIZE)
    live = numbered_clip(frames=8, container="mkv", container_options={"live": "1"})
    yield Item("valid", "live-matroska", live, 8, SIZE)
    m2ts = numbered_clip(frames=8, container="ts", container_options={"mpegts_m2ts_mode": "1"})
    yield Item("valid", "m2ts", m2ts, 8, SIZE)
    for bf in ("1", "2"):
        data = numbered_clip(frames=20, container="avi", codec="mpeg4", options={"bf": bf, "g": "12"})
        yield Item("valid", f"avi-b-frames-{bf}", data, 20, SIZE)
    early = {"avoid_negative_ts": "disabled"}
    for container in ("mkv", "mp4"):
        data = numbered_clip(
            frames=12, container=container, times=tuple(range(-4, 8)), time_base=Fraction(1, 25),
            container_options=early | ({"use_editlist": "0"} if container == "mp4" else {}),
        )  # fmt: skip
        yield Item("valid", f"negative-times-{container}", data, 12, SIZE)
    # The edit list skips the first four frames.
    data = numbered_clip(
        frames=12, times=tuple(range(-4, 8)), time_base=Fraction(1, 25), container_options=early
    )
    yield Item("valid", "edited-4-off", data, 8, SIZE)
    around = 2**33 - 1000  # where the clock of a transport stream wraps
    times = tuple(around + 3600 * index for index in range(12))
    data = numbered_clip(
        frames=12, container="ts", times=times, time_base=Fraction(1, 90_000), container_options=early
    )
    yield Item("valid", "ts-clock-begins-again", data, 12, SIZE)
    for codec, container in (("libvpx", "webm"), ("libvpx-vp9", "webm")):
        hidden = {"deadline": "good", "auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8"}
        data = numbered_clip(frames=30, container=container, codec=codec, options=hidden)
        yield Item("valid", f"hidden-frames-{codec}", data, 30, SIZE)
    for angle in (180, 270):
        yield Item("valid", f"rotated-{angle}", numbered_clip(frames=3, rotation=angle), 3, SIZE)
    for codec, container in (("libx264", "mkv"), ("mpeg2video", "ts"), ("mpeg4", "avi")):
        data = numbered_clip(
            frames=6,
            container=container,
            codec=codec,
            options={"flags": "+ildct+ilme", "x264-params": "tff=1"},
        )
        yield Item("valid", f"interlaced-{container}", data, 6, SIZE)


def tracks() -> Iterator[Item]:
    """Video together with audio, a cover image, another video, or subtitles."""
    picture, sound = base(), audio_clip()
    other = numbered_clip(frames=3, width=128, height=96)
    still = numbered_clip(frames=1, container="avi", codec="mjpeg", pix_fmt="yuvj420p", width=32, height=32)
    for container in ("mp4", "mov", "matroska", "mpegts", "flv"):
        yield Item("valid", f"sound-first-{container}", muxed(container, sound, picture), FRAMES, SIZE)
        yield Item("valid", f"sound-last-{container}", muxed(container, picture, sound), FRAMES, SIZE)
    for container in ("mp4", "matroska", "mpegts"):
        yield Item("valid", f"two-pictures-{container}", muxed(container, picture, other), FRAMES, SIZE)
    for container in ("mp4", "mov"):
        yield Item(
            "valid", f"cover-first-{container}", muxed(container, still, picture, cover=0), FRAMES, SIZE
        )
        yield Item(
            "valid", f"cover-last-{container}", muxed(container, picture, still, cover=1), FRAMES, SIZE
        )
    animated = numbered_clip(frames=5, container="avif", codec="libsvtav1")
    yield Item("valid", "animated-avif", animated, 5, SIZE)
    text = subtitles()
    yield Item("valid", "subtitles-first", muxed("matroska", text, picture), FRAMES, SIZE)
    yield Item("valid", "subtitles-last", muxed("matroska", picture, text), FRAMES, SIZE)


def muxed(container: str, *sources: bytes, cover: int | None = None) -> bytes:
    """Mux the first track of each file into one file; track `cover` becomes a cover image."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as target:
        packets: list[Any] = []
        for number, data in enumerate(sources):
            source = av.open(io.BytesIO(data), "r")
            stream = target.add_stream_from_template(source.streams[0])
            if number == cover:
                stream.disposition = Disposition.attached_pic
            for packet in source.demux(source.streams[0]):
                if packet.size:
                    packet.stream = stream
                    packets.append(packet)
        for packet in sorted(packets, key=lambda packet: (packet.dts or 0) * packet.time_base):
            target.mux(packet)
    return file.getvalue()


def subtitles() -> bytes:
    """A file with subtitles only."""
    with av.open(io.BytesIO(b"1\n00:00:00,000 --> 00:00:00,400\nhello\n"), "r", format="srt") as source:
        file = io.BytesIO()
        with av.open(file, "w", format="matroska") as target:
            stream = target.add_stream_from_template(source.streams[0])
            for packet in source.demux(source.streams[0]):
                if packet.size:
                    packet.stream = stream
                    target.mux(packet)
        return file.getvalue()


def surrounded() -> Iterator[Item]:
    """Files with unrelated data before or after them."""
    rubbish = bytes(range(1, 256)) * 40
    for container, codec in (("mkv", "libx264"), ("avi", "mpeg4"), ("flv", "libx264"), ("gif", "gif"),
                             ("ts", "libx264"), ("mpeg", "mpeg2video")):  # fmt: skip
        data = (
            base(container, codec)
            if codec != "gif"
            else numbered_clip(frames=12, container="gif", codec="gif", pix_fmt="rgb8")
        )
        yield Item("valid", f"rubbish-behind-{container}", data + rubbish, FRAMES, SIZE)
        yield Item("valid", f"zeros-behind-{container}", data + bytes(5000), FRAMES, SIZE)
    yield Item("valid", "rubbish-before-ts", rubbish[:77] + base("ts"), FRAMES, SIZE)
    yield Item("valid", "zeros-before-mpeg", bytes(999) + base("mpeg", "mpeg2video"), FRAMES, SIZE)
    for container, codec, times in (("mp4", "libx264", 1), ("mkv", "libx264", 2), ("flv", "libx264", 1), ("avi", "mpeg4", 2),
                                    ("ts", "libx264", 2), ("mpeg", "mpeg2video", 2)):  # fmt: skip
        yield Item("valid", f"twice-{container}", base(container, codec) * 2, times * FRAMES, SIZE)
