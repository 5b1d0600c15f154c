from __future__ import annotations

import io
import os
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from service.clip.decoding.clips import decode_video
from service.clip.sampling import sample_indices, uniform_indices
from service.clip.spec import ClipSpec, Frames, InputSpec, Sampling
from service.clip.video import DecodedVideo, DecodeLimits
from service.errors import InvalidParameter, Undecodable
from tests.support.clips import (
    ClipRecipe,
    coded_images,
    encode,
    numbered_clip,
    numbered_image,
    read_number,
    read_numbers,
    remuxed,
)

T = 16
LITTLE = InputSpec("little", Frames.EVEN, size=64, scale=64)
BIG = InputSpec("big", Frames.ODD, size=32, scale=32)
SPEC = ClipSpec(T, (LITTLE, BIG))
ONE_STREAM = ClipSpec(T, (InputSpec("frames", Frames.ALL, size=64, scale=64),))


def numbers(clip: DecodedVideo, view: int = 0) -> tuple[int, ...]:
    """The numbers that the T frames show, little and big frames put back in order."""
    taken = [0] * T
    taken[0::2] = read_numbers(clip.inputs["little"][view])
    taken[1::2] = read_numbers(clip.inputs["big"][view])
    return tuple(taken)


def assert_follows_the_rule(clip: DecodedVideo, frames: int) -> None:
    assert clip.video.frames == frames
    assert clip.indices == (uniform_indices(frames, T),)
    assert numbers(clip) == clip.indices[0]


H264_B = {"preset": "veryfast", "qp": "4", "bf": "3", "b_strategy": "0", "g": "12"}
H264_OPEN_GOP = {**H264_B, "x264-params": "open-gop=1:scenecut=0"}

KINDS: dict[str, tuple[dict[str, Any], str, str]] = {
    "mp4 h264": ({}, "mp4", "h264"),
    "mp4 h264 B-frames": ({"options": H264_B}, "mp4", "h264"),
    "mp4 h264 open GOP": ({"options": H264_OPEN_GOP}, "mp4", "h264"),
    "mp4 h264 4:4:4 10 bit": ({"pix_fmt": "yuv444p10le"}, "mp4", "h264"),
    "mp4 fragmented": ({"container_options": {"movflags": "frag_keyframe+empty_moov"}}, "mp4", "h264"),
    "mp4 hevc": ({"codec": "libx265"}, "mp4", "hevc"),
    "mp4 mpeg4": ({"codec": "mpeg4"}, "mp4", "mpeg4"),
    "mp4 mpeg4 B-frames": ({"codec": "mpeg4", "options": {"bf": "2"}}, "mp4", "mpeg4"),
    "mp4 av1": ({"codec": "libsvtav1", "width": 128, "height": 96}, "mp4", "av1"),
    "mov h264": ({"container": "mov"}, "mov", "h264"),
    "mov prores": ({"container": "mov", "codec": "prores_ks", "pix_fmt": "yuv422p10le"}, "mov", "prores"),
    "mov mjpeg": ({"container": "mov", "codec": "mjpeg", "pix_fmt": "yuvj420p"}, "mov", "mjpeg"),
    "webm vp8": ({"container": "webm", "codec": "libvpx"}, "webm", "vp8"),
    "webm vp9": ({"container": "webm", "codec": "libvpx-vp9"}, "webm", "vp9"),
    "webm vp9 hidden frames": (
        {
            "container": "webm",
            "codec": "libvpx-vp9",
            "options": {"deadline": "good", "auto-alt-ref": "1", "lag-in-frames": "16"},
        },
        "webm",
        "vp9",
    ),
    "mkv h264 B-frames": ({"container": "mkv", "options": H264_B}, "matroska", "h264"),
    "mkv hevc": ({"container": "mkv", "codec": "libx265"}, "matroska", "hevc"),
    "mkv ffv1": ({"container": "mkv", "codec": "ffv1", "pix_fmt": "bgr0"}, "matroska", "ffv1"),
    "avi mpeg4": ({"container": "avi", "codec": "mpeg4"}, "avi", "mpeg4"),
    "avi mjpeg": ({"container": "avi", "codec": "mjpeg", "pix_fmt": "yuvj420p"}, "avi", "mjpeg"),
    "ts h264": ({"container": "ts"}, "mpegts", "h264"),
    "ts h264 B-frames": ({"container": "ts", "options": H264_B}, "mpegts", "h264"),
    "ts mpeg2": ({"container": "ts", "codec": "mpeg2video"}, "mpegts", "mpeg2video"),
    "mpeg mpeg2 B-frames": (
        {"container": "mpeg", "codec": "mpeg2video", "options": {"bf": "2"}},
        "mpeg",
        "mpeg2video",
    ),
    "flv h264": ({"container": "flv"}, "flv", "h264"),
    "gif": ({"container": "gif", "codec": "gif", "pix_fmt": "rgb8"}, "gif", "gif"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_frames_of_the_sampling_rule_are_taken(kind: str) -> None:
    changes, container, codec = KINDS[kind]
    recipe = ClipRecipe(**{"frames": 41, **changes})
    clip = decode_video(numbered_clip(recipe), SPEC)
    assert_follows_the_rule(clip, 41)
    assert (clip.video.container, clip.video.codec) == (container, codec)
    assert (clip.video.width, clip.video.height) == (recipe.width, recipe.height)
    assert clip.video.fps == pytest.approx(25, rel=0.01)
    assert clip.video.duration_s == pytest.approx(41 / 25, rel=0.02)
    assert clip.timestamps_s[0] == pytest.approx([index / 25 for index in clip.indices[0]], abs=0.002)


@pytest.mark.parametrize("frames", [1, 2, 3, 8, 15, 16, 17, 31, 300])
@pytest.mark.parametrize("container", ["mp4", "ts"])
def test_any_number_of_frames_gives_t(frames: int, container: str) -> None:
    clip = decode_video(numbered_clip(frames=frames, container=container, width=128, height=96), SPEC)
    assert_follows_the_rule(clip, frames)


def test_inputs_have_the_specs_shapes() -> None:
    clip = decode_video(numbered_clip(), SPEC)
    assert {name: array.shape for name, array in clip.inputs.items()} == {
        "little": (1, 8, 64, 64, 3),
        "big": (1, 8, 32, 32, 3),
    }
    assert all(array.dtype == np.uint8 and array.flags.c_contiguous for array in clip.inputs.values())


def test_one_stream_networks_get_every_sampled_frame() -> None:
    clip = decode_video(numbered_clip(frames=40), ONE_STREAM)
    assert clip.inputs["frames"].shape == (1, T, 64, 64, 3)
    assert tuple(read_numbers(clip.inputs["frames"][0])) == uniform_indices(40, T)


@pytest.mark.parametrize("codec", ["libx264", "libvpx-vp9"])
@pytest.mark.parametrize(
    ("width", "height"), [(96, 64), (64, 96), (97, 65), (65, 97), (427, 240), (16, 16), (34, 600), (64, 64)]
)
def test_any_shape_is_cropped_from_its_centre(codec: str, width: int, height: int) -> None:
    pix_fmt = "yuv420p" if codec == "libvpx-vp9" or (width % 2, height % 2) == (0, 0) else "yuv444p"
    container = "webm" if codec == "libvpx-vp9" else "mp4"
    data = numbered_clip(
        frames=20, width=width, height=height, codec=codec, container=container, pix_fmt=pix_fmt
    )
    clip = decode_video(data, SPEC)
    assert (clip.video.width, clip.video.height) == (width, height)
    assert_follows_the_rule(clip, 20)


@pytest.mark.parametrize("container", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("rotation", [90, 180, 270])
@pytest.mark.parametrize(("width", "height"), [(96, 64), (64, 96)])
def test_rotated_clips_are_returned_upright(container: str, rotation: int, width: int, height: int) -> None:
    data = numbered_clip(frames=20, rotation=rotation, width=width, height=height, container=container)
    clip = decode_video(data, SPEC)
    assert clip.video.rotation == rotation
    assert (clip.video.width, clip.video.height) == (width, height)
    assert_follows_the_rule(clip, 20)


def test_a_mirrored_display_matrix_is_undone() -> None:
    recipe = ClipRecipe(frames=4, rotation=90)
    data = bytearray(encode((image[::-1] for image in coded_images(recipe)), recipe))
    at = data.find(b"tkhd") + 44
    assert struct.unpack(">9i", data[at : at + 36])[:5] == (0, 65536, 0, -65536, 0)
    data[at + 12 : at + 16] = struct.pack(">i", 65536)  # the coded frame is upside down before it is turned
    assert_follows_the_rule(decode_video(bytes(data), SPEC), 4)


def test_orientation_is_read_beside_side_data_that_pyav_does_not_know() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise
    file = io.BytesIO()
    with av.open(file, "w", format="mov") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        for number, coded in enumerate(coded_images(ClipRecipe(frames=4, rotation=90))):
            picture = io.BytesIO()
            Image.fromarray(coded).save(picture, "JPEG", quality=95, exif=exif)
            packet = av.Packet(picture.getvalue())
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 25)
            container.mux(packet)
    clip = decode_video(file.getvalue(), SPEC)
    assert clip.video.rotation == 90
    assert_follows_the_rule(clip, 4)


UNEVEN = tuple(int(1000 * (index / 30 if index < 20 else 5 + index / 10)) for index in range(41))


@pytest.mark.parametrize("container", ["mp4", "mkv", "webm"])
def test_variable_rate_is_sampled_by_order_and_timed_by_clock(container: str) -> None:
    codec = "libvpx-vp9" if container == "webm" else "libx264"
    data = numbered_clip(
        frames=41, times=UNEVEN, time_base=Fraction(1, 1000), container=container, codec=codec
    )
    clip = decode_video(data, SPEC)
    assert_follows_the_rule(clip, 41)
    assert clip.timestamps_s[0] == pytest.approx(
        [UNEVEN[index] / 1000 for index in clip.indices[0]], abs=0.002
    )
    assert clip.video.fps == pytest.approx(40 / 9, rel=0.02)


@pytest.mark.parametrize(
    ("container", "options"), [("mp4", H264_B), ("mkv", {}), ("ts", H264_B), ("flv", {})]
)
def test_a_late_start_does_not_shift_times(container: str, options: dict[str, str]) -> None:
    times = tuple(range(90_000, 90_041))
    data = numbered_clip(
        frames=41,
        times=times,
        time_base=Fraction(1, 25),
        container=container,
        options=options,
        container_options={"avoid_negative_ts": "disabled"},
    )
    clip = decode_video(data, SPEC)
    assert_follows_the_rule(clip, 41)
    assert clip.timestamps_s[0] == pytest.approx([index / 25 for index in clip.indices[0]], abs=0.002)


@pytest.mark.parametrize("options", [{}, H264_B])
def test_frames_cut_off_by_an_edit_list_do_not_count(options: dict[str, str]) -> None:
    data = numbered_clip(
        frames=40,
        times=tuple(range(-10, 30)),
        time_base=Fraction(1, 25),
        options=options,
        container_options={"avoid_negative_ts": "disabled", "use_editlist": "1"},
    )
    clip = decode_video(data, SPEC)
    assert clip.video.frames == 30
    assert clip.indices == (uniform_indices(30, T),)
    assert numbers(clip) == tuple(index + 10 for index in clip.indices[0])
    assert clip.timestamps_s[0][0] == 0.0


@pytest.mark.parametrize(
    ("recipe", "kept"),
    [
        (ClipRecipe(frames=60, container_options={"movflags": "faststart"}), 0.7),
        (ClipRecipe(frames=60, container="mkv"), 0.7),
        (ClipRecipe(frames=60, container="webm", codec="libvpx-vp9"), 0.7),
        (ClipRecipe(frames=60, container="ts"), 0.7),
        (ClipRecipe(frames=60, container="avi", codec="mpeg4", width=320, height=240), 0.8),
    ],
    ids=lambda value: value.container if isinstance(value, ClipRecipe) else str(value),
)
def test_truncated_file_gives_its_decodable_frames(recipe: ClipRecipe, kept: float) -> None:
    whole = numbered_clip(recipe)
    clip = decode_video(whole[: int(kept * len(whole))], SPEC)
    assert 16 < clip.video.frames < 60
    assert clip.indices == (uniform_indices(clip.video.frames, T),)
    # The frame that the cut goes through may be a concealed one.
    assert numbers(clip)[:-1] == clip.indices[0][:-1]


def test_vp8_frames_that_are_not_shown_do_not_count() -> None:
    def hide(index: int, packet: bytearray) -> bytearray:
        if index % 5 == 3:
            packet[0] &= ~0x10
        return packet

    shown = [index for index in range(41) if index % 5 != 3]
    clip = decode_video(
        remuxed(numbered_clip(frames=41, container="webm", codec="libvpx"), hide, "webm"), SPEC
    )
    assert clip.video.frames == len(shown)
    assert numbers(clip) == tuple(shown[index] for index in uniform_indices(len(shown), T))


def test_a_stream_joined_midway_counts_from_its_first_whole_frame() -> None:
    """The packets before the first keyframe exist but give no frame: the count is corrected."""
    data = numbered_clip(frames=60, container="ts", options={"g": "12", "x264-params": "scenecut=0"})
    joined = remuxed(data, lambda index, packet: packet if index >= 7 else None, "mpegts")
    clip = decode_video(joined, SPEC)
    assert clip.video.frames == 48
    assert numbers(clip) == tuple(12 + index for index in uniform_indices(48, T))
    assert clip.timestamps_s[0] == pytest.approx([index / 25 for index in clip.indices[0]], abs=0.002)


def test_a_hole_in_the_middle_leaves_the_other_frames() -> None:
    recipe = ClipRecipe(frames=60, container="mkv", options={"g": "1", "qp": "0"})
    data = bytearray(numbered_clip(recipe))
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(64)
    clip = decode_video(bytes(data), SPEC)
    assert 40 <= clip.video.frames < 61
    assert len(clip.indices[0]) == T
    assert read_number(clip.inputs["little"][0, 0]) == clip.indices[0][0]


def test_an_mp4_without_its_index_is_undecodable() -> None:
    whole = numbered_clip(frames=60)
    with pytest.raises(Undecodable, match="index"):
        decode_video(whole[: len(whole) // 2], SPEC)


def test_a_video_without_frames_is_undecodable() -> None:
    data = numbered_clip(frames=30, container_options={"movflags": "frag_keyframe+empty_moov"})
    with pytest.raises(Undecodable):
        decode_video(data[: data.find(b"moof") - 4], SPEC)


def test_frames_may_change_size() -> None:
    """Two transport streams end to end, as a camera that was turned off and on writes them."""
    wide = numbered_clip(frames=20, container="ts", width=96, height=64)
    tall = numbered_clip(frames=20, container="ts", width=64, height=112)
    clip = decode_video(wide + tall, SPEC)
    assert (clip.video.width, clip.video.height, clip.video.frames) == (96, 64, 40)
    assert numbers(clip) == tuple(index % 20 for index in clip.indices[0])
    assert list(clip.timestamps_s[0]) == sorted(clip.timestamps_s[0])


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("kind", ["mp4 h264 B-frames", "webm vp9 hidden frames", "mp4 av1"])
def test_threads_do_not_change_a_pixel(kind: str, threads: int) -> None:
    data = numbered_clip(ClipRecipe(**{"frames": 41, **KINDS[kind][0]}))
    one, other = decode_video(data, SPEC), decode_video(data, SPEC, threads=threads)
    assert one.video == other.video
    assert all(np.array_equal(one.inputs[name], other.inputs[name]) for name in one.inputs)


def test_path_text_bytes_and_file_are_the_same_clip(tmp_path: Path) -> None:
    data = numbered_clip()
    path = tmp_path / "a clip.mp4"
    path.write_bytes(data)
    with path.open("rb") as file:
        file.seek(100)  # the file is read from its beginning, not from its position
        clips = [decode_video(source, SPEC) for source in (path, str(path), data, file)]
        assert not file.closed
    assert all(clip.video == clips[0].video for clip in clips)
    assert all(np.array_equal(clip.inputs["little"], clips[0].inputs["little"]) for clip in clips)


def test_frames_are_written_to_the_given_arrays() -> None:
    data = numbered_clip()
    memory = {"little": np.zeros((1, 8, 64, 64, 3), np.uint8), "big": np.zeros((1, 8, 32, 32, 3), np.uint8)}
    clip = decode_video(data, SPEC, out=memory)
    own = decode_video(data, SPEC)
    for name, array in memory.items():
        assert clip.inputs[name] is array
        assert np.array_equal(array, own.inputs[name])


def test_missing_file_raises_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        decode_video(tmp_path / "none.mp4", SPEC)


def test_several_clips_are_in_clip_major_order() -> None:
    clip = decode_video(numbered_clip(frames=80), SPEC, clips=3)
    assert clip.indices == sample_indices(SPEC, 80, 3)
    assert [numbers(clip, view) for view in range(3)] == list(clip.indices)
    assert len(clip.timestamps_s) == 3


def test_dense_sampling_takes_windows() -> None:
    dense = ClipSpec(T, SPEC.inputs, Sampling.DENSE, stride=4)
    clip = decode_video(numbered_clip(frames=100), dense, clips=2)
    assert clip.indices == sample_indices(dense, 100, 2)
    assert [numbers(clip, view) for view in range(2)] == list(clip.indices)


def stripes(width: int, height: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Grey by column, so that a crop shows where it was taken."""
    ramp = np.linspace(20, 230, width).astype(np.uint8)
    return np.broadcast_to(ramp[None, :, None], (height, width, 3)).copy()


@pytest.mark.parametrize(
    ("crops", "left_edges"),
    [
        (1, [80]),
        (3, [20, 80, 140]),
        (5, [20, 140, 20, 140, 80]),
        (10, [20, 140, 20, 140, 80, 110, 230, 110, 230, 170]),
    ],
)
def test_crops_are_those_of_geometry(crops: int, left_edges: list[int]) -> None:
    data = encode([stripes(112, 48)] * 4, ClipRecipe(width=112, height=48))
    spec = ClipSpec(4, (InputSpec("a", Frames.EVEN, 48, 48), InputSpec("b", Frames.ODD, 24, 24)))
    clip = decode_video(data, spec, clips=2, crops=crops)
    for array in clip.inputs.values():
        assert array.shape[0] == 2 * crops
        edges = array[:, 0, 12, 0, 0].astype(int)  # the pixel at the left edge, of every view
        assert np.abs(edges - left_edges * 2).max() <= 5


def test_scale_above_size_leaves_a_margin() -> None:
    spec = ClipSpec(4, (InputSpec("all", Frames.ALL, size=48, scale=60),))
    clip = decode_video(encode([stripes(64, 64)] * 4, ClipRecipe(width=64, height=64)), spec)
    row = clip.inputs["all"][0, 0, 24, :, 0].astype(int)
    assert row[0] == pytest.approx(20 + 210 * 6 / 60, abs=4)
    assert row[-1] == pytest.approx(230 - 210 * 6 / 60, abs=4)


def test_a_frame_wanted_by_both_inputs_reaches_both() -> None:
    same_scale = ClipSpec(T, (LITTLE, InputSpec("big", Frames.ODD, size=32, scale=64)))
    clip = decode_video(numbered_clip(frames=3), same_scale)
    assert clip.inputs["big"].shape == (1, 8, 32, 32, 3)
    for moment in range(8):
        little, big = clip.inputs["little"][0, moment], clip.inputs["big"][0, moment]
        if clip.indices[0][2 * moment] == clip.indices[0][2 * moment + 1]:
            assert np.array_equal(little[16:48, 16:48], big)


@pytest.mark.parametrize(("clips", "crops"), [(0, 1), (1, 0), (1, 2), (1, 4)])
def test_impossible_views_are_refused(clips: int, crops: int) -> None:
    with pytest.raises(InvalidParameter, match="must be"):
        decode_video(b"", SPEC, clips=clips, crops=crops)


def test_only_wanted_frames_are_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    converted: list[tuple[int, int]] = []
    original = av.video.reformatter.VideoReformatter.reformat

    class Counting:
        def __init__(self) -> None:
            self._inner = av.video.reformatter.VideoReformatter()

        def reformat(self, frame: av.VideoFrame, **options: Any) -> av.VideoFrame:
            converted.append((options["width"], options["height"]))
            return original(self._inner, frame, **options)

    monkeypatch.setattr("service.clip.scaling.VideoReformatter", Counting)
    decode_video(numbered_clip(frames=200, width=64, height=64), SPEC, DecodeLimits())
    assert sorted(converted) == [(32, 32)] * 8 + [(64, 64)] * 8


def test_numbered_images_are_unreadable_when_turned_or_mirrored() -> None:
    image = numbered_image(1234, 64, 64)
    assert read_number(image) == 1234
    for wrong in (image[:, ::-1], image[::-1], np.rot90(image), np.rot90(image, 2), np.rot90(image, 3)):
        with pytest.raises(ValueError, match="upright"):
            read_number(wrong)


def test_making_clips_does_not_change_the_process() -> None:
    before = os.sched_getscheduler(0)
    numbered_clip(ClipRecipe(**KINDS["mp4 av1"][0], frames=2))
    assert os.sched_getscheduler(0) == before  # a real-time test run would starve its child processes
