"""The page in Chromium: the timeline of a long video, its lanes, segments and files."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from tests.service.http.page.conftest import opened
from tests.service.http.page.waits import CLIP_DONE, PROBLEM, TIMELINE_DONE, answer, pause, time_of
from tests.service.http.routes.test_timeline import mostly_broken
from tests.support.browser import Page
from tests.support.server import RunningServer, running_server

LANES = "document.getElementById('lanes').getAttribute('aria-valuetext')"


def rows(page: Page) -> list[str]:
    """The listed segments, one line each."""
    texts = page.evaluate("[...document.getElementById('segments').children].map((row) => row.innerText)")
    return [" ".join(text.split()) for text in texts]


def wait_for_bars(page: Page, *windows: int) -> None:
    """Wait until each lane has this many windows with its label as the best; lanes are drawn once a frame."""
    counts = "[...document.querySelectorAll('#lanes path[data-best=true]')].map(count)"
    page.wait_for(
        "(() => { const count = (path) => path.getAttribute('d').split('M').length - 1;"
        f" return JSON.stringify({counts}) === JSON.stringify({list(windows)}); }})()"
    )


def use_timeline(page: Page, **options: float) -> None:
    """Select the timeline before there is a video."""
    page.click("#mode-timeline")
    for name, value in options.items():
        page.enter(f"#{name}", value)


def test_long_video_becomes_a_timeline_and_both_results_are_kept(page: Page, video: Path) -> None:
    page.choose_file("#file", video)
    page.wait_for(TIMELINE_DONE)
    assert page.evaluate("document.getElementById('mode-timeline').checked")
    assert rows(page) == ["0:00 to 0:08 red 100 %", "0:08 to 0:16 green 100 %", "0:16 to 0:24 red 100 %"]
    wait_for_bars(page, 4, 2)
    said = answer(page)
    assert [line["predictions"][0]["label"] for line in said["windows"]] == [
        "red",
        "red",
        "green",
        "green",
        "red",
        "red",
    ]
    assert page.text("#news") == "Done: 6 windows, 3 segments."
    assert page.text("#headline strong") == "3 segments, 2 labels"
    page.click("#mode-clip")
    page.wait_for(CLIP_DONE)
    sent = sum("/v1/" in request for request in page.requests)
    page.click("#mode-timeline")
    page.wait_for("!document.getElementById('lanes').closest('figure').hidden")
    assert rows(page)[1] == "0:08 to 0:16 green 100 %"
    page.click("#mode-clip")
    page.wait_for("!document.getElementById('bars').closest('div').hidden")
    assert page.text("#headline strong") == "red"
    assert sum("/v1/" in request for request in page.requests) == sent
    assert page.complaints == []


def test_labels_are_on_the_video_and_under_the_cursor(page: Page, video: Path) -> None:
    page.choose_file("#file", video)
    page.wait_for(TIMELINE_DONE)
    pause(page)
    cues = page.each(
        "#video", "[...one.textTracks[0].cues].map((cue) => [cue.startTime, cue.endTime, cue.text])"
    )[0]
    assert cues == [[0, 8, "red"], [8, 16, "green"], [16, 24, "red"]]
    assert page.evaluate("document.getElementById('video').textTracks[0].mode") == "showing"
    page.evaluate("document.getElementById('lanes').focus()")
    page.press("Home", 36)
    assert page.evaluate(LANES).startswith("0:00 to 0:04, window 1 of 6: red ")
    for _ in range(2):
        page.press("ArrowRight", 39)
    assert page.evaluate(LANES).startswith("0:08 to 0:12, window 3 of 6: green ")
    page.wait_for("document.getElementById('video').currentTime === 8")
    assert page.text("#caption").endswith("green")
    assert page.text("#window-bars li .name") == "green"
    page.hover("#lanes", 0.98)
    page.wait_for("document.getElementById('video').currentTime > 22")
    page.click("#segments li:nth-child(2) button")
    page.wait_for("document.getElementById('video').currentTime === 8")
    page.click("#titles")
    assert page.evaluate("document.getElementById('video').textTracks[0].cues.length") == 0
    assert time_of(page) == 8


def test_lanes_can_be_zoomed_and_segments_searched_with_one_tab_stop_each(page: Page, video: Path) -> None:
    page.choose_file("#file", video)
    page.wait_for(TIMELINE_DONE)
    pause(page)
    page.evaluate("document.getElementById('lanes').focus()")
    page.press("Home", 36)
    for _ in range(2):
        page.press("+", 187, "+")
    page.wait_for("[...document.querySelectorAll('#lanes-chart text')].at(-1).textContent === '0:06'")
    wait_for_bars(page, 2, 0)
    page.press("End", 35)  # what is zoomed follows the cursor
    page.wait_for("[...document.querySelectorAll('#lanes-chart text')].at(-1).textContent === '0:23'")
    page.click("#zoom-all")
    page.wait_for("document.getElementById('zoom-all').disabled")
    wait_for_bars(page, 4, 2)
    page.enter("#search", "GRE")
    assert rows(page) == ["0:08 to 0:16 green 100 %"]
    assert page.text("#search-count") == "1 of 3 segments"
    page.enter("#search", "")
    assert page.evaluate("document.querySelectorAll('#segments button[tabindex=\"0\"]').length") == 1
    assert page.evaluate("document.querySelectorAll('#lanes [tabindex], #lanes').length") == 1
    page.evaluate("document.querySelector('#segments button[tabindex=\"0\"]').focus()")
    page.press("ArrowDown", 40)
    assert "green" in page.evaluate("document.activeElement.innerText") or "red" in page.evaluate(
        "document.activeElement.innerText"
    )
    assert page.evaluate("document.querySelectorAll('#segments button[tabindex=\"0\"]').length") == 1


def test_segments_are_saved_in_four_formats(
    page: Page, video: Path, tmp_path: Path, server: RunningServer
) -> None:
    page.command("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.choose_file("#file", video)
    page.wait_for(TIMELINE_DONE)
    for form in ("vtt", "srt", "csv", "json"):
        page.click(f"#exports [data-format={form}]")
        server.wait_for((tmp_path / f"three scenes.{form}").exists, f"the {form} file")
    saved = {form: (tmp_path / f"three scenes.{form}").read_text() for form in ("vtt", "srt", "csv", "json")}
    assert saved["vtt"].startswith("WEBVTT\n\n00:00:00.000 --> 00:00:08.000\nred\n\n00:00:08.000 --> ")
    assert saved["srt"].startswith("1\n00:00:00,000 --> 00:00:08,000\nred\n\n2\n")
    table = list(csv.DictReader(io.StringIO(saved["csv"])))
    document = json.loads(saved["json"])
    assert [(float(row["start_s"]), float(row["end_s"]), row["label"]) for row in table] == [
        (part["start_s"], part["end_s"], part["label"]) for part in document["summary"]["segments"]
    ]
    assert [float(row["score"]) for row in table] == pytest.approx(
        [part["score"] for part in document["summary"]["segments"]]
    )
    assert len(document["windows"]) == 6


def test_error_line_is_shown_beside_the_windows_before_it(page: Page, tmp_path: Path) -> None:
    (broken := tmp_path / "broken.mp4").write_bytes(mostly_broken())
    use_timeline(page, window_s=1)
    page.choose_file("#file", broken)
    page.wait_for(PROBLEM)
    assert "cannot be decoded" in page.text("#problem")
    assert "Request " in page.text("#problem-id")
    assert page.text("#windows-note").startswith("Failed after")
    assert rows(page)[0].startswith("0:00 to ")


def test_invalid_windows_are_explained_and_the_next_timeline_works(page: Page, video: Path) -> None:
    use_timeline(page, stride_s=0.1)
    page.choose_file("#file", video)
    page.wait_for(PROBLEM)
    assert "stride_s must be at least window_s / 16" in page.text("#problem")
    assert page.evaluate("document.getElementById('result').hidden")
    page.enter("#stride_s", "2")
    page.wait_for(TIMELINE_DONE)
    assert page.evaluate("document.getElementById('problem').hidden")
    page.click("#tab-curl")
    assert "/v1/timeline?stride_s=2" in page.text("#snippet")


def test_timeline_that_is_cut_off_says_so_beside_what_it_has(
    chromium: Page, tiny_models: Path, slow_video: Path
) -> None:
    with running_server(tiny_models) as killed:
        page = opened(chromium, killed.url)
        use_timeline(page, window_s=1)
        page.choose_file("#file", slow_video)
        page.wait_for("document.querySelectorAll('#lanes path').length")
        killed.process.kill()
        page.wait_for(PROBLEM)
        assert "is incomplete" in page.text("#problem")
        assert page.text("#windows-note").startswith("Failed after")
