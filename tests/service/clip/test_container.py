from __future__ import annotations

import io
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import pytest
from av.stream import Disposition

import service.clip.decode
import service.clip.full
from service.clip.container import FORMATS, OpenVideo, open_video
from service.clip.decode import decode_clip
from service.clip.spec import ClipSpec, Frames, InputSpec
from service.clip.video import DecodeLimits
from service.errors import NotAVideo, OverLimit, RequestError, Undecodable
from tests.clips import (
    ClipRecipe,
    audio_clip,
    hls_playlist,
    not_videos,
    numbered_clip,
    read_numbers,
    remuxed,
)

SPEC = ClipSpec(4, (InputSpec("frames", Frames.ALL, size=32, scale=32),))
NOT_VIDEOS = not_videos()


@pytest.mark.parametrize("kind", [*NOT_VIDEOS, "empty"])
def test_what_is_no_video_is_called_that(kind: str) -> None:
    with pytest.raises(NotAVideo):
        decode_clip(NOT_VIDEOS.get(kind, b""), SPEC)


def with_codec(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new)


UNDECODABLE: dict[str, Callable[[], bytes]] = {
    "mp4 without its index": lambda: numbered_clip(frames=60)[:4000],
    "mov without its index": lambda: numbered_clip(frames=60, container="mov")[:4000],
    "only an ftyp box": lambda: numbered_clip()[:32],
    "Matroska header alone": lambda: numbered_clip(container="mkv")[:40],
    "AVI header alone": lambda: numbered_clip(container="avi", codec="mpeg4")[:64],
    "codec that is not on the list": lambda: numbered_clip(container="avi", codec="asv1"),
    "codec that nobody knows": lambda: with_codec(
        numbered_clip(container="avi", codec="mjpeg", pix_fmt="yuvj420p"), b"MJPG", b"ZqZq"
    ),
}


@pytest.mark.parametrize("kind", UNDECODABLE)
def test_a_video_that_cannot_be_decoded_is_called_that(kind: str) -> None:
    with pytest.raises(Undecodable):
        decode_clip(UNDECODABLE[kind](), SPEC)


def tracks(count: int, container: str) -> bytes:
    """A file of `count` video tracks of one frame each."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        streams = [output.add_stream("mpeg4", rate=25) for _ in range(count)]
        for stream in streams:
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
            stream.codec_context.thread_count = 1
        for stream in streams:
            assert isinstance(stream, av.VideoStream)
            output.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
            output.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize(("container", "seen"), [("mp4", 9), ("matroska", 6), ("mpegts", 6)])
def test_as_many_tracks_as_allowed_and_no_more(container: str, seen: int) -> None:
    """FFmpeg itself stops making streams one past the limit; those of an mp4 are counted by hand."""
    limits = DecodeLimits(max_streams=5)
    assert decode_clip(tracks(5, container), SPEC, limits).video.frames == 1
    with pytest.raises(OverLimit) as caught:
        decode_clip(tracks(9, container), SPEC, limits)
    assert (caught.value.limit, caught.value.value, caught.value.maximum) == ("streams", seen, 5)


def test_a_lying_header_is_not_called_too_many_streams() -> None:
    data = bytearray(numbered_clip())
    at = data.find(b"stts") + 8
    data[at : at + 4] = struct.pack(">I", 2**31 - 1)
    with pytest.raises(Undecodable, match="memory"):
        decode_clip(bytes(data), SPEC)


@pytest.mark.parametrize(
    ("limits", "name", "value"),
    [
        (DecodeLimits(max_pixels=96 * 64 - 1), "pixels", 96 * 64),
        (DecodeLimits(max_aspect_ratio=1.4), "aspect_ratio", 1.5),
        (DecodeLimits(max_frames=39), "frames", 40),
        (DecodeLimits(max_duration_s=1.5), "duration_s", 39 / 25),
    ],
)
@pytest.mark.parametrize("container", ["mp4", "mkv", "ts"])
def test_each_limit_is_told_by_name_and_number(
    container: str, limits: DecodeLimits, name: str, value: float
) -> None:
    with pytest.raises(OverLimit) as caught:
        decode_clip(numbered_clip(frames=40, container=container), SPEC, limits)
    assert caught.value.limit == name
    assert caught.value.value == pytest.approx(value, rel=1e-3)


def test_limits_allow_what_is_exactly_at_them() -> None:
    limits = DecodeLimits(
        max_pixels=96 * 64, max_aspect_ratio=1.5, max_frames=40, max_duration_s=1.561, max_streams=1
    )
    assert decode_clip(numbered_clip(frames=40), SPEC, limits).video.frames == 40


@pytest.mark.parametrize(("width", "height"), [(16, 16), (16, 1024), (98, 66), (352, 288), (1920, 1080)])
@pytest.mark.parametrize("codec", ["libx264", "libvpx-vp9", "mpeg4"])
def test_the_decoders_own_guard_lets_every_allowed_frame_through(width: int, height: int, codec: str) -> None:
    data = numbered_clip(frames=1, width=width, height=height, codec=codec, container="mkv")
    limits = DecodeLimits(max_pixels=width * height)
    assert decode_clip(data, SPEC, limits).video.frames == 1


def test_frames_that_grow_past_the_limit_midway_are_refused() -> None:
    small = numbered_clip(frames=20, container="ts")
    large = numbered_clip(frames=20, container="ts", width=256, height=256)
    with pytest.raises(OverLimit) as caught:
        decode_clip(small + large, SPEC, DecodeLimits(max_pixels=96 * 64))
    assert (caught.value.limit, caught.value.value) == ("pixels", 256 * 256)


def test_frames_that_grow_beyond_all_bounds_are_never_decoded() -> None:
    small = numbered_clip(frames=20, container="ts")
    huge = numbered_clip(frames=2, container="ts", width=1024, height=1024)
    with pytest.raises(OverLimit) as caught:
        decode_clip(small + huge, SPEC, DecodeLimits(max_pixels=96 * 64))
    assert (caught.value.limit, caught.value.maximum) == ("pixels", 96 * 64)


def test_work_past_the_limit_is_refused_before_it_is_done() -> None:
    data = numbered_clip(frames=20)
    assert decode_clip(data, SPEC, DecodeLimits(max_decoded_pixels=20 * 96 * 64)).video.frames == 20
    with pytest.raises(OverLimit) as caught:
        decode_clip(data, SPEC, DecodeLimits(max_decoded_pixels=8 * 96 * 64))
    assert caught.value.limit == "decoded_pixels"
    assert caught.value.value > caught.value.maximum == 8 * 96 * 64


def video_behind_sound(seconds: int = 30) -> bytes:
    """A transport stream that announces a picture, which comes when the sound has ended."""
    file = io.BytesIO()
    with av.open(file, "w", format="mpegts") as output:
        sound, video = output.add_stream("mp2", rate=48_000), output.add_stream("mpeg2video", rate=25)
        assert isinstance(sound, av.AudioStream)
        assert isinstance(video, av.VideoStream)
        sound.bit_rate = 384_000
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        for start in range(0, seconds * 48_000, 1152):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 2304), np.int16), format="s16", layout="stereo")
            silence.sample_rate, silence.pts, silence.time_base = 48_000, start, Fraction(1, 48_000)
            output.mux(sound.encode(silence))
        picture = av.VideoFrame(64, 64, "yuv420p")
        picture.pts = seconds * 25
        output.mux([*video.encode(picture), *video.encode(None)])
    return file.getvalue()


class CountingFile(io.BytesIO):
    """Knows how many bytes were read of it."""

    read_bytes = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.read_bytes += len(data)
        return data


def test_tracks_are_looked_for_no_further_than_allowed() -> None:
    def read_to_open(probe_bytes: int) -> int:
        file = CountingFile(clip)
        with open_video(file, DecodeLimits(probe_bytes=probe_bytes), peek=False):
            return file.read_bytes

    clip = video_behind_sound()
    assert read_to_open(100_000) + 200_000 < read_to_open(1_000_000)


def test_a_stream_that_comes_up_later_does_not_end_the_video() -> None:
    apart = {"mpegts_start_pid": "768", "mpegts_pmt_start_pid": "1234", "mpegts_service_id": "9"}
    other = numbered_clip(frames=12, container="ts", container_options=apart)
    data = numbered_clip(frames=12, container="ts") * 5 + other
    assert decode_clip(data, SPEC).video.frames == 60


def test_a_picture_larger_than_the_header_says_is_not_decoded() -> None:
    """The pixel limit holds inside the decoder, where only the coded size counts."""
    data = numbered_clip(frames=4, width=768, height=768, codec="mpeg4", container="avi")
    lying = data.replace(struct.pack("<ii", 768, 768), struct.pack("<ii", 64, 64))
    assert lying != data
    with pytest.raises((OverLimit, Undecodable)):
        decode_clip(lying, SPEC, DecodeLimits(max_pixels=64 * 64))


def test_a_huge_gif_is_refused_by_its_header() -> None:
    header = struct.pack("<HHBBB", 16_000, 16_000, 0x80, 0, 0)
    picture = struct.pack("<BHHHHB", 0x2C, 0, 0, 16_000, 16_000, 0)
    data = b"GIF89a" + header + bytes(6) + picture + b"\x02\x02\x44\x01\x00\x3b"
    with pytest.raises(OverLimit) as caught:
        decode_clip(data, SPEC)
    assert caught.value.value == 16_000 * 16_000


def repeated_by_edit_list(data: bytes, times: int) -> bytes:
    """The mp4's only edit, `times` times over: the same frames again and again."""
    at = data.find(b"elst") - 4
    size = int.from_bytes(data[at : at + 4], "big")
    entry = data[at + 16 : at + 28]
    edits = struct.pack(">I4sII", 16 + 12 * times, b"elst", 0, times) + entry * times
    grown = bytearray(data[:at] + edits + data[at + size :])
    for box in (b"moov", b"trak", b"edts"):
        start = grown.find(box) - 4
        length = int.from_bytes(grown[start : start + 4], "big") + len(edits) - size
        grown[start : start + 4] = length.to_bytes(4, "big")
    return bytes(grown)


def test_an_edit_list_that_repeats_frames_counts_them_each_time() -> None:
    data = numbered_clip(frames=20)
    assert decode_clip(repeated_by_edit_list(data, 3), SPEC).video.frames == 60
    with pytest.raises(OverLimit) as caught:
        decode_clip(repeated_by_edit_list(data, 20_000), SPEC)
    assert (caught.value.limit, caught.value.value, caught.value.maximum) == ("edits", 20_000, 1000)
    with pytest.raises(OverLimit) as caught:
        decode_clip(repeated_by_edit_list(data, 20_000), SPEC, DecodeLimits(max_edits=20_000))
    assert caught.value.limit == "frames"


def test_a_cover_picture_is_no_video() -> None:
    file = io.BytesIO()
    with av.open(io.BytesIO(audio_clip()), "r") as source, av.open(file, "w", format="mp4") as target:
        audio = target.add_stream_from_template(source.streams.audio[0])
        cover = target.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        target.mux(cover.encode(av.VideoFrame(32, 32, "yuvj420p")))
        target.mux(cover.encode(None))
        for packet in source.demux(audio=0):
            if packet.size:
                packet.stream = audio
                target.mux(packet)
    with av.open(io.BytesIO(file.getvalue()), "r") as made:
        assert made.streams.video[0].disposition & Disposition.attached_pic
    with pytest.raises(NotAVideo, match="no video stream"):
        decode_clip(file.getvalue(), SPEC)


@pytest.mark.parametrize(("frames", "shown"), [(1, None), (5, 5)])
def test_the_still_of_an_avif_is_no_video(frames: int, shown: int | None) -> None:
    data = numbered_clip(frames=frames, container="avif", codec="libsvtav1")
    with av.open(io.BytesIO(data), "r") as made:
        assert made.streams.video[0].frames == 1
    for peek in (False, True):
        if shown is None:
            with (
                pytest.raises(NotAVideo, match="no video stream"),
                open_video(io.BytesIO(data), DecodeLimits(), peek=peek),
            ):
                pass
        else:
            with open_video(io.BytesIO(data), DecodeLimits(), peek=peek) as video:
                assert len(list(video.packets())) == shown
    if shown:
        assert read_numbers(decode_clip(data, SPEC).inputs["frames"][0]) == [0, 1, 3, 4]


class Named(io.BytesIO):
    """An upload whose file object carries the caller's name."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name


NAMES = [
    "clip.m3u8",
    "http://127.0.0.1:9/x",
    "concat:a|b",
    "../../etc/passwd",
    "a\0b",
    "%d.png",
    "x.txt",
    "x" * 5000,
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_the_callers_name_never_matters(name: str) -> None:
    assert decode_clip(Named(numbered_clip(), name), SPEC).video.frames == 40
    with pytest.raises(NotAVideo):
        decode_clip(Named(NOT_VIDEOS["text"], name), SPEC)


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A good clip in the working directory, that hostile files try to have decoded."""
    path = tmp_path / "canary.ts"
    path.write_bytes(numbered_clip(container="ts"))
    monkeypatch.chdir(tmp_path)
    return path


def test_no_file_names_another_file_to_read(canary: Path) -> None:
    concat = f"ffconcat version 1.0\nfile {canary.name}\n".encode()
    with av.open(io.BytesIO(concat), "r") as unguarded:
        assert len(list(unguarded.decode(video=0))) == 40  # the attack is real
    playlist = hls_playlist(canary.as_uri(), str(canary), canary.name)
    Path("list.m3u8").write_bytes(playlist)
    for source in (concat, playlist, Named(playlist, "list.m3u8"), Path("list.m3u8")):
        with pytest.raises(NotAVideo):
            decode_clip(source, SPEC)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def test_no_file_opens_a_connection(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}/part.ts"
    session = f"v=0\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n".encode()
    concat = f"ffconcat version 1.0\nfile {url}\n".encode()
    for source in (Named(hls_playlist(url), "x.m3u8"), Named(concat, "x.ffconcat"), Named(session, "x.sdp")):
        with pytest.raises(NotAVideo):
            decode_clip(source, SPEC)
    with pytest.raises(BlockingIOError):
        listener.accept()


def guarded_only_by(guard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every guard off the open but one: the name is the caller's, any format and protocol will do."""
    unguarded = av.open

    def weakened(
        file: Named, *, container_options: dict[str, str], io_open: object, **others: object
    ) -> object:
        if guard != "no name":
            file.name = "upload.m3u8"
        kept = {guard: container_options[guard]} if guard in container_options else {}
        others["io_open"] = io_open if guard == "io_open" else None
        others["timeout"] = 5  # what gets through fails, and does not wait for an answer for ever
        return unguarded(file, container_options=kept, **others)  # type: ignore[call-overload]

    monkeypatch.setattr(av, "open", weakened)


GUARDS = ["no name", "format_whitelist", "protocol_whitelist", "io_open"]


@pytest.mark.parametrize("guard", GUARDS)
def test_each_guard_alone_keeps_a_playlist_from_opening_a_connection(
    guard: str, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded_only_by(guard, monkeypatch)
    playlist = hls_playlist(f"http://127.0.0.1:{listener.getsockname()[1]}/part.ts")
    with pytest.raises(NotAVideo):
        decode_clip(playlist, SPEC)
    with pytest.raises(BlockingIOError):
        listener.accept()


@pytest.mark.parametrize("guard", ["format_whitelist", "protocol_whitelist"])
def test_each_whitelist_alone_keeps_a_list_from_opening_a_file(
    guard: str, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded_only_by(guard, monkeypatch)
    with pytest.raises(NotAVideo):
        decode_clip(f"ffconcat version 1.0\nfile {canary.name}\n".encode(), SPEC)


def test_without_a_guard_the_playlist_does_connect(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the tests above can fail."""
    guarded_only_by("nothing", monkeypatch)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/part.ts"
    hang_up = threading.Thread(target=lambda: listener.accept()[0].close())
    listener.settimeout(10)
    hang_up.start()
    with pytest.raises(NotAVideo):
        decode_clip(hls_playlist(url), SPEC)
    hang_up.join(1)
    assert not hang_up.is_alive()


def test_formats_that_name_other_files_or_draw_text_are_not_taken() -> None:
    assert not {"hls", "dash", "concat", "sdp", "rtsp", "image2", "tty", "xbin", "applehttp"} & set(FORMATS)


def test_messages_tell_nothing_of_the_server_or_the_library(tmp_path: Path) -> None:
    bad = {**NOT_VIDEOS, **{kind: make() for kind, make in UNDECODABLE.items()}, "streams": tracks(70, "mp4")}
    for data in bad.values():
        path = tmp_path / "secret-name.mp4"
        path.write_bytes(data)
        with pytest.raises(RequestError) as caught:
            decode_clip(path, SPEC)
        message = caught.value.message
        for leak in ("secret-name", "/", "0x", "rrno", "<none>", "ffmpeg", "av."):
            assert leak not in message


class Failing(io.BytesIO):
    """A file on a disk that breaks after the header."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() > 6000:
            raise OSError("the disk is gone")
        return super().read(size)


def test_an_error_of_the_callers_file_stays_its_own() -> None:
    data = numbered_clip(frames=300, container="ts", width=320, height=240)
    with pytest.raises(OSError, match="the disk is gone"):
        decode_clip(Failing(data), SPEC)


def test_the_container_is_closed_and_the_file_is_not() -> None:
    file = io.BytesIO(numbered_clip())
    with open_video(file, DecodeLimits()) as video:
        assert next(video.packets()).size
    with pytest.raises(AssertionError, match="not open"):
        next(video.packets())
    assert not file.closed


def joined_midway() -> bytes:
    """A transport stream whose first packets refer to a keyframe that is not there."""
    whole = numbered_clip(frames=40, container="ts", options={"g": "12"})
    return remuxed(whole, lambda index, packet: packet if index >= 7 else None, "mpegts")


def hidden_vp8() -> bytes:
    """Every fifth frame is marked as not to be shown."""

    def hide(index: int, packet: bytearray) -> bytearray:
        if index % 5 == 3:
            packet[0] &= ~0x10
        return packet

    return remuxed(numbered_clip(container="webm", codec="libvpx"), hide, "webm")


def trimmed() -> bytes:
    """Ten frames lie before the time at which the clip begins."""
    return numbered_clip(
        times=tuple(range(-10, 30)),
        time_base=Fraction(1, 25),
        container_options={"avoid_negative_ts": "disabled", "use_editlist": "1"},
    )


def superframes() -> bytes:
    """VP9 frames packed two and two: 20 packets, 40 frames."""
    waiting: list[bytes] = []

    def pack(_index: int, packet: bytearray) -> bytearray | None:
        waiting.append(bytes(packet))
        if len(waiting) < 2:
            return None
        marker = bytes([0b11000000 | 3 << 3 | 1])  # sizes of four bytes, two frames (VP9 bitstream, annex B)
        sizes = b"".join(len(frame).to_bytes(4, "little") for frame in waiting)
        packed = bytearray(b"".join(waiting) + marker + sizes + marker)
        waiting.clear()
        return packed

    single = {"auto-alt-ref": "0", "lag-in-frames": "0"}  # none is a superframe already
    return remuxed(numbered_clip(container="webm", codec="libvpx-vp9", options=single), pack, "webm")


def test_frames_are_limited_however_they_are_packed() -> None:
    assert decode_clip(superframes(), SPEC).video.frames == 40
    with pytest.raises(OverLimit) as caught:
        decode_clip(superframes(), SPEC, DecodeLimits(max_frames=30))
    assert (caught.value.limit, caught.value.value) == ("frames", 31)


@pytest.mark.parametrize(
    ("data", "passes"),
    [
        (numbered_clip(), 1),
        (numbered_clip(container="webm", codec="libvpx"), 1),
        (hidden_vp8(), 1),
        (trimmed(), 1),
        (numbered_clip(container="gif", codec="gif", pix_fmt="rgb8"), 2),
        (joined_midway(), 3),
    ],
    ids=["H.264", "VP8", "VP8 with hidden frames", "trimmed by an edit list", "no plan", "joined midway"],
)
def test_a_sound_file_is_read_once_or_if_no_plan_can_be_made_twice(
    data: bytes, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[bool] = []

    def counting(
        file: BinaryIO, limits: DecodeLimits, *, peek: bool = True
    ) -> AbstractContextManager[OpenVideo]:
        opened.append(peek)
        return open_video(file, limits, peek=peek)

    for module in (service.clip.decode, service.clip.full):
        monkeypatch.setattr(module, "open_video", counting)
    decode_clip(data, SPEC)
    assert opened == [False] + [True] * (passes - 1)


MUTABLE = {
    "mp4": ClipRecipe(frames=12),
    "mkv": ClipRecipe(frames=12, container="mkv"),
    "webm": ClipRecipe(frames=12, container="webm", codec="libvpx-vp9"),
    "avi": ClipRecipe(frames=12, container="avi", codec="mpeg4"),
    "ts": ClipRecipe(frames=12, container="ts"),
    "flv": ClipRecipe(frames=12, container="flv"),
    "mpeg": ClipRecipe(frames=12, container="mpeg", codec="mpeg2video"),
    "gif": ClipRecipe(frames=12, container="gif", codec="gif", pix_fmt="rgb8"),
}


@pytest.mark.parametrize("kind", MUTABLE)
def test_damaged_bytes_give_frames_or_an_error_of_ours(kind: str) -> None:
    rng = random.Random(kind)  # the same damage every time
    whole = numbered_clip(MUTABLE[kind])
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 4, 16))):
            data[min(int(rng.expovariate(3) * len(data)), len(data) - 1)] = rng.randrange(256)
        with suppress(NotAVideo, Undecodable, OverLimit):
            clip = decode_clip(bytes(data), SPEC)
            assert clip.inputs["frames"].shape == (1, 4, 32, 32, 3)
            assert all(0 <= index < clip.video.frames for index in clip.indices[0])
