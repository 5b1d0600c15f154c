"""`blvnet timeline`: with a server and without one, the same answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from blvnet_client.results import LabelledSegment
from service.commands.output.segment_formats import as_vtt, clock
from tests.service.test_cli import blvnet
from tests.support.server import RunningServer
from tests.support.tiny_models import colour_clip


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of red, two of green, two of red."""
    path = tmp_path_factory.mktemp("videos") / "video.mp4"
    path.write_bytes(colour_clip((255, 0, 0), (0, 255, 0), (255, 0, 0), frames=150))
    return path


@pytest.fixture(params=["local", "server"])
def source(request: pytest.FixtureRequest, tiny_models: Path, server: RunningServer) -> list[str]:
    """Options for each of the two ways to get an answer."""
    return ["--models", str(tiny_models)] if request.param == "local" else ["--server", server.url]


def test_json_is_one_document(video: Path, source: list[str]) -> None:
    done = blvnet("timeline", video, *source, "--json", "--window", 1, "--stride", 0.5, "--top-k", 2)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert list(document) == [
        "clip", "windows", "summary", "model", "video", "timing_ms", "sha256", "provider",
    ]  # fmt: skip
    assert document["clip"] == str(video)
    assert [window["start_s"] for window in document["windows"]] == [k / 2 for k in range(11)]
    assert {len(window["predictions"]) for window in document["windows"]} == {2}
    assert [one["label"] for one in document["summary"]["segments"]] == ["red", "green", "red"]


def test_table_shows_what_happens_when(video: Path, source: list[str]) -> None:
    done = blvnet("timeline", video, *source, "--window", 2, "--model", "tiny")
    assert done.returncode == 0
    rows = [line.split()[:3] for line in done.stdout.splitlines() if "0:" in line]
    assert rows == [["0:00.0", "0:02.0", "red"], ["0:02.0", "0:04.0", "green"], ["0:04.0", "0:06.0", "red"]]
    assert done.stderr.splitlines() == [f"labelled {number} of 3 windows" for number in (1, 2, 3)]


def test_segments_are_subtitles_and_csv(video: Path, source: list[str]) -> None:
    outputs = {
        option: blvnet("timeline", video, *source, "--window", 2, option).stdout
        for option in ("--srt", "--vtt", "--csv")
    }
    assert outputs["--srt"].startswith("1\n00:00:00,000 --> 00:00:02,000\nred\n\n2\n00:00:02,000 --> ")
    assert outputs["--vtt"].startswith("WEBVTT\n\n00:00:00.000 --> 00:00:02.000\nred\n\n00:00:02.000 --> ")
    header, *rows = outputs["--csv"].splitlines()
    assert header == "start_s,end_s,label,score"
    assert [row.split(",")[:3] for row in rows] == [
        ["0.000000", "2.000000", "red"],
        ["2.000000", "4.000000", "green"],
        ["4.000000", "6.000000", "red"],
    ]


def test_overlapping_segments_are_subtitles_one_after_the_other() -> None:
    segments = [
        LabelledSegment(label="a <b>\n&", index=0, start_s=0.0, end_s=6.0, score=1.0),
        LabelledSegment(label="c", index=1, start_s=4.0, end_s=3661.5, score=1.0),
    ]
    assert as_vtt(segments).split("\n\n")[1:] == [
        "00:00:00.000 --> 00:00:04.000\na &lt;b&gt; &amp;",
        "00:00:04.000 --> 01:01:01.500\nc",
        "",
    ]


def test_errors_are_one_line(video: Path, source: list[str]) -> None:
    cases = {
        (str(Path(__file__)),): f"{__file__}: the file is not a video",
        ("nonesuch.mp4",): "nonesuch.mp4: ",
        (str(video), "--model", "nonesuch"): "nonesuch",
    }
    for arguments, message in cases.items():
        done = blvnet("timeline", *arguments, *source, "--json")
        assert (done.returncode, done.stdout) == (1, ""), arguments
        assert message in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument"),
        (["--window", "0", "x.mp4"], "--window"),
        (["--stride", "0.1", "x.mp4"], "--stride must be at least --window / 16"),
        (["--server", "http://x", "--models", ".", "x.mp4"], "cannot be combined"),
    ],
)
def test_bad_usage_is_status_2(arguments: list[str], message: str) -> None:
    done = blvnet("timeline", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00.0"), (59.96, "1:00.0"), (754.3, "12:34.3"), (3723.4, "1:02:03.4")]
)
def test_times_are_read_as_on_a_player(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown
