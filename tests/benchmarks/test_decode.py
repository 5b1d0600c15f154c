"""The decode benchmark: frame numbers, ratios, and whole measurements of small videos."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.common import report
from benchmarks.decode import folder
from benchmarks.decode.command import measure
from benchmarks.decode.libraries import shown_number, thumbnail
from benchmarks.decode.report import as_text
from benchmarks.decode.rounds import best_peer, ratios
from benchmarks.decode.videos import Recipe, make, read_stamp, stamp
from tests.support.clips import numbered_clip, numbered_image


@pytest.mark.parametrize("number", [0, 1, 299, 5399, 65535])
@pytest.mark.parametrize("side", [112, 224])
def test_stamped_numbers_are_read_at_either_size(number: int, side: int) -> None:
    picture = np.full((1080, 1920, 3), 118, np.uint8)
    stamp(picture, number)
    small = np.asarray(Image.fromarray(picture).resize((side * 16 // 9, side), Image.Resampling.BILINEAR))
    assert read_stamp(small) == number


def times(*wall_ms: float, **more: Any) -> dict[str, Any]:
    return {"wall_ms": list(wall_ms), "cpu_ms": [2 * value for value in wall_ms]} | more


def test_best_peer_is_the_fastest_that_is_right() -> None:
    results = {
        "ours": times(1, 2, 3),
        "wrong": times(1, 1, 1, wrong_frames=3),
        "fails": times(error="RuntimeError"),
        "slow": times(8, 9, 10),
        "quick": times(4, 4, 4),
    }
    assert best_peer(results) == "quick"
    assert ratios(results, "quick", "wall_ms") == (0.5, 0.25, 0.75)
    assert best_peer({"ours": times(1)}) is None


def test_a_generated_video_is_measured_and_reported(tmp_path: Path) -> None:
    options = {"x264-params": "keyint=10:scenecut=0:bframes=2"}
    recipe = Recipe("tiny", "a tiny video", 320, 240, 40, Fraction(25), "libx264", ".mp4", options)
    path = make(recipe, tmp_path)
    row = measure(recipe, path, ["ours", "PyAV", "OpenCV"], rounds=1)
    assert row["pixels_of_a_full_decode"]
    assert row["decoded"] < row["packets"] == 40
    for mode in ("alone", "two_at_once"):
        assert not any({"error", "wrong_frames"} & result.keys() for result in row[mode].values())
    document = {"videos": [row], "libraries": {"ours": "1", "PyAV": "2", "decord2": None}}
    text = as_text(document | {"machine": report.machine()})
    assert "Not installed: decord2." in text
    assert f"| a tiny video | {row['decoded']} of 40 | yes |" in text


def test_an_image_shows_the_most_similar_frame_and_equal_frames_count_as_right() -> None:
    images = [numbered_image(number, 112, 112) for number in (1, 2, 2, 3)]
    thumbnails = np.stack([thumbnail(image) for image in images])
    assert shown_number(images[0], thumbnails, expected=0) == 0
    assert shown_number(images[0], thumbnails, expected=3) == 0
    assert shown_number(images[1], thumbnails, expected=2) == 2
    assert shown_number(images[0][::-1], thumbnails, expected=0) == -1


def test_a_folder_is_measured_and_what_fails_is_named(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    (videos / "more").mkdir(parents=True)
    for name, rotation in (("upright.mp4", 0), ("more/turned.mp4", 90)):
        data = numbered_clip(frames=40, width=320, height=240, rotation=rotation, options={"g": "10"})
        (videos / name).write_bytes(data)
    (videos / "notes.txt").write_text("not a video")
    messages: list[str] = []
    rows = folder.measure_folder(videos, ["ours", "PyAV"], rounds=1, say=messages.append)
    assert [row["name"] for row in rows] == ["more/turned.mp4", "upright.mp4"]
    assert all(row["pixels_of_a_full_decode"] for row in rows)
    assert not any({"error", "wrong_frames"} & row["results"]["ours"].keys() for row in rows)
    assert any(message.startswith("notes.txt: skipped") for message in messages)
    assert any(message.startswith("more/turned.mp4: PyAV returns") for message in messages)
    assert [best_peer(row["results"]) for row in rows] == [None, "PyAV"]
    figures = folder.summary(rows)
    assert (figures["videos"], figures["compared"]) == (2, 1)
    facts = {"libraries": {"ours": "1", "PyAV": "2"}, "machine": report.machine()}
    text = folder.as_text({"rows": rows, "summary": figures, "messages": messages} | facts)
    assert "on 1 of\n2 videos" in text
    assert f"| wall | {figures['wall_ms']['geometric_mean']:.2f} |" in text
