"""Unusual but valid files."""

from __future__ import annotations

from collections.abc import Iterator

from tests.hostile.boxes import box
from tests.hostile.item import FRAMES, SIZE, Item, base
from tests.support.clips import numbered_clip


def valid() -> Iterator[Item]:
    """Unusual but valid files with their number of frames."""
    kinds = {
        "mp4-h264": ("mp4", "libx264"), "mov-h264": ("mov", "libx264"), "mkv-h264": ("mkv", "libx264"),
        "ts-h264": ("ts", "libx264"), "flv-h264": ("flv", "libx264"), "avi-mpeg4": ("avi", "mpeg4"),
        "mp4-hevc": ("mp4", "libx265"), "mkv-hevc": ("mkv", "libx265"), "webm-vp8": ("webm", "libvpx"),
        "webm-vp9": ("webm", "libvpx-vp9"), "mp4-av1": ("mp4", "libsvtav1"), "mkv-av1": ("mkv", "libsvtav1"),
        "mpg-mpeg1": ("mpeg", "mpeg1video"), "ts-mpeg2": ("ts", "mpeg2video"), "mkv-ffv1": ("mkv", "ffv1"),
        "mkv-theora-none": ("mkv", "mpeg4"), "3gp-h264": ("3gp", "libx264"), "ogg-none": ("mkv", "libvpx"),
    }  # fmt: skip
    for name, (container, codec) in kinds.items():
        yield Item("valid", name, base(container, codec), FRAMES, SIZE)
    for codec, container, pix_fmt in (("mjpeg", "avi", "yuvj420p"), ("prores_ks", "mov", "yuv422p10le"),
                                      ("gif", "gif", "rgb8")):  # fmt: skip
        data = numbered_clip(frames=FRAMES, container=container, codec=codec, pix_fmt=pix_fmt, options={})
        yield Item("valid", f"{container}-{codec}", data, FRAMES, SIZE)
    for frames in (1, 2, 3):
        yield Item("valid", f"frames-{frames}", base(frames=frames), frames, SIZE)
    yield Item("valid", "rotated", numbered_clip(frames=5, rotation=90), 5, SIZE)
    yield Item("valid", "odd-size", numbered_clip(frames=5, width=98, height=66), 5, (98, 66))
    yield Item("valid", "tiny", numbered_clip(frames=5, width=16, height=16), 5, (16, 16))
    yield Item("valid", "long-and-thin", numbered_clip(frames=3, width=1024, height=32), 3, (1024, 32))
    yield Item("valid", "variable-rate", numbered_clip(frames=6, times=(0, 1, 5, 6, 30, 31)), 6, SIZE)
    yield Item(
        "valid", "late-start", numbered_clip(frames=6, times=tuple(range(900, 906)), container="mkv"), 6, SIZE
    )
    yield Item("valid", "fragmented", with_flags("frag_keyframe+empty_moov+default_base_moof"), FRAMES, SIZE)
    yield Item("valid", "index-first", with_flags("faststart"), FRAMES, SIZE)
    yield Item("valid", "one-frame-fragments", with_flags("frag_every_frame+empty_moov"), FRAMES, SIZE)
    data = base()
    yield Item("valid", "rubbish-behind", data + b"\xa5" * 5000, FRAMES, SIZE)
    yield Item("valid", "free-box-behind", data + box(b"free", bytes(3000)), FRAMES, SIZE)
    yield Item("valid", "unknown-box-behind", data + box(b"wxyz", b"\xff" * 999), FRAMES, SIZE)
    yield Item("valid", "zero-behind-ts", base("ts") + bytes(188 * 3), FRAMES, SIZE)
    yield Item("valid", "xml-in-uuid", data + box(b"uuid", bytes(16), b"<!DOCTYPE x>"), FRAMES, SIZE)
    late = numbered_clip(
        frames=12,
        container="ts",
        container_options={
            "mpegts_start_pid": "768",
            "mpegts_pmt_start_pid": "1234",
            "mpegts_service_id": "9",
        },
    )
    yield Item("valid", "ts-another-stream-later", base("ts") * 5 + late, 5 * FRAMES, SIZE)
    yield Item("valid", "all-intra", base(g="1"), FRAMES, SIZE)
    yield Item("valid", "b-frames", base(bf="3"), FRAMES, SIZE)
    # In these, some packets are skipped and the others rewritten before decoding.
    pyramid = {"preset": "veryfast", "bf": "3", "b_strategy": "0", "refs": "1", "g": "120", "qp": "20"}
    for container in ("mp4", "ts"):
        data = base(container, frames=90, **pyramid)
        yield Item("valid", f"{container}-unused-references", data, 90, SIZE)


def with_flags(movflags: str) -> bytes:
    return numbered_clip(frames=FRAMES, container_options={"movflags": movflags})
