from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.video.frame import PictureType
from av.video.stream import VideoStream

from model_export.synthetic.encode import SUFFIX, Codec, Encoding, write_video

CODECS: list[Codec] = ["h264", "vp9"]


def moving_bar(count: int = 20) -> npt.NDArray[np.uint8]:
    frames = np.full((count, 96, 128, 3), (40, 60, 160), dtype=np.uint8)
    for index, frame in enumerate(frames):
        frame[:, 6 * index : 6 * index + 8] = (230, 200, 40)
    return frames


def encoding(codec: Codec, b_frames: int = 0) -> Encoding:
    return Encoding(codec, Fraction(12), crf=18, b_frames=b_frames, gop=12)


def decoded(path: Path) -> tuple[VideoStream, npt.NDArray[np.uint8]]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream, np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])


@pytest.mark.parametrize("codec", CODECS)
def test_file_decodes_to_the_frames_in_their_order_and_colours(codec: Codec, tmp_path: Path) -> None:
    path = tmp_path / f"clip{SUFFIX[codec]}"
    write_video(path, moving_bar(), encoding(codec))
    stream, frames = decoded(path)
    assert stream.codec_context.name.startswith(codec)
    assert stream.average_rate == 12
    assert frames.shape == (20, 96, 128, 3)
    assert np.abs(frames.astype(int) - moving_bar()).mean() < 6


@pytest.mark.parametrize(("b_frames", "kinds"), [(0, {"I", "P"}), (3, {"I", "P", "B"})])
def test_b_frames_are_used_on_request(b_frames: int, kinds: set[str], tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, moving_bar(), encoding("h264", b_frames))
    with av.open(str(path)) as container:
        assert {PictureType(frame.pict_type).name for frame in container.decode(video=0)} == kinds


@pytest.mark.parametrize("codec", CODECS)
def test_same_frames_give_the_same_bytes(codec: Codec, tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}{SUFFIX[codec]}" for name in "ab"]
    for path in paths:
        write_video(path, moving_bar(), encoding(codec))
    assert paths[0].read_bytes() == paths[1].read_bytes()
