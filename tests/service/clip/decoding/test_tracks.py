"""The track that is decoded, and files whose track cannot be decoded."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path
from typing import Any

import av
import pytest
from av.stream import Disposition

from service.clip.decoding.clips import decode_video
from service.clip.decoding.container import open_video
from service.clip.spec import ClipSpec
from service.clip.video import DecodeLimits
from service.errors import OverLimit, Undecodable
from tests.hostile.boxes import ebml
from tests.service.clip.decoding.exactness import ALL
from tests.service.clip.decoding.odd_clips import repeated_by_edit_list
from tests.service.clip.decoding.test_limits import CountingFile
from tests.support.clips import numbered_clip

SPEC = ClipSpec(4, ALL)


def two_tracks(container: str, first: bytes, second: bytes, default: int | None = None) -> bytes:
    """The first video tracks of two files in one, with `default` as the only default track."""
    file = io.BytesIO()
    with (
        av.open(io.BytesIO(first), "r") as one,
        av.open(io.BytesIO(second), "r") as other,
        av.open(file, "w", format=container) as output,
    ):
        sources = [source.streams.video[0] for source in (one, other)]
        targets = [output.add_stream_from_template(source) for source in sources]
        for number, target in enumerate(targets):
            target.disposition = Disposition.default if number == default else Disposition(0)
        packets = [
            (packet, target)
            for source, target in zip((one, other), targets, strict=True)
            for packet in source.demux(video=0)
            if packet.size
        ]
        for packet, target in packets:
            packet.stream = target
            output.mux(packet)
    return file.getvalue()


SMALL = numbered_clip(frames=12, width=64, height=48)
LARGE = numbered_clip(frames=20)
PICTURE = numbered_clip(frames=1, codec="mjpeg", pix_fmt="yuvj420p", width=128, height=128)


@pytest.mark.parametrize("container", ["mp4", "mov", "matroska"])
@pytest.mark.parametrize(("default", "track", "frames"), [(0, 0, 12), (1, 1, 20)])
def test_the_default_track_is_decoded_and_named(
    container: str, default: int, track: int, frames: int
) -> None:
    video = decode_video(two_tracks(container, SMALL, LARGE, default), SPEC).video
    assert (video.track, video.frames) == (track, frames)


@pytest.mark.parametrize("container", ["mp4", "mov", "matroska", "mpegts"])
@pytest.mark.parametrize("default", [None, 0])
def test_video_is_preferred_to_a_track_of_one_picture(container: str, default: int | None) -> None:
    picture = PICTURE if container != "mpegts" else numbered_clip(frames=1, width=128, height=128)
    video = decode_video(two_tracks(container, picture, LARGE, default), SPEC).video
    assert (video.track, video.frames, video.width) == (1, 20, 96)


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_a_lone_track_of_one_picture_is_decoded(container: str) -> None:
    assert decode_video(two_tracks(container, PICTURE, PICTURE), SPEC).video.frames == 1


def encrypted(tmp_path: Path, *options: str) -> bytes:
    clear, path = tmp_path / "clear.mp4", tmp_path / "encrypted.mp4"
    clear.write_bytes(LARGE)
    key = "0123456789abcdef0123456789abcdef"
    subprocess.run(
        ["ffmpeg", "-v", "error", "-i", clear, "-c", "copy", "-encryption_scheme", "cenc-aes-ctr",
         "-encryption_key", key, "-encryption_kid", key, *options, path], check=True,
    )  # fmt: skip
    return path.read_bytes()


@pytest.mark.parametrize(
    "options", [(), ("-movflags", "frag_keyframe+empty_moov")], ids=["whole", "fragments"]
)
def test_encrypted_mp4_is_reported_as_encrypted(tmp_path: Path, options: tuple[str, ...]) -> None:
    with pytest.raises(Undecodable, match="encrypted"):
        decode_video(encrypted(tmp_path, *options), SPEC)


def test_scrambled_transport_stream_is_reported_as_encrypted() -> None:
    data = bytearray(numbered_clip(frames=60, container="ts", width=256, height=256))
    for start in range(0, len(data), 188):
        if (data[start + 1] & 0x1F) << 8 | data[start + 2] == 256:
            data[start + 3] |= 0x80
    with pytest.raises(Undecodable, match="encrypted"):
        decode_video(bytes(data), SPEC)


def test_encrypted_webm_is_reported_as_encrypted() -> None:
    data = numbered_clip(container="webm", codec="libvpx")
    tracks = data.rindex(bytes.fromhex("1654AE6B"))  # the first one is an entry of the seek head
    body, end = element_body(data, tracks + 4)
    entry, _ = element_body(body, body.index(bytes.fromhex("AE")) + 1)
    key_id = ebml("5035", ebml("47E1", b"\x05") + ebml("47E2", bytes(range(16))))
    encodings = ebml("6D80", ebml("6240", ebml("5031", b"\x00") + ebml("5033", b"\x01") + key_id))
    changed = data[:tracks] + ebml("1654AE6B", ebml("AE", entry + encodings)) + data[end:]
    with pytest.raises(Undecodable, match="encrypted"):
        decode_video(changed, SPEC)


def element_body(data: bytes, at: int) -> tuple[bytes, int]:
    """The body of the EBML element whose size field is at `at`, and where it ends."""
    length = 9 - data[at].bit_length()
    size = int.from_bytes(data[at : at + length]) & ((1 << 7 * length) - 1)
    return data[at + length : at + length + size], at + length + size


def test_encrypted_asf_is_reported_as_encrypted() -> None:
    data = numbered_clip(container="asf", codec="wmv2")
    encryption = bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e") + (40).to_bytes(8, "little") + bytes(16)
    header_bytes = int.from_bytes(data[16:24], "little") + len(encryption)
    objects = int.from_bytes(data[24:28], "little") + 1
    header = data[:16] + header_bytes.to_bytes(8, "little") + objects.to_bytes(4, "little") + data[28:30]
    with pytest.raises(Undecodable, match="encrypted"):
        decode_video(header + encryption + data[30:], SPEC)


def test_media_segment_alone_is_reported_as_such() -> None:
    data = numbered_clip(container_options={"movflags": "frag_keyframe+empty_moov+default_base_moof"})
    segment = data[data.find(b"moof") - 4 :]
    webm = numbered_clip(container="webm", codec="libvpx")
    cluster = webm[webm.find(b"\x1f\x43\xb6\x75") :]
    for part in (segment, b"\0\0\0\x10styp" + b"msdh\0\0\0\0" + segment, cluster):
        with pytest.raises(Undecodable, match="initialization segment"):
            decode_video(part, SPEC)


def test_an_unsupported_codec_is_named() -> None:
    with pytest.raises(Undecodable, match="asv1"):
        decode_video(numbered_clip(container="avi", codec="asv1"), SPEC)


@pytest.mark.parametrize(
    ("codec", "container", "options"),
    [
        ("cinepak", "avi", {"pix_fmt": "rgb24"}),
        ("msvideo1", "avi", {"pix_fmt": "rgb555le"}),
        ("svq1", "mov", {"pix_fmt": "yuv410p"}),
        ("cfhd", "mov", {"pix_fmt": "yuv422p10le", "width": 128, "height": 96}),
    ],
)
def test_old_and_intermediate_codecs_are_decoded(codec: str, container: str, options: dict[str, Any]) -> None:
    video = decode_video(numbered_clip(frames=8, codec=codec, container=container, **options), SPEC).video
    assert (video.codec, video.frames) == (codec, 8)


def with_empty_packets(data: bytes) -> bytes:
    """H.264 in Matroska with a packet of only an access unit delimiter before each frame."""
    file = io.BytesIO()
    with av.open(io.BytesIO(data), "r") as source, av.open(file, "w", format="matroska") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if not packet.size:
                continue
            assert packet.dts is not None
            assert packet.pts is not None
            assert packet.duration is not None
            empty = av.Packet(b"\0\0\0\x02\x09\xf0")
            empty.time_base, empty.stream = packet.time_base, stream
            empty.pts, empty.dts = packet.pts, packet.dts
            packet.pts += packet.duration // 2
            packet.dts += packet.duration // 2
            packet.stream = stream
            output.mux(empty)
            output.mux(packet)
    return file.getvalue()


def test_packets_without_a_picture_are_not_broken() -> None:
    video = decode_video(with_empty_packets(numbered_clip(frames=20, options={"bf": "0"})), SPEC).video
    assert (video.frames, video.broken_packets) == (20, 0)


def test_media_data_is_not_read_to_find_edit_lists() -> None:
    data = numbered_clip(frames=20)
    media = b"\0" * 30_000_000
    file = CountingFile(data + (len(media) + 8).to_bytes(4) + b"mdat" + media)
    with open_video(file, DecodeLimits(), peek=False):
        assert file.read_bytes < 1_000_000


def test_an_edit_list_behind_media_data_is_found() -> None:
    data = repeated_by_edit_list(numbered_clip(frames=20), 20_000)
    with pytest.raises(OverLimit, match="edits"):
        decode_video(b"\0\0\0\x08free" + b"\0\0\0\x10mdat" + bytes(8) + data, SPEC)
