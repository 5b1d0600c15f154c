"""Opening an untrusted file: which files are videos, which stream is decoded, and the effect of damage."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import BinaryIO

import av
import pytest
from av.stream import Disposition

import service.clip.decoding.clips
import service.clip.decoding.sequential
from service.clip.decoding.clips import decode_video
from service.clip.decoding.container import OpenVideo, open_video
from service.clip.spec import ClipSpec, Frames, InputSpec
from service.clip.video import DecodeLimits
from service.errors import NotAVideo, OverLimit, RequestError, Undecodable
from tests.service.clip.decoding.odd_clips import hidden_vp8, joined_midway, tracks, trimmed
from tests.support.clips import ClipRecipe, audio_clip, not_videos, numbered_clip, read_numbers

SPEC = ClipSpec(4, (InputSpec("frames", Frames.ALL, size=32, scale=32),))
NOT_VIDEOS = not_videos()


@pytest.mark.parametrize("kind", [*NOT_VIDEOS, "empty"])
def test_file_without_a_video_is_reported_as_such(kind: str) -> None:
    with pytest.raises(NotAVideo):
        decode_video(NOT_VIDEOS.get(kind, b""), SPEC)


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
def test_undecodable_video_is_reported_as_such(kind: str) -> None:
    with pytest.raises(Undecodable):
        decode_video(UNDECODABLE[kind](), SPEC)


def test_a_stream_that_comes_up_later_does_not_end_the_video() -> None:
    apart = {"mpegts_start_pid": "768", "mpegts_pmt_start_pid": "1234", "mpegts_service_id": "9"}
    other = numbered_clip(frames=12, container="ts", container_options=apart)
    data = numbered_clip(frames=12, container="ts") * 5 + other
    assert decode_video(data, SPEC).video.frames == 60


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
    with pytest.raises(NotAVideo, match="no video track"):
        decode_video(file.getvalue(), SPEC)


@pytest.mark.parametrize(("frames", "shown"), [(1, None), (5, 5)])
def test_the_still_of_an_avif_is_no_video(frames: int, shown: int | None) -> None:
    data = numbered_clip(frames=frames, container="avif", codec="libsvtav1")
    with av.open(io.BytesIO(data), "r") as made:
        assert made.streams.video[0].frames == 1
    for peek in (False, True):
        if shown is None:
            with (
                pytest.raises(NotAVideo, match="no video track"),
                open_video(io.BytesIO(data), DecodeLimits(), peek=peek),
            ):
                pass
        else:
            with open_video(io.BytesIO(data), DecodeLimits(), peek=peek) as video:
                assert len(list(video.packets())) == shown
    if shown:
        assert read_numbers(decode_video(data, SPEC).inputs["frames"][0]) == [0, 1, 3, 4]


def test_messages_reveal_neither_paths_nor_libraries(tmp_path: Path) -> None:
    bad = {**NOT_VIDEOS, **{kind: make() for kind, make in UNDECODABLE.items()}, "streams": tracks(70, "mp4")}
    for data in bad.values():
        path = tmp_path / "secret-name.mp4"
        path.write_bytes(data)
        with pytest.raises(RequestError) as caught:
            decode_video(path, SPEC)
        message = caught.value.message
        for leak in ("secret-name", "/", "0x", "rrno", "<none>", "ffmpeg", "av."):
            assert leak not in message


class Failing(io.BytesIO):
    """A file on a disk that breaks after the header."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() > 6000:
            raise OSError("the disk is gone")
        return super().read(size)


def test_error_of_the_callers_file_is_raised_unchanged() -> None:
    data = numbered_clip(frames=300, container="ts", width=320, height=240)
    with pytest.raises(OSError, match="the disk is gone"):
        decode_video(Failing(data), SPEC)


def test_the_container_is_closed_and_the_file_is_not() -> None:
    file = io.BytesIO(numbered_clip())
    with open_video(file, DecodeLimits()) as video:
        assert next(video.packets()).size
    with pytest.raises(AssertionError, match="not open"):
        next(video.packets())
    assert not file.closed


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
def test_intact_file_is_read_once_or_twice_without_a_plan(
    data: bytes, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[bool] = []

    def counting(
        file: BinaryIO, limits: DecodeLimits, *, peek: bool = True
    ) -> AbstractContextManager[OpenVideo]:
        opened.append(peek)
        return open_video(file, limits, peek=peek)

    for module in (service.clip.decoding.clips, service.clip.decoding.sequential):
        monkeypatch.setattr(module, "open_video", counting)
    decode_video(data, SPEC)
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
def test_damaged_bytes_give_frames_or_a_service_error(kind: str) -> None:
    rng = random.Random(kind)  # the same damage every time
    whole = numbered_clip(MUTABLE[kind])
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 4, 16))):
            data[min(int(rng.expovariate(3) * len(data)), len(data) - 1)] = rng.randrange(256)
        with suppress(NotAVideo, Undecodable, OverLimit):
            clip = decode_video(bytes(data), SPEC)
            assert clip.inputs["frames"].shape == (1, 4, 32, 32, 3)
            assert all(0 <= index < clip.video.frames for index in clip.indices[0])
