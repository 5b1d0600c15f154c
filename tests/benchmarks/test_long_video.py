"""The benchmark of long videos on a short one."""

from __future__ import annotations

import json
from pathlib import Path

import av
import pytest

from benchmarks import long_video


def test_video_repeats_its_pictures(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    long_video.write_video(path, seconds=24.0)
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    assert len(frames) == 600
    assert (frames[0] == frames[250]).all()
    assert (frames[0] != frames[125]).any()


def test_timeline_and_job_are_complete(tmp_path: Path) -> None:
    long_video.main(hours=0.005, out=tmp_path)
    document = json.loads((tmp_path / "long_video.json").read_text())
    assert [(run["name"], run["windows"]) for run in document["runs"]] == [("timeline", 5), ("job", 5)]
    assert "| timeline | 5 |" in (tmp_path / "long_video.md").read_text()


def test_growth_is_the_difference_of_the_halves() -> None:
    found = long_video.memory([100_000_000, 100_000_000, 130_000_000, 130_000_000])
    assert found == {"peak_mb": pytest.approx(130), "growth_mb": pytest.approx(30)}
