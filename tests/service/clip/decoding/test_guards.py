"""No file and no name makes FFmpeg open another file or a connection."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import av
import pytest

from service.clip.decoding.clips import decode_video
from service.clip.decoding.formats import FORMATS
from service.clip.spec import ClipSpec, Frames, InputSpec
from service.errors import NotAVideo
from tests.support.clips import hls_playlist, not_videos, numbered_clip

SPEC = ClipSpec(4, (InputSpec("frames", Frames.ALL, size=32, scale=32),))
NOT_VIDEOS = not_videos()


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
def test_file_name_does_not_matter(name: str) -> None:
    assert decode_video(Named(numbered_clip(), name), SPEC).video.frames == 40
    with pytest.raises(NotAVideo):
        decode_video(Named(NOT_VIDEOS["text"], name), SPEC)


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A valid clip in the working directory that hostile files try to have decoded."""
    path = tmp_path / "canary.ts"
    path.write_bytes(numbered_clip(container="ts"))
    monkeypatch.chdir(tmp_path)
    return path


def test_no_file_makes_another_file_be_read(canary: Path) -> None:
    concat = f"ffconcat version 1.0\nfile {canary.name}\n".encode()
    with av.open(io.BytesIO(concat), "r") as unguarded:
        assert len(list(unguarded.decode(video=0))) == 40  # the attack is real
    playlist = hls_playlist(canary.as_uri(), str(canary), canary.name)
    Path("list.m3u8").write_bytes(playlist)
    for source in (concat, playlist, Named(playlist, "list.m3u8"), Path("list.m3u8")):
        with pytest.raises(NotAVideo):
            decode_video(source, SPEC)


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
            decode_video(source, SPEC)
    with pytest.raises(BlockingIOError):
        listener.accept()


def guarded_only_by(guard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove every guard but one: the caller's name is used, and any format and protocol is allowed."""
    unguarded = av.open

    def weakened(
        file: Named, *, container_options: dict[str, str], io_open: object, **others: object
    ) -> object:
        if guard != "no name":
            file.name = "upload.m3u8"
        kept = {guard: container_options[guard]} if guard in container_options else {}
        others["io_open"] = io_open if guard == "io_open" else None
        others["timeout"] = 5  # a connection that gets through fails and does not wait forever
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
        decode_video(playlist, SPEC)
    with pytest.raises(BlockingIOError):
        listener.accept()


@pytest.mark.parametrize("guard", ["format_whitelist", "protocol_whitelist"])
def test_each_whitelist_alone_keeps_a_list_from_opening_a_file(
    guard: str, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded_only_by(guard, monkeypatch)
    with pytest.raises(NotAVideo):
        decode_video(f"ffconcat version 1.0\nfile {canary.name}\n".encode(), SPEC)


def test_without_a_guard_the_playlist_does_connect(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This shows that the tests above can fail."""
    guarded_only_by("nothing", monkeypatch)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/part.ts"
    hang_up = threading.Thread(target=lambda: listener.accept()[0].close())
    listener.settimeout(10)
    hang_up.start()
    with pytest.raises(NotAVideo):
        decode_video(hls_playlist(url), SPEC)
    hang_up.join(1)
    assert not hang_up.is_alive()


def test_formats_that_refer_to_other_files_or_draw_text_are_refused() -> None:
    assert not {"hls", "dash", "concat", "sdp", "rtsp", "image2", "tty", "xbin", "applehttp"} & set(FORMATS)
